/*
 * cloister-engine bench: tokens a second of one model on this machine. A prompt, an answer, an
 * answer behind a long text, answers of many jobs at once; each several times, the median printed.
 */
#include "worker/engine_tool/model_options.h"
#include "worker/engine_tool/shard_options.h"
#include "worker/engine_tool/stepping.h"
#include "worker/engine_tool/tool.h"

#include "common/clock.h"
#include "common/limits.h"
#include "worker/kernels/philox.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define STREAMS_MAX       1024u
#define RUNS_MAX          99u
#define LISTED_MAX        16u
#define STREAM_PROMPT_IDS 32u /* prompts of many streams: what is measured is their answers */

struct bench_flags {
    struct model_flags model;
    struct shard_flags shard;
    uint64_t prompt, generate, depth, runs, slots;
    bool depth_given;
    const char *streams;
};

struct bench_options {
    struct model_options common;
    uint32_t prompt, generate, depth, runs;
    uint32_t streams[LISTED_MAX];
    size_t n_streams;
};

/* What one measurement runs: `streams` jobs of `n_prompt` ids that draw `n_draw` tokens each. */
struct measurement {
    const char *name;
    uint32_t streams, n_prompt, n_draw;
    bool of_prompt;         /* the time until all prompts are computed, not that of the answers */
    double rates[RUNS_MAX]; /* tokens/s, of all streams together */
};

#define FLAG(field) offsetof(struct bench_flags, field)

static const struct flag flags[] = {
    {.name = "prompt",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = FLAG(prompt),
     .min = 0,
     .max = LIMIT_CONTEXT_TOKENS / 2,
     .help = "Tokens of the prompt that is measured (512; 0: none is)."},
    {.name = "generate",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = FLAG(generate),
     .min = 1,
     .max = 65536,
     .help = "Tokens of each answer (64)."},
    {.name = "depth",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = FLAG(depth),
     .given = FLAG(depth_given),
     .min = 0,
     .max = LIMIT_CONTEXT_TOKENS / 2,
     .help =
         "An answer behind a text of N tokens (4096, where the model has room for it; 0: none)."},
    {.name = "streams",
     .type = FLAG_TEXT,
     .argument = "LIST",
     .offset = FLAG(streams),
     .help = "The answers of so many jobs at once, all together (1,8,32,64)."},
    {.name = "runs",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = FLAG(runs),
     .min = 1,
     .max = RUNS_MAX,
     .help = "Of so many runs the median, after one that does not count (3)."},
    {.name = "slots",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = FLAG(slots),
     .min = 1,
     .max = 65536,
     .help = "The KV pool holds so many whole contexts (as many as the jobs need)."},
    {0}};

static const struct flag_set sets[] = {
    {flags, 0}, {model_flags_table, FLAG(model)}, {shard_flags_table, FLAG(shard)}, {0}};

static void defaults(void *values)
{
    struct bench_flags *f = values;

    f->prompt = 512;
    f->generate = 64;
    f->depth = 4096;
    f->runs = 3;
    f->streams = "1,8,32,64";
}

static int take_streams(struct bench_options *o, const char *text)
{
    char list[256], *rest = list;

    if (strlen(text) >= sizeof list)
        return tool_usage("bench: --streams: too long");
    strcpy(list, text);
    for (const char *item; (item = strsep(&rest, ",")) != NULL; o->n_streams++) {
        if (o->n_streams == LISTED_MAX)
            return tool_usage("bench: --streams %s: at most %u numbers", text, LISTED_MAX);
        if (!tool_parse_u32(item, 1, STREAMS_MAX, &o->streams[o->n_streams]))
            return tool_usage("bench: --streams %s: whole numbers from 1 to %u, with commas", text,
                              STREAMS_MAX);
    }
    return TOOL_EXIT_OK;
}

static int read_options(struct bench_options *ret_options, const struct bench_flags *f,
                        const char *path)
{
    *ret_options = (struct bench_options){
        .common = model_options_of(&f->model, path),
        .prompt = (uint32_t)f->prompt,
        .generate = (uint32_t)f->generate,
        .depth = (uint32_t)f->depth,
        .runs = (uint32_t)f->runs,
    };
    struct errbuf eb = {{0}};

    if (shard_options_of(&f->shard, &ret_options->common.model, &eb) != ERR_OK)
        return tool_usage("bench: %s", eb.text);
    ret_options->common.model.slots = (uint32_t)f->slots;
    return take_streams(ret_options, f->streams);
}

/* ---- measuring -------------------------------------------------------------------------- */

static enum err add_streams(struct stepping *s, const struct measurement *m,
                            struct batch_seq **ret_seqs, struct errbuf *eb)
{
    uint32_t n_vocab = s->runtime->hparams.vocab_size;
    int32_t *ids = calloc(m->n_prompt, sizeof *ids);
    enum err err = ERR_OK;

    if (ids == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for %u ids", m->n_prompt);
    for (uint32_t i = 0; i < m->streams && err == ERR_OK; i++) {
        for (uint32_t k = 0; k < m->n_prompt; k++)
            ids[k] = (int32_t)(philox_token_word(i, 0, k) % n_vocab);
        struct batch_job job = {
            .ids = ids,
            .n_ids = m->n_prompt,
            .n_limit = m->n_prompt + m->n_draw,
            .logits_from = m->n_prompt - 1,
        };
        err = batch_add(s->batch, &job, &ret_seqs[i], eb);
    }
    free(ids);
    return err;
}

/* Prompts first, then answers: while any prompt is left, the steps count as its. */
static enum err measure_once(struct stepping *s, const struct measurement *m, double *ret_rate,
                             struct errbuf *eb)
{
    struct batch_seq *seqs[STREAMS_MAX];
    uint32_t drawn = 0, all = m->streams * m->n_draw;
    uint64_t began_ns, prompts_ns = 0, tokens = 0;
    struct batch_plan plan;
    enum err err = add_streams(s, m, seqs, eb);

    if (err != ERR_OK)
        return err;
    began_ns = clock_mono_ns();
    while (drawn < all) {
        err = stepping_step(s, &plan, eb);
        if (err != ERR_OK)
            return err;
        bool answers = plan.n_prompt == 0;
        for (uint32_t i = 0; i < plan.n_logits; i++) {
            drawn += plan.draw[i];
            tokens += plan.draw[i] && answers;
            if (plan.draw[i] && batch_full(plan.logits_seq[i]))
                batch_remove(s->batch, plan.logits_seq[i]);
        }
        /* The last id of a prompt counts as a decode; a prompt of one id is all decode. */
        if (!answers || (m->n_prompt == 1 && m->of_prompt))
            prompts_ns = clock_mono_ns() - began_ns;
    }
    uint64_t all_ns = clock_mono_ns() - began_ns;
    if (m->of_prompt)
        *ret_rate = (double)m->streams * m->n_prompt * 1e9 / (double)all_ns;
    else
        *ret_rate = (double)tokens * 1e9 / (double)(all_ns - prompts_ns);
    return ERR_OK;
}

static int compare_doubles(const void *a, const void *z)
{
    double x = *(const double *)a, y = *(const double *)z;

    return (x > y) - (x < y);
}

static enum err measure(struct stepping *s, struct measurement *m, uint32_t runs, struct errbuf *eb)
{
    double warm_up;
    enum err err = measure_once(s, m, &warm_up, eb);

    for (uint32_t i = 0; i < runs && err == ERR_OK; i++)
        err = measure_once(s, m, &m->rates[i], eb);
    qsort(m->rates, runs, sizeof m->rates[0], compare_doubles);
    return err;
}

/* The depth that nobody asked for is left out where the model has no room for it. What is wrong
 * with the file is said by loading. */
static void fit_depth(struct bench_options *o, bool given)
{
    struct engine_estimate estimate;

    if (!given &&
        (engine_estimate_file(&o->common.engine, &o->common.model, &estimate, NULL) != ERR_OK ||
         estimate.context_tokens < o->depth + o->generate))
        o->depth = 0;
}

/* ---- what is measured ------------------------------------------------------------------- */

/* An answer of one stream is always measured: a list that has 1 asks for no other. */
static size_t measurements_of(const struct bench_options *o, struct measurement *ret)
{
    size_t n = 0;

    if (o->prompt > 0)
        ret[n++] = (struct measurement){
            .name = "prompt", .streams = 1, .n_prompt = o->prompt, .n_draw = 1, .of_prompt = true};
    ret[n++] = (struct measurement){
        .name = "generate", .streams = 1, .n_prompt = 1, .n_draw = o->generate};
    if (o->depth > 0)
        ret[n++] = (struct measurement){
            .name = "generate", .streams = 1, .n_prompt = o->depth, .n_draw = o->generate};
    for (size_t i = 0; i < o->n_streams; i++)
        if (o->streams[i] > 1)
            ret[n++] = (struct measurement){.name = "streams",
                                            .streams = o->streams[i],
                                            .n_prompt = STREAM_PROMPT_IDS,
                                            .n_draw = o->generate};
    return n;
}

static uint32_t pages_of(uint32_t tokens)
{
    return (tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
}

/* A context for the longest job, which is returned, and a pool for the greatest crowd. */
static uint32_t size_model(struct bench_options *o, const struct measurement *m, size_t n)
{
    uint32_t context = 2, pages = 1, sequences = 1;

    for (size_t i = 0; i < n; i++) {
        uint32_t tokens = m[i].n_prompt + m[i].n_draw;
        context = tokens > context ? tokens : context;
        sequences = m[i].streams > sequences ? m[i].streams : sequences;
        pages = m[i].streams * pages_of(tokens) > pages ? m[i].streams * pages_of(tokens) : pages;
    }
    o->common.engine.sequences = sequences;
    if (o->common.model.context_tokens == 0)
        o->common.model.context_tokens = context;
    if (o->common.model.slots == 0)
        o->common.model.slots = (pages + pages_of(o->common.model.context_tokens) - 1) /
                                pages_of(o->common.model.context_tokens);
    return context;
}

static void print_text(const struct measurement *m, uint32_t runs)
{
    char what[96];

    if (m->of_prompt)
        (void)snprintf(what, sizeof what, "prompt of %u", m->n_prompt);
    else if (m->streams > 1)
        (void)snprintf(what, sizeof what, "%u tokens in %u streams", m->n_draw, m->streams);
    else
        (void)snprintf(what, sizeof what, "%u tokens behind %u", m->n_draw, m->n_prompt);
    printf("%-28s %9.1f tokens/s  (%.1f to %.1f in %u runs)\n", what, m->rates[runs / 2],
           m->rates[0], m->rates[runs - 1], runs);
}

static json_t *measurement_json(const struct measurement *m, uint32_t runs)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:f, s:f, s:f}", "what", m->name, "streams",
                     (json_int_t)m->streams, "prompt", (json_int_t)m->n_prompt, "generate",
                     (json_int_t)m->n_draw, "tokens_per_s", m->rates[runs / 2], "lowest",
                     m->rates[0], "highest", m->rates[runs - 1]);
}

static int run(void *values, char **operands)
{
    struct measurement m[LISTED_MAX + 3];
    struct bench_options o;
    struct stepping s = {0};
    struct errbuf eb = {{0}};
    json_t *list;
    int result = read_options(&o, values, operands[0]);

    if (result != TOOL_EXIT_OK)
        return result;
    fit_depth(&o, ((const struct bench_flags *)values)->depth_given);
    size_t n = measurements_of(&o, m);
    uint32_t context = size_model(&o, m, n);
    uint64_t began_ms = clock_mono_ms();
    if (stepping_open(&s, &o.common.engine, &o.common.model, &eb) != ERR_OK)
        return tool_fail_file(o.common.model.path, &eb);
    if (s.runtime->context_tokens < context) {
        result = tool_fail("%s: a context of %u tokens; the longest job of this bench has %u",
                           o.common.model.path, s.runtime->context_tokens, context);
        stepping_close(&s);
        return result;
    }
    uint64_t load_ms = clock_mono_ms() - began_ms;
    const char *isa = s.runtime->backend->ops->name;
    list = json_array();
    if (!o.common.json)
        printf("%s: %s, loaded in %llu ms\n", o.common.model.path, isa,
               (unsigned long long)load_ms);
    for (size_t i = 0; i < n && result == TOOL_EXIT_OK; i++) {
        if (measure(&s, &m[i], o.runs, &eb) != ERR_OK)
            result = tool_fail_file(o.common.model.path, &eb);
        else if (!o.common.json)
            print_text(&m[i], o.runs);
        else
            json_array_append_new(list, measurement_json(&m[i], o.runs));
        fflush(stdout);
    }
    stepping_close(&s);
    if (result != TOOL_EXIT_OK || !o.common.json) {
        json_decref(list);
        return result != TOOL_EXIT_OK ? result : tool_finish_output();
    }
    return tool_json_print(json_pack("{s:s, s:I, s:o}", "isa", isa, "load_ms", (json_int_t)load_ms,
                                     "measurements", list),
                           true);
}

const struct tool_command tool_bench_command = {
    .name = "bench",
    .operands = "FILE",
    .n_operands = 1,
    .summary = "tokens a second: a prompt, an answer, answers of many jobs",
    .sets = sets,
    .values_bytes = sizeof(struct bench_flags),
    .defaults = defaults,
    .run = run,
};
