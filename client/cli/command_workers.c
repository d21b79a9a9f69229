/* cloister workers, cloister models: what there is, what is loaded, what is free. */
#include "client/cli/cli.h"
#include "client/cli/output.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "common/gang_number.h"

#include <stdio.h>
#include <string.h>

/* ---- workers ---- */

static json_t *workers_gang(const struct cloister_worker_model *m)
{
    return m->ranks == 0 ? json_null() : json_sprintf(GANG_NUMBER, GANG_NUMBER_ARGS(m->gang));
}

static json_t *workers_model(const struct cloister_worker_model *m)
{
    return json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:i, s:i, s:o, s:i, s:i, s:i, s:i, s:o, "
                     "s:i, s:i, s:o}",
                     "name", output_string(m->name),                       //
                     "state", m->state,                                    //
                     "error", output_string(m->error),                     //
                     "weights_bytes", output_count(m->weights_bytes),      //
                     "kv_bytes", output_count(m->kv_bytes),                //
                     "scratch_bytes", output_count(m->scratch_bytes),      //
                     "load_ms", output_count(m->load_ms),                  //
                     "running", (int)m->running,                           //
                     "waiting", (int)m->waiting,                           //
                     "queued_tokens", output_count(m->queued_tokens),      //
                     "prefill_tokens_per_s", (int)m->prefill_tokens_per_s, //
                     "decode_tokens_per_s", (int)m->decode_tokens_per_s,   //
                     "kv_pages_free", (int)m->kv_pages_free,               //
                     "kv_pages", (int)m->kv_pages,                         //
                     "gang", workers_gang(m),                              //
                     "rank", (int)m->rank,                                 //
                     "ranks", (int)m->ranks,                               //
                     "exchange_bytes", output_count(m->exchange_bytes));
}

/* Numbers that the device does not tell are null, not 0. */
static json_t *workers_known(const struct cloister_gpu *g, uint32_t bit, uint64_t number)
{
    return (g->known & bit) != 0 ? output_count(number) : json_null();
}

static json_t *workers_gpu(const struct cloister_gpu *g)
{
    if (g->uuid[0] == '\0')
        return json_null();
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",           //
                     "uuid", output_string(g->uuid),                                           //
                     "pci", output_string(g->pci),                                             //
                     "driver", output_string(g->driver),                                       //
                     "utilization_percent",                                                    //
                     workers_known(g, CLOISTER_GPU_KNOWN_UTILIZATION, g->utilization_percent), //
                     "power_mw", workers_known(g, CLOISTER_GPU_KNOWN_POWER, g->power_mw),      //
                     "energy_mj", workers_known(g, CLOISTER_GPU_KNOWN_ENERGY, g->energy_mj),   //
                     "temperature_c",                                                          //
                     workers_known(g, CLOISTER_GPU_KNOWN_TEMPERATURE, g->temperature_c),       //
                     "ecc_uncorrected",                                                        //
                     workers_known(g, CLOISTER_GPU_KNOWN_ECC, g->ecc_uncorrected),             //
                     "xid", output_count(g->xid),                                              //
                     "stranger_processes",                                                     //
                     workers_known(g, CLOISTER_GPU_KNOWN_PROCESSES, g->stranger_processes),    //
                     "stranger_process_bytes",                                                 //
                     workers_known(g, CLOISTER_GPU_KNOWN_PROCESSES, g->stranger_process_bytes),
                     "trouble", output_string(g->trouble));
}

static json_t *workers_bandwidth(uint64_t read_bytes_per_s)
{
    return read_bytes_per_s == 0 ? json_null() : output_count(read_bytes_per_s);
}

static json_t *workers_one(const struct cloister_worker *w)
{
    json_t *models = json_array();
    for (size_t i = 0; i < w->n_models; i++)
        json_array_append_new(models, workers_model(&w->models[i]));
    return json_pack(
        "{s:o, s:s, s:o, s:o, s:o, s:i, s:o, s:{s:o, s:o, s:o, s:o}, s:o, s:o, s:o, s:i, s:o, s:o, "
        "s:o, s:o}",
        "name", output_string(w->name),                                               //
        "state", w->state,                                                            //
        "device", output_string(w->device),                                           //
        "isa", output_string(w->isa),                                                 //
        "build", output_string(w->build),                                             //
        "threads", (int)w->threads,                                                   //
        "read_bytes_per_s", workers_bandwidth(w->read_bytes_per_s),                   //
        "memory",                                                                     //
        "total_bytes", output_count(w->memory.total_bytes),                           //
        "free_bytes", output_count(w->memory.free_bytes),                             //
        "budget_bytes", output_count(w->memory.budget_bytes),                         //
        "used_bytes", output_count(w->memory.used_bytes),                             //
        "claimed_bytes", output_count(w->claimed_bytes),                              //
        "stranger_bytes", output_count(w->stranger_bytes),                            //
        "models", models,                                                             //
        "leases", (int)w->leases,                                                     //
        "seen_ms", output_count(w->seen_ms),                                          //
        "tokens", output_count(w->tokens),                                            //
        "key_fingerprint", output_hex(w->key_fingerprint, sizeof w->key_fingerprint), //
        "gpu", workers_gpu(&w->gpu));
}

/* "smollm2 (ready, 2 running, 91 tokens/s), big (loading)" */
static void workers_models_text(const struct cloister_worker *w, struct buf *out)
{
    for (size_t i = 0; i < w->n_models; i++) {
        const struct cloister_worker_model *m = &w->models[i];
        buf_printf(out, "%s%s (%s", i ? ", " : "", m->name, m->state);
        if (m->ranks > 0)
            buf_printf(out, ", rank %u of %u of gang " GANG_NUMBER, m->rank, m->ranks,
                       GANG_NUMBER_ARGS(m->gang));
        if (m->running + m->waiting > 0)
            buf_printf(out, ", %u running, %u waiting", m->running, m->waiting);
        if (m->decode_tokens_per_s > 0)
            buf_printf(out, ", %u tokens/s", m->decode_tokens_per_s);
        buf_append_str(out, m->error[0] ? ": " : "");
        buf_append_str(out, m->error);
        buf_append_str(out, ")");
    }
}

static void workers_table(const struct cloister_worker *workers, size_t n, struct buf *out)
{
    static const char *const heads[] = {"WORKER",  "STATE",    "DEVICE",     ">MEMORY",
                                        ">FREE",   ">CLAIMED", ">STRANGERS", ">JOBS",
                                        ">TOKENS", ">HEARD",   "MODELS",     NULL};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < n; i++) {
        const struct cloister_worker *w = &workers[i];
        struct buf models;
        buf_init(&models);
        workers_models_text(w, &models);
        table_text(&t, w->name);
        table_text(&t, w->state);
        char bandwidth[48] = "";
        if (w->read_bytes_per_s > 0)
            (void)snprintf(bandwidth, sizeof bandwidth, ", %.1f GB/s",
                           (double)w->read_bytes_per_s / 1e9);
        table_printf(&t, "%s (%s, %u threads%s)", w->device, w->isa, w->threads, bandwidth);
        table_size(&t, w->memory.budget_bytes ? w->memory.budget_bytes : w->memory.total_bytes);
        table_size(&t, w->memory.free_bytes);
        table_size(&t, w->claimed_bytes);
        table_size(&t, w->stranger_bytes);
        table_count(&t, w->leases);
        table_count(&t, w->tokens);
        table_duration(&t, w->seen_ms);
        table_text(&t, buf_str(&models));
        buf_fini(&models);
    }
    table_print(&t, text_terminal_columns(0),
                "no workers: start cloister-worker with this coordinator's address", out);
    table_fini(&t);
}

static void known_printf(struct table *t, const struct cloister_gpu *g, uint32_t bit,
                         const char *fmt, double number)
{
    char text[32] = "";
    if ((g->known & bit) != 0)
        (void)snprintf(text, sizeof text, fmt, number);
    table_text(t, text);
}

/* Those that have one, in a table of their own. */
static void gpus_table(const struct cloister_worker *workers, size_t n, struct buf *out)
{
    static const char *const heads[] = {"WORKER", "GPU",        ">BUSY",   ">POWER", ">ENERGY",
                                        ">TEMP",  ">STRANGERS", "TROUBLE", NULL};
    struct table t;
    size_t n_gpus = 0;
    table_init(&t, heads);
    for (size_t i = 0; i < n; i++) {
        const struct cloister_gpu *g = &workers[i].gpu;
        if (g->uuid[0] == '\0')
            continue;
        n_gpus++;
        table_text(&t, workers[i].name);
        table_printf(&t, "%s at %s", g->uuid, g->pci);
        known_printf(&t, g, CLOISTER_GPU_KNOWN_UTILIZATION, "%.0f %%", g->utilization_percent);
        known_printf(&t, g, CLOISTER_GPU_KNOWN_POWER, "%.1f W", (double)g->power_mw / 1e3);
        known_printf(&t, g, CLOISTER_GPU_KNOWN_ENERGY, "%.3f kWh", (double)g->energy_mj / 3.6e9);
        known_printf(&t, g, CLOISTER_GPU_KNOWN_TEMPERATURE, "%.0f C", g->temperature_c);
        known_printf(&t, g, CLOISTER_GPU_KNOWN_PROCESSES, "%.0f processes", g->stranger_processes);
        table_text(&t, g->trouble);
    }
    if (n_gpus > 0) {
        buf_append_str(out, "\n");
        table_print(&t, text_terminal_columns(0), "", out);
    }
    table_fini(&t);
}

int command_workers(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)values;
    (void)operands;
    (void)n_operands;
    struct cloister_problem problem;
    struct cloister_result *result;
    const struct cloister_worker *workers;
    size_t n;
    int code = cli_connect(cli);
    if (code != CLI_EXIT_OK)
        return code;
    if (cloister_list_workers(cli->cluster, &result, &workers, &n, &problem) != CLOISTER_OK)
        return cli_fail_problem(&problem);
    if (cli->globals.json) {
        json_t *list = json_array();
        for (size_t i = 0; i < n; i++)
            json_array_append_new(list, workers_one(&workers[i]));
        code = output_print(json_pack("{s:o}", "workers", list), true);
    } else {
        struct buf text;
        buf_init(&text);
        workers_table(workers, n, &text);
        gpus_table(workers, n, &text);
        code = output_print_text(&text);
    }
    cloister_result_free(result);
    return code;
}

/* ---- models ---- */

static json_t *models_one(const struct cloister_model *m)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:o, s:o, s:o, s:i, s:i, s:i, "
                     "s:i, s:i}",
                     "name", output_string(m->name),                                            //
                     "architecture", output_string(m->architecture),                            //
                     "quantization", output_string(m->quantization),                            //
                     "chat_template", output_string(m->chat_template),                          //
                     "weights_digest", output_hex(m->weights_digest, sizeof m->weights_digest), //
                     "tokenizer_digest",                                                        //
                     output_hex(m->tokenizer_digest, sizeof m->tokenizer_digest),               //
                     "parameters", output_count(m->parameters),                                 //
                     "file_bytes", output_count(m->file_bytes),                                 //
                     "context_tokens", (int)m->context_tokens,                                  //
                     "weights_bytes", output_count(m->weights_bytes),                           //
                     "kv_bytes", output_count(m->kv_bytes),                                     //
                     "scratch_bytes", output_count(m->scratch_bytes),                           //
                     "workers", (int)m->workers,                                                //
                     "loading", (int)m->loading,                                                //
                     "ready", (int)m->ready,                                                    //
                     "running", (int)m->running,                                                //
                     "waiting", (int)m->waiting);
}

static void models_table(const struct cloister_model *models, size_t n, struct buf *out)
{
    static const char *const heads[] = {
        "MODEL",  ">PARAMETERS", "QUANT",    ">FILE",        ">NEEDS", ">CONTEXT", ">WORKERS",
        ">READY", ">RUNNING",    ">WAITING", "ARCHITECTURE", "CHAT",   NULL};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < n; i++) {
        const struct cloister_model *m = &models[i];
        table_text(&t, m->name);
        table_printf(&t, "%.1f M", (double)m->parameters / 1e6);
        table_text(&t, m->quantization);
        table_size(&t, m->file_bytes);
        table_size(&t, m->weights_bytes + m->kv_bytes + m->scratch_bytes);
        table_count(&t, m->context_tokens);
        table_count(&t, m->workers);
        table_count(&t, m->ready);
        table_count(&t, m->running);
        table_count(&t, m->waiting);
        table_text(&t, m->architecture);
        table_text(&t, m->chat_template[0] ? m->chat_template : "none: --raw only");
    }
    table_print(&t, text_terminal_columns(0), "no models: no worker has one", out);
    table_fini(&t);
}

int command_models(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)values;
    (void)operands;
    (void)n_operands;
    struct cloister_problem problem;
    struct cloister_result *result;
    const struct cloister_model *models;
    size_t n;
    int code = cli_connect(cli);
    if (code != CLI_EXIT_OK)
        return code;
    if (cloister_list_models(cli->cluster, &result, &models, &n, &problem) != CLOISTER_OK)
        return cli_fail_problem(&problem);
    if (cli->globals.json) {
        json_t *list = json_array();
        for (size_t i = 0; i < n; i++)
            json_array_append_new(list, models_one(&models[i]));
        code = output_print(json_pack("{s:o}", "models", list), true);
    } else {
        struct buf text;
        buf_init(&text);
        models_table(models, n, &text);
        code = output_print_text(&text);
    }
    cloister_result_free(result);
    return code;
}
