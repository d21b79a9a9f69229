/* cloister-engine estimate: what a model will hold, from its header alone, as placement counts;
 * cut for several devices, who holds what of it. */
#include "worker/engine_tool/model_options.h"
#include "worker/engine_tool/shard_options.h"
#include "worker/engine_tool/tool.h"

#include "common/crypto.h"
#include "common/units.h"
#include "worker/engine/runtime.h"
#include "worker/engine/runtime_shape.h"
#include "worker/kernels/backend.h"

#include <stdarg.h>
#include <stddef.h>

static json_t *estimate_json(const struct engine_estimate *e)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "weights_bytes",
                     (json_int_t)e->weights_bytes, "kv_bytes", (json_int_t)e->kv_bytes,
                     "kv_page_bytes", (json_int_t)e->kv_page_bytes, "kv_pages",
                     (json_int_t)e->kv_pages, "scratch_bytes", (json_int_t)e->scratch_bytes,
                     "total_bytes", (json_int_t)engine_estimate_total(e), "context_tokens",
                     (json_int_t)e->context_tokens);
}

static void print_row(const char *what, uint64_t bytes, const char *more)
{
    char text[UNITS_TEXT_BYTES];

    units_size_format(bytes, text);
    printf("%-10s %14llu bytes  %10s%s\n", what, (unsigned long long)bytes, text, more);
}

/* ---- cut for several ---------------------------------------------------------------------- */

/* What a rank has of a part, as it differs from layer to layer. */
struct span {
    uint32_t least, most;
};

static void span_add(struct span *s, uint32_t count, bool first)
{
    s->least = first || count < s->least ? count : s->least;
    s->most = first || count > s->most ? count : s->most;
}

struct rank_spans {
    struct span heads, kv_heads, ff;
};

static struct rank_spans rank_spans(const struct shard_rank_cut *s)
{
    struct rank_spans r = {{0, 0}, {0, 0}, {0, 0}};

    for (uint32_t i = s->layers.first; i < s->layers.end; i++) {
        bool first = i == s->layers.first;
        span_add(&r.heads, shard_run_count(s->layer[i].heads), first);
        span_add(&r.kv_heads, shard_run_count(s->layer[i].kv_heads), first);
        span_add(&r.ff, shard_run_count(s->layer[i].ff), first);
    }
    return r;
}

static json_t *run_json(struct shard_run run)
{
    return json_pack("[I, I]", (json_int_t)run.first, (json_int_t)run.end);
}

static json_t *rank_layer_json(const struct shard_layer_cut *l)
{
    return json_pack("{s:o, s:o, s:o}", "heads", run_json(l->heads), "kv_heads",
                     run_json(l->kv_heads), "ffn_columns", run_json(l->ff));
}

static json_t *rank_json(const struct runtime_shape *shape, const struct engine_estimate *e)
{
    const struct shard_rank_cut *s = shape->shard;
    json_t *layers = json_array();

    for (uint32_t i = s->layers.first; i < s->layers.end; i++)
        json_array_append_new(layers, rank_layer_json(&s->layer[i]));
    return json_pack(
        "{s:I, s:I, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "rank", (json_int_t)shape->rank,
        "stage", (json_int_t)s->stage, "layers", run_json(s->layers), "embedding_rows",
        run_json(s->embed), "head_rows", run_json(s->head), "of_layer", layers, "weights_bytes",
        (json_int_t)e->weights_bytes, "kv_bytes", (json_int_t)e->kv_bytes, "scratch_bytes",
        (json_int_t)e->scratch_bytes, "exchange_bytes", (json_int_t)e->exchange_bytes,
        "total_bytes", (json_int_t)engine_estimate_total(e));
}

static void print_cell(int width, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void print_cell(int width, const char *fmt, ...)
{
    char text[64];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    printf(" %*s", width, text);
}

/* "3", or "2-3" where layers differ. */
static void print_span(int width, struct span s)
{
    if (s.least == s.most)
        print_cell(width, "%u", s.most);
    else
        print_cell(width, "%u-%u", s.least, s.most);
}

/* "0-29"; "-" where there is none. */
static void print_run(int width, struct shard_run run)
{
    if (shard_run_count(run) == 0)
        print_cell(width, "-");
    else
        print_cell(width, "%u-%u", run.first, run.end - 1);
}

static void print_size(uint64_t bytes)
{
    char text[UNITS_TEXT_BYTES];

    units_size_format(bytes, text);
    print_cell(10, "%s", text);
}

static void print_rank_head(void)
{
    print_cell(4, "RANK");
    print_cell(7, "LAYERS");
    print_cell(7, "HEADS");
    print_cell(5, "KV");
    print_cell(11, "FFN");
    print_cell(13, "VOCABULARY");
    print_cell(10, "WEIGHTS");
    print_cell(10, "KV POOL");
    print_cell(10, "SCRATCH");
    print_cell(10, "EXCHANGE");
    print_cell(10, "TOTAL");
    printf("\n");
}

static void print_rank(const struct runtime_shape *shape, const struct engine_estimate *e)
{
    const struct shard_rank_cut *s = shape->shard;
    const struct rank_spans spans = rank_spans(s);

    print_cell(4, "%u", shape->rank);
    print_run(7, s->layers);
    print_span(7, spans.heads);
    print_span(5, spans.kv_heads);
    print_span(11, spans.ff);
    print_run(13, shard_run_count(s->head) > 0 ? s->head : s->embed);
    print_size(e->weights_bytes);
    print_size(e->kv_bytes);
    print_size(e->scratch_bytes);
    print_size(e->exchange_bytes);
    print_size(engine_estimate_total(e));
    printf("\n");
}

/* The plan and every rank's bytes, for people or as JSON. */
static enum err ranks_print(struct runtime_shape *shape, const struct engine_config *config,
                            const struct gguf *g, json_t *ranks, struct errbuf *eb)
{
    uint64_t most = 0, sum = 0;
    char text[UNITS_TEXT_BYTES];

    if (ranks == NULL)
        print_rank_head();
    for (uint32_t r = 0; r < shape->plan->cut->n_ranks; r++) {
        enum err e = runtime_shape_turn(shape, r, eb);
        if (e != ERR_OK)
            return e;
        const struct engine_estimate estimate = runtime_shape_estimate(shape, config, g);
        const uint64_t total = engine_estimate_total(&estimate);
        most = total > most ? total : most;
        sum += total;
        if (ranks == NULL)
            print_rank(shape, &estimate);
        else
            json_array_append_new(ranks, rank_json(shape, &estimate));
    }
    if (ranks == NULL) {
        units_size_format(most, text);
        printf("largest %s, ", text);
        units_size_format(sum, text);
        printf("all %s; %u pages of %u tokens, contexts of %u\n", text, shape->n_pages,
               KV_PAGE_TOKENS, shape->context_tokens);
    }
    return ERR_OK;
}

static void print_plan_head(const struct shard_plan *plan, const char *digest)
{
    if (plan->cut->n_stages > 1)
        printf("%u stages of ", plan->cut->n_stages);
    printf("%u shard%s, plan %.16s\n", plan->cut->n_shards, plan->cut->n_shards == 1 ? "" : "s",
           digest);
}

static enum err shards_print(const struct model_options *o, struct errbuf *eb)
{
    struct engine_config config;
    struct runtime_shape shape = {.plan = NULL};
    struct gguf *g = NULL;
    char digest[SHA256_HEX_BYTES];
    json_t *ranks = o->json ? json_array() : NULL;
    enum err e = runtime_config_complete(&o->engine, &config, eb);

    if (e == ERR_OK)
        e = gguf_open_file(&g, o->model.path, false, eb);
    if (e == ERR_OK)
        e = runtime_shape_read(&shape, &config, &o->model, g, eb);
    if (e != ERR_OK)
        goto out;
    hex_encode(shape.plan->cut->digest, sizeof shape.plan->cut->digest, digest);
    if (ranks == NULL)
        print_plan_head(shape.plan, digest);
    e = ranks_print(&shape, &config, g, ranks, eb);
    if (e == ERR_OK && ranks != NULL) {
        json_t *root = json_pack("{s:I, s:I, s:s, s:I, s:I, s:O}", "stages",
                                 (json_int_t)shape.plan->cut->n_stages, "shards",
                                 (json_int_t)shape.plan->cut->n_shards, "digest", digest,
                                 "kv_pages", (json_int_t)shape.n_pages, "context_tokens",
                                 (json_int_t)shape.context_tokens, "ranks", ranks);
        if (tool_json_print(root, true) != TOOL_EXIT_OK)
            e = err_set(eb, ERR_IO, "the plan could not be printed");
    }
out:
    json_decref(ranks);
    runtime_shape_fini(&shape);
    gguf_close(g);
    return e;
}

/* ---- the command ---------------------------------------------------------------------------- */

struct estimate_flags {
    struct model_flags model;
    struct shard_flags shard;
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

static const struct flag_set sets[] = {{model_flags_table, offsetof(struct estimate_flags, model)},
                                       {flags, 0},
                                       {shard_flags_table, offsetof(struct estimate_flags, shard)},
                                       {0}};

static int shards_run(const struct model_options *o)
{
    struct errbuf eb = {{0}};

    if (shards_print(o, &eb) != ERR_OK)
        return tool_fail_file(o->model.path, &eb);
    return tool_finish_output();
}

static int run(void *values, char **operands)
{
    const struct estimate_flags *f = values;
    struct model_options o = model_options_of(&f->model, operands[0]);
    struct engine_estimate e;
    struct errbuf eb = {{0}};

    o.engine.sequences = (uint32_t)f->sequences;
    o.model.slots = (uint32_t)f->slots;
    if (shard_options_of(&f->shard, &o.model, &eb) != ERR_OK)
        return tool_usage("%s", eb.text);
    if (o.model.shard.shards > 0)
        return shards_run(&o);
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
    print_row("total", engine_estimate_total(&e), "");
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
