/* cloister-engine estimate: what a model will hold, from its header alone, as placement counts. */
#include "worker/engine_tool/model_options.h"
#include "worker/engine_tool/tool.h"

#include "common/units.h"
#include "worker/kernels/backend.h"

#include <stddef.h>

static json_t *estimate_json(const struct engine_estimate *e)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "weights_bytes",
                     (json_int_t)e->weights_bytes, "kv_bytes", (json_int_t)e->kv_bytes,
                     "kv_page_bytes", (json_int_t)e->kv_page_bytes, "kv_pages",
                     (json_int_t)e->kv_pages, "scratch_bytes", (json_int_t)e->scratch_bytes,
                     "total_bytes", (json_int_t)(e->weights_bytes + e->kv_bytes + e->scratch_bytes),
                     "context_tokens", (json_int_t)e->context_tokens);
}

static void print_row(const char *what, uint64_t bytes, const char *more)
{
    char text[UNITS_TEXT_BYTES];

    units_size_format(bytes, text);
    printf("%-10s %14llu bytes  %10s%s\n", what, (unsigned long long)bytes, text, more);
}

struct estimate_flags {
    struct model_flags model;
    uint64_t slots, sequences;
};

static const struct flag flags[] = {{.name = "slots",
                                     .type = FLAG_UINT,
                                     .argument = "N",
                                     .offset = offsetof(struct estimate_flags, slots),
                                     .min = 1,
                                     .max = 65536,
                                     .help = "The KV pool holds so many whole contexts (4)."},
                                    {.name = "sequences",
                                     .type = FLAG_UINT,
                                     .argument = "N",
                                     .offset = offsetof(struct estimate_flags, sequences),
                                     .min = 1,
                                     .max = 65536,
                                     .help = "Most jobs that run at once (64)."},
                                    {0}};

static const struct flag_set sets[] = {
    {model_flags_table, offsetof(struct estimate_flags, model)}, {flags, 0}, {0}};

static int run(void *values, char **operands)
{
    const struct estimate_flags *f = values;
    struct model_options o = model_options_of(&f->model, operands[0]);
    struct engine_estimate e;
    struct errbuf eb = {{0}};

    o.engine.sequences = (uint32_t)f->sequences;
    o.model.slots = (uint32_t)f->slots;
    if (engine_estimate_file(&o.engine, &o.model, &e, &eb) != ERR_OK)
        return tool_fail_file(o.model.path, &eb);
    if (o.json)
        return tool_json_print(estimate_json(&e), true);
    char more[96];
    (void)snprintf(more, sizeof more, "  %u pages of %u tokens, contexts of %u", e.kv_pages,
                   KV_PAGE_TOKENS, e.context_tokens);
    print_row("weights", e.weights_bytes, "");
    print_row("kv", e.kv_bytes, more);
    print_row("scratch", e.scratch_bytes, "");
    print_row("total", e.weights_bytes + e.kv_bytes + e.scratch_bytes, "");
    return tool_finish_output();
}

const struct tool_command tool_estimate_command = {
    .name = "estimate",
    .operands = "FILE",
    .n_operands = 1,
    .summary = "what it will hold: weights, KV pool, the rest",
    .sets = sets,
    .values_bytes = sizeof(struct estimate_flags),
    .run = run,
};
