/* cloister-engine estimate: what a model will hold, from its header alone, as placement counts. */
#include "worker/engine_tool/model_options.h"
#include "worker/engine_tool/tool.h"

#include "common/units.h"
#include "worker/kernels/backend.h"

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

int tool_estimate(int argc, char **argv)
{
    static const struct option long_options[] = {
        MODEL_OPTION_ROWS,
        {"sequences", required_argument, NULL, MODEL_OPTION_END},
        {0},
    };
    struct model_options o = {0};
    struct engine_estimate e;
    struct errbuf eb = {{0}};
    int id, result = TOOL_EXIT_OK;

    opterr = 0;
    while (result == TOOL_EXIT_OK &&
           (id = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
        if (id == '?' || id == ':')
            result = tool_usage_option(argc, argv, id);
        else if (id != MODEL_OPTION_END)
            result = model_options_take(&o, argv[0], id, optarg);
        else if (!tool_parse_u32(optarg, 1, 65536, &o.engine.sequences))
            result = tool_usage("estimate: --sequences %s: a whole number from 1", optarg);
    }
    if (result != TOOL_EXIT_OK)
        return result;
    if (optind + 1 != argc)
        return tool_usage("estimate: one FILE is needed");
    o.model.path = argv[optind];
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
