/* cloister status: is the coordinator well, and if not, why not. */
#include "client/cli/cli.h"
#include "client/cli/output.h"
#include "common/buf.h"
#include "common/crypto.h"
#include "common/units.h"
#include "common/utf8.h"

#include <inttypes.h>
#include <string.h>

static json_t *status_document(const struct cloister_status *s, const char *url,
                               const struct cloister_server *server)
{
    json_t *reasons = json_array();
    for (size_t i = 0; i < s->n_reasons; i++)
        json_array_append_new(reasons, output_string(s->reasons[i]));
    json_t *document =
        json_pack("{s:s, s:o, s:o, s:o, s:o, s:b, s:o, s:b}",                              //
                  "url", url,                                                              //
                  "coordinator", output_string(s->coordinator),                            //
                  "build", output_string(s->build),                                        //
                  "public_key", output_hex(server->public_key, sizeof server->public_key), //
                  "uptime_ms", output_count(s->uptime_ms),                                 //
                  "healthy", s->healthy,                                                   //
                  "reasons", reasons,                                                      //
                  "admission_open", s->admission_open);
    const struct {
        const char *name;
        uint64_t count;
    } counts[] = {
        {"queued", s->queued},
        {"leased", s->leased},
        {"running", s->running},
        {"ended", s->ended},
        {"queued_tokens", s->queued_tokens},
        {"workers_alive", s->workers_alive},
        {"workers_known", s->workers_known},
        {"oldest_queued_ms", s->oldest_queued_ms},
        {"oldest_running_idle_ms", s->oldest_running_idle_ms},
        {"store_used_bytes", s->store_used_bytes},
        {"store_map_bytes", s->store_map_bytes},
        {"ledger_size", s->ledger_size},
        {"checkpoint_size", s->checkpoint_size},
        {"commits", s->commits},
        {"commit_us_median", s->commit_us_median},
        {"commit_us_max", s->commit_us_max},
        {"requests", s->requests},
        {"parked", s->parked},
        {"stale_reports", s->stale_reports},
        {"refused", s->refused},
        {"dropped", s->dropped},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        json_object_set_new(document, counts[i].name, output_count(counts[i].count));
    return document;
}

static void status_text(const struct cloister_status *s, const char *url,
                        const struct cloister_server *server, struct buf *out)
{
    char key[2 * sizeof server->public_key + 1];
    char uptime[UNITS_TEXT_BYTES], oldest[UNITS_TEXT_BYTES], idle[UNITS_TEXT_BYTES];
    char used[UNITS_TEXT_BYTES], map[UNITS_TEXT_BYTES], tokens[UNITS_TEXT_BYTES];
    hex_encode(server->public_key, sizeof server->public_key, key);
    units_duration_format(s->uptime_ms, uptime);
    units_duration_format(s->oldest_queued_ms, oldest);
    units_duration_format(s->oldest_running_idle_ms, idle);
    units_size_format(s->store_used_bytes, used);
    units_size_format(s->store_map_bytes, map);
    units_count_format(s->queued_tokens, tokens);
    utf8_append_safe(out, s->coordinator, strlen(s->coordinator), false);
    buf_printf(out, " at %s is %s", url, s->healthy ? "healthy" : "NOT healthy");
    for (size_t i = 0; i < s->n_reasons; i++) {
        buf_append_str(out, "\n  - ");
        utf8_append_safe(out, s->reasons[i], strlen(s->reasons[i]), false);
    }
    buf_append_str(out, "\nbuild       ");
    utf8_append_safe(out, s->build, strlen(s->build), false);
    buf_printf(out, ", up %s\nkey         %s\n", uptime, key);
    buf_printf(out, "admission   %s\n", s->admission_open ? "open" : "CLOSED");
    buf_printf(out,
               "jobs        %" PRIu64 " queued (%s tokens), %" PRIu64 " leased, %" PRIu64
               " running, %" PRIu64 " ended\n",
               s->queued, tokens, s->leased, s->running, s->ended);
    buf_printf(out, "oldest      %s in the queue, %s since a running job's last token\n", oldest,
               idle);
    buf_printf(out, "workers     %" PRIu32 " alive of %" PRIu32 " known\n", s->workers_alive,
               s->workers_known);
    buf_printf(out, "store       %s of %s\n", used, map);
    buf_printf(out, "ledger      %" PRIu64 " records, %" PRIu64 " under a signed checkpoint\n",
               s->ledger_size, s->checkpoint_size);
    buf_printf(out, "commits     %" PRIu64 ", median %.1f ms, longest %.1f ms\n", s->commits,
               (double)s->commit_us_median / 1000, (double)s->commit_us_max / 1000);
    buf_printf(out,
               "requests    %" PRIu64 " taken, %" PRIu64 " parked, %" PRIu64 " unreadable, %" PRIu64
               " dropped, %" PRIu64 " reports from past leases\n",
               s->requests, s->parked, s->refused, s->dropped, s->stale_reports);
}

int command_status(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)values;
    (void)operands;
    (void)n_operands;
    struct cloister_problem problem;
    struct cloister_result *result;
    const struct cloister_status *status;
    struct cloister_server server;
    int code = cli_connect(cli);
    if (code != CLI_EXIT_OK)
        return code;
    if (cloister_get_status(cli->cluster, &result, &status, &problem) != CLOISTER_OK)
        return cli_fail_problem(&problem);
    cloister_get_server(cli->cluster, &server);
    if (cli->globals.json) {
        code = output_print(status_document(status, cli->settings.url, &server), true);
    } else {
        struct buf text;
        buf_init(&text);
        status_text(status, cli->settings.url, &server, &text);
        code = output_print_text(&text);
    }
    if (code == CLI_EXIT_OK && !status->healthy)
        code = CLI_EXIT_FAILED;
    cloister_result_free(result);
    return code;
}
