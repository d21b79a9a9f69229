/* cloister ledger export, cloister ledger verify: the record of what was computed, carried out on a
 * stick and checked by itself. verify talks to nobody. */
#include "client/cli/command_values.h"
#include "client/cli/output.h"
#include "common/buf.h"
#include "common/limits.h"
#include "common/units.h"
#include "common/utf8.h"
#include "coordinator/ledger/export.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A signed note with its cosignatures, in JSON with room for escapes. */
#define LEDGER_KEPT_BYTES (4 * LIMIT_CHECKPOINT_BYTES)

static const struct flag ledger_export_flags[] = {
    {.name = "output",
     .letter = 'o',
     .type = FLAG_TEXT,
     .argument = "FILE",
     .offset = offsetof(struct ledger_export_values, output),
     .help = "Where to; - (the default) is standard output. A file is complete or not there."},
    {.name = "from",
     .type = FLAG_UINT,
     .argument = "SEQ",
     .offset = offsetof(struct ledger_export_values, from),
     .help = "From this record on. Only an export from 0 can be verified by itself."},
    {0}};
const struct flag_set ledger_export_sets[] = {{.flags = ledger_export_flags}, {0}};

static const struct flag ledger_verify_flags[] = {
    {.name = "key",
     .letter = 'k',
     .type = FLAG_TEXT,
     .argument = "HEX|FILE",
     .offset = offsetof(struct ledger_verify_values, key),
     .help = "The coordinator's public key that you trust: 64 hex digits, or a file that holds "
             "them. Without it the file's own key is used, which shows that nothing was damaged, "
             "not who signed."},
    {.name = "origin",
     .type = FLAG_TEXT,
     .argument = "NAME",
     .offset = offsetof(struct ledger_verify_values, origin),
     .help = "The ledger that it must be."},
    {.name = "against",
     .letter = 'a',
     .type = FLAG_TEXT,
     .argument = "FILE",
     .offset = offsetof(struct ledger_verify_values, against),
     .help = "A checkpoint that you kept: a signed note, or an older export of this ledger. The "
             "file must begin with the records it covers, else the ledger was written anew."},
    {0}};
const struct flag_set ledger_verify_sets[] = {{.flags = ledger_verify_flags}, {0}};

/* ---- export ---- */

struct ledger_export {
    struct cli *cli;
    FILE *out;
    const char *name; /* of `out`, for messages */
    uint64_t next;
    bool headed;
};

static int ledger_export_put(struct ledger_export *x, struct buf *lines)
{
    bool ok = !lines->failed && fwrite(buf_str(lines), 1, lines->size, x->out) == lines->size;
    buf_clear(lines);
    return ok ? CLI_EXIT_OK : cli_fail(CLI_EXIT_FAILED, "%s: %s", x->name, strerror(errno));
}

static int ledger_export_page(struct ledger_export *x, const struct cloister_ledger_page *page,
                              bool *ret_last)
{
    struct errbuf eb = {0};
    struct buf lines;
    buf_init(&lines);
    int code = CLI_EXIT_OK;
    if (!x->headed)
        ledger_export_header(&lines, page->origin, page->public_key);
    x->headed = true;
    if (page->n_records > 0 && page->first != x->next)
        code = cli_fail(CLI_EXIT_FAILED,
                        "the coordinator sent records from %" PRIu64 " instead of %" PRIu64,
                        page->first, x->next);
    for (size_t i = 0; code == CLI_EXIT_OK && i < page->n_records; i++) {
        if (ledger_export_record(&lines, page->records[i].data, page->records[i].size, &eb) !=
            ERR_OK)
            code = cli_fail(CLI_EXIT_FAILED, "record %" PRIu64 " as the coordinator sent it: %s",
                            x->next, eb.text);
        x->next++;
    }
    if (x->next > page->ledger_size)
        code =
            cli_fail(CLI_EXIT_USAGE, "the ledger has %" PRIu64 " records, none from %" PRIu64 " on",
                     page->ledger_size, x->next);
    *ret_last = page->n_records == 0 || x->next >= page->ledger_size;
    /* The note covers no more than ledger_size, all of which is out now. */
    if (code == CLI_EXIT_OK && *ret_last && page->checkpoint[0])
        ledger_export_checkpoint(&lines, page->checkpoint);
    if (code == CLI_EXIT_OK)
        code = ledger_export_put(x, &lines);
    if (x->cli->stderr_is_terminal && page->ledger_size > LIMIT_LIST_ROWS)
        fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " records%s", x->next, page->ledger_size,
                *ret_last ? "\n" : "");
    buf_fini(&lines);
    return code;
}

static int ledger_export_all(struct ledger_export *x)
{
    int code = CLI_EXIT_OK;
    for (bool last = false; code == CLI_EXIT_OK && !last;) {
        struct cloister_problem problem;
        struct cloister_result *result;
        const struct cloister_ledger_page *page;
        if (cloister_get_ledger(x->cli->cluster, x->next, LIMIT_LIST_ROWS, &result, &page,
                                &problem) != CLOISTER_OK)
            return cli_fail_problem(&problem);
        code = ledger_export_page(x, page, &last);
        cloister_result_free(result);
    }
    return code;
}

/* A device or a pipe is written to; renaming a file to its name would put the file in its place. */
static int ledger_export_special(struct ledger_export *x, const char *path)
{
    x->name = path;
    x->out = fopen(path, "we");
    if (!x->out)
        return cli_fail(CLI_EXIT_FAILED, "%s: %s", path, strerror(errno));
    int code = ledger_export_all(x);
    if (fclose(x->out) != 0 && code == CLI_EXIT_OK)
        code = cli_fail(CLI_EXIT_FAILED, "%s: %s", path, strerror(errno));
    return code;
}

/* Beside the file until it is whole, so that a broken export is never taken for one. */
static int ledger_export_file(struct ledger_export *x, const char *path)
{
    struct buf part;
    buf_init(&part);
    buf_printf(&part, "%s.XXXXXX", path);
    int fd = part.failed ? -1 : mkstemp((char *)part.data);
    x->name = path;
    x->out = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!x->out) {
        int code = cli_fail(CLI_EXIT_FAILED, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        buf_fini(&part);
        return code;
    }
    int code = ledger_export_all(x);
    mode_t mask = umask(0);
    umask(mask);
    bool ok = code == CLI_EXIT_OK && fflush(x->out) == 0 && fsync(fd) == 0 &&
              fchmod(fd, 0666 & ~mask) == 0;
    if (fclose(x->out) != 0 || (ok && rename(buf_str(&part), path) < 0))
        ok = false;
    if (!ok) {
        if (code == CLI_EXIT_OK)
            code = cli_fail(CLI_EXIT_FAILED, "%s: %s", path, strerror(errno));
        unlink(buf_str(&part));
    }
    buf_fini(&part);
    return code;
}

int command_ledger_export(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)operands;
    (void)n_operands;
    const struct ledger_export_values *v = values;
    struct ledger_export x = {
        .cli = cli, .out = stdout, .name = "standard output", .next = v->from};
    int code = cli_connect(cli);
    if (code != CLI_EXIT_OK)
        return code;
    bool to_stdout = !v->output || strcmp(v->output, "-") == 0;
    struct stat st;
    bool special = !to_stdout && stat(v->output, &st) == 0 && !S_ISREG(st.st_mode);
    code = to_stdout ? ledger_export_all(&x)
           : special ? ledger_export_special(&x, v->output)
                     : ledger_export_file(&x, v->output);
    if (code == CLI_EXIT_OK && to_stdout)
        return cli_finish_output();
    if (code == CLI_EXIT_OK && cli->globals.json)
        return output_print(json_pack("{s:o, s:o}", "file", output_string(v->output), "records",
                                      output_count(x.next - v->from)),
                            true);
    if (code == CLI_EXIT_OK)
        printf("%s: %" PRIu64 " records; check it anywhere with: cloister ledger verify %s\n",
               v->output, x.next - v->from, v->output);
    return code == CLI_EXIT_OK ? cli_finish_output() : code;
}

/* ---- verify ---- */

/* 64 hex digits, or the first such line of a file. */
static int ledger_key(const char *text, uint8_t ret_key[ED25519_PUBLIC_BYTES])
{
    if (hex_decode(text, ret_key, ED25519_PUBLIC_BYTES))
        return CLI_EXIT_OK;
    FILE *f = fopen(text, "re");
    if (!f)
        return cli_fail(CLI_EXIT_USAGE, "--key: \"%s\" is neither 64 hex digits nor a file: %s",
                        text, strerror(errno));
    char line[256] = "";
    bool good = fgets(line, sizeof line, f) != NULL;
    fclose(f);
    line[strcspn(line, " \t\r\n")] = 0;
    if (!good || !hex_decode(line, ret_key, ED25519_PUBLIC_BYTES))
        return cli_fail(CLI_EXIT_USAGE, "--key: the first line of %s is not 64 hex digits", text);
    return CLI_EXIT_OK;
}

/* A signed note as it is, or the one on the last line of an older export. */
static int ledger_kept(const char *path, char ret_note[LEDGER_KEPT_BYTES])
{
    FILE *f = fopen(path, "re");
    if (!f)
        return cli_fail(CLI_EXIT_USAGE, "--against: %s: %s", path, strerror(errno));
    char *line = NULL;
    size_t capacity = 0, used = 0;
    ssize_t size;
    bool is_export = false, fits = true;
    ret_note[0] = '\0';
    while ((size = getline(&line, &capacity, f)) > 0) {
        is_export |= used == 0 && line[0] == '{';
        if (is_export) /* only the last line counts */
            used = 0;
        fits = used + (size_t)size < LEDGER_KEPT_BYTES;
        if (!fits && !is_export)
            break;
        if (fits)
            memcpy(ret_note + used, line, (size_t)size + 1);
        used += (size_t)size;
    }
    bool failed = ferror(f) != 0;
    free(line);
    fclose(f);
    if (failed || !fits || used == 0)
        return cli_fail(CLI_EXIT_USAGE, "--against: %s is neither a signed note nor an export",
                        path);
    if (!is_export)
        return CLI_EXIT_OK;
    json_t *last = json_loads(ret_note, 0, NULL);
    const char *note = json_string_value(json_object_get(last, "checkpoint"));
    size_t note_size = note ? strlen(note) : 0;
    bool good = note_size > 0 && note_size < LEDGER_KEPT_BYTES;
    if (good)
        memcpy(ret_note, note, note_size + 1);
    json_decref(last);
    return good ? CLI_EXIT_OK
                : cli_fail(CLI_EXIT_USAGE, "--against: the last line of %s is no checkpoint", path);
}

/* What `all` has more than `part`, which is its beginning. */
static json_t *ledger_more_json(const struct ledger_totals *part, const struct ledger_totals *all)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",                    //
                     "records", output_count(all->records - part->records),                   //
                     "reserves", output_count(all->reserves - part->reserves),                //
                     "settles", output_count(all->settles - part->settles),                   //
                     "voids", output_count(all->voids - part->voids),                         //
                     "expires", output_count(all->expires - part->expires),                   //
                     "prompt_tokens", output_count(all->prompt_tokens - part->prompt_tokens), //
                     "completion_billable",
                     output_count(all->completion_billable - part->completion_billable), //
                     "completion_computed",
                     output_count(all->completion_computed - part->completion_computed), //
                     "meters", output_count(all->meters - part->meters),                 //
                     "energy_mj", output_count(all->energy_mj - part->energy_mj));
}

static int ledger_verify_json(const char *path, const struct ledger_verify_report *r,
                              const char *error)
{
    const struct ledger_totals *t = &r->verified;
    return output_print(
        json_pack("{s:o, s:b, s:o?, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
                  "s:o, s:o, s:b, s:o, s:o, s:o}",
                  "file", output_string(path),                                       //
                  "verified", error == NULL,                                         //
                  "error", error ? output_string(error) : NULL,                      //
                  "records", output_count(r->read.records),                          //
                  "signed_records", output_count(t->records),                        //
                  "against_records", output_count(r->against_records),               //
                  "reserves", output_count(t->reserves),                             //
                  "settles", output_count(t->settles),                               //
                  "voids", output_count(t->voids),                                   //
                  "expires", output_count(t->expires),                               //
                  "open_reservations", output_count(t->open_reservations),           //
                  "prompt_tokens", output_count(t->prompt_tokens),                   //
                  "completion_billable", output_count(t->completion_billable),       //
                  "completion_computed", output_count(t->completion_computed),       //
                  "unsigned", ledger_more_json(t, &r->read),                         //
                  "root", output_hex(r->root, sizeof r->root),                       //
                  "origin", output_string(r->origin),                                //
                  "key_was_given", r->key_was_given,                                 //
                  "bad_line", r->bad_line ? output_count(r->bad_line) : json_null(), //
                  "meters", output_count(t->meters),                                 //
                  "energy_mj", output_count(t->energy_mj)),
        true);
}

static void ledger_tokens_text(struct buf *out, uint64_t prompt_tokens, uint64_t billable,
                               uint64_t computed)
{
    char texts[3][UNITS_TEXT_BYTES];
    units_count_format(prompt_tokens, texts[0]);
    units_count_format(billable, texts[1]);
    units_count_format(computed, texts[2]);
    buf_printf(out, "%s prompt tokens and %s answer tokens billed, %s answer tokens computed\n",
               texts[0], texts[1], texts[2]);
}

static void ledger_energy_text(struct buf *out, uint64_t meters, uint64_t energy_mj)
{
    if (meters > 0)
        buf_printf(out, "%.6f kWh between the first and the last of %" PRIu64 " energy readings\n",
                   (double)energy_mj / 3.6e9, meters);
}

static int ledger_verify_text(const struct ledger_verify_report *r)
{
    const struct ledger_totals *t = &r->verified, *all = &r->read;
    struct buf out;
    char root[SHA256_HEX_BYTES];
    buf_init(&out);
    hex_encode(r->root, sizeof r->root, root);
    buf_append_str(&out, "verified: ");
    utf8_append_safe(&out, r->origin, strlen(r->origin), false);
    buf_printf(&out,
               "\n%" PRIu64 " records, all under the signed checkpoint\n"
               "%" PRIu64 " reservations: %" PRIu64 " settled, %" PRIu64 " void, %" PRIu64
               " expired, %" PRIu64 " open\n",
               t->records, t->reserves, t->settles, t->voids, t->expires, t->open_reservations);
    ledger_tokens_text(&out, t->prompt_tokens, t->completion_billable, t->completion_computed);
    ledger_energy_text(&out, t->meters, t->energy_mj);
    buf_printf(&out, "root %s\n", root);
    if (r->against_records > 0)
        buf_printf(&out,
                   "its first %" PRIu64 " records are those of the checkpoint that was kept\n",
                   r->against_records);
    if (all->records > t->records) {
        buf_printf(&out,
                   "NOT verified: %" PRIu64 " more records behind the checkpoint, which anybody "
                   "could have added; not in the numbers above\n"
                   "they say: %" PRIu64 " reservations, %" PRIu64 " settled, %" PRIu64
                   " void, %" PRIu64 " expired\nthey say: ",
                   all->records - t->records, all->reserves - t->reserves,
                   all->settles - t->settles, all->voids - t->voids, all->expires - t->expires);
        ledger_tokens_text(&out, all->prompt_tokens - t->prompt_tokens,
                           all->completion_billable - t->completion_billable,
                           all->completion_computed - t->completion_computed);
        ledger_energy_text(&out, all->meters - t->meters, all->energy_mj - t->energy_mj);
    }
    if (!r->key_was_given)
        buf_append_str(&out, "the signature was checked with the key in the file itself; give the "
                             "one you trust with --key\n");
    return output_print_text(&out);
}

int command_ledger_verify(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)n_operands;
    const struct ledger_verify_values *v = values;
    struct errbuf eb = {0};
    struct ledger_verify_report report = {0};
    struct ledger_verify_options options = {.origin = v->origin};
    uint8_t key[ED25519_PUBLIC_BYTES];
    char against[LEDGER_KEPT_BYTES];
    if (v->against) {
        int code = ledger_kept(v->against, against);
        if (code != CLI_EXIT_OK)
            return code;
        options.against = against;
    }
    if (v->key) {
        int code = ledger_key(v->key, key);
        if (code != CLI_EXIT_OK)
            return code;
        options.public_key = key;
    }
    bool from_stdin = strcmp(operands[0], "-") == 0;
    const char *name = from_stdin ? "standard input" : operands[0];
    FILE *in = from_stdin ? stdin : fopen(operands[0], "rbe");
    if (!in)
        return cli_fail(CLI_EXIT_USAGE, "%s: %s", name, strerror(errno));
    enum err err = ledger_verify_jsonl(in, &options, &report, &eb);
    if (!from_stdin)
        fclose(in);
    bool bad = err == ERR_CORRUPT || err == ERR_INVALID || err == ERR_TOO_LARGE ||
               err == ERR_UNSUPPORTED || err == ERR_REFUSED;
    if (err != ERR_OK && !bad)
        return cli_fail(CLI_EXIT_FAILED, "%s: %s", name, eb.text);
    if (cli->globals.json) {
        int code = ledger_verify_json(name, &report, bad ? eb.text : NULL);
        return bad ? CLI_EXIT_NOT_VERIFIED : code;
    }
    if (bad)
        return cli_fail(CLI_EXIT_NOT_VERIFIED, "%s does NOT verify: %s", name, eb.text);
    return ledger_verify_text(&report);
}
