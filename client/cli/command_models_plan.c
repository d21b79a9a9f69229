/* cloister models plan: how a model would be cut for several workers. */
#include "client/cli/cli.h"
#include "client/cli/command_values.h"
#include "client/cli/output.h"
#include "client/cli/table.h"
#include "client/cli/text.h"

#include "common/crypto.h"
#include "common/shard_cut.h"
#include "common/units.h"

#define PLAN(field) offsetof(struct models_plan_values, field)

static const struct flag models_plan_flags[] = {
    {.name = "shards",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = PLAN(shards),
     .min = 1,
     .max = SHARD_RANKS_MAX,
     .help = "So many shards, each with a part of every layer (as many as --split says, or 1)."},
    {.name = "stages",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = PLAN(stages),
     .min = 1,
     .max = SHARD_RANKS_MAX,
     .help = "Cut by layers into so many stages first, and each of these into the shards."},
    {.name = "split",
     .type = FLAG_TEXT,
     .argument = "A,B,...",
     .offset = PLAN(split),
     .help = "In what proportion, one number or size each, stage by stage: 3,1 or 80GiB,24GiB "
             "(even)."},
    {0}};
const struct flag_set models_plan_sets[] = {{.flags = models_plan_flags}, {0}};

static json_t *pair(const uint32_t of[2])
{
    return json_pack("[i, i]", (int)of[0], (int)of[1]);
}

static uint64_t total_bytes(const struct cloister_shard *s)
{
    return s->weights_bytes + s->kv_bytes + s->scratch_bytes + s->exchange_bytes;
}

/* Null: the worker does not say it. */
static json_t *known_bytes(const struct cloister_shard *s, uint64_t bytes)
{
    return s->scratch_bytes > 0 ? output_count(bytes) : json_null();
}

static json_t *plan_rank(const struct cloister_shard *s)
{
    return json_pack("{s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", //
                     "rank", (int)s->rank,                                           //
                     "stage", (int)s->stage,                                         //
                     "layers", pair(s->layers),                                      //
                     "heads", pair(s->heads),                                        //
                     "kv_heads", pair(s->kv_heads),                                  //
                     "ffn_columns", pair(s->ffn_columns),                            //
                     "vocabulary", pair(s->vocabulary),                              //
                     "weights_bytes", output_count(s->weights_bytes),                //
                     "kv_bytes", output_count(s->kv_bytes),                          //
                     "scratch_bytes", known_bytes(s, s->scratch_bytes),              //
                     "exchange_bytes", known_bytes(s, s->exchange_bytes),            //
                     "total_bytes", known_bytes(s, total_bytes(s)));
}

static json_t *plan_document(const struct cloister_plan *p)
{
    json_t *ranks = json_array();
    for (size_t i = 0; i < p->n_ranks; i++)
        json_array_append_new(ranks, plan_rank(&p->ranks[i]));
    return json_pack("{s:o, s:i, s:i, s:o, s:o}", "model", output_string(p->model.name), "stages",
                     (int)p->stages, "shards", (int)p->shards, "digest",
                     output_hex(p->digest, sizeof p->digest), "ranks", ranks);
}

/* "3", or "2-3" where layers differ. */
static void table_span(struct table *t, const uint32_t of[2])
{
    if (of[0] == of[1])
        table_printf(t, "%u", of[0]);
    else
        table_printf(t, "%u-%u", of[0], of[1]);
}

static void table_run(struct table *t, const uint32_t of[2])
{
    if (of[0] == of[1])
        table_text(t, "");
    else
        table_printf(t, "%u-%u", of[0], of[1] - 1);
}

static void table_known(struct table *t, const struct cloister_shard *s, uint64_t bytes)
{
    if (s->scratch_bytes > 0)
        table_size(t, bytes);
    else
        table_text(t, "?");
}

static void plan_table(const struct cloister_plan *p, struct buf *out)
{
    static const char *const heads[] = {">RANK",    ">LAYERS",     ">HEADS",   ">KV",
                                        ">FFN",     ">VOCABULARY", ">WEIGHTS", ">KV POOL",
                                        ">SCRATCH", ">EXCHANGE",   ">TOTAL",   NULL};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < p->n_ranks; i++) {
        const struct cloister_shard *s = &p->ranks[i];
        table_count(&t, s->rank);
        table_run(&t, s->layers);
        table_span(&t, s->heads);
        table_span(&t, s->kv_heads);
        table_span(&t, s->ffn_columns);
        table_run(&t, s->vocabulary);
        table_size(&t, s->weights_bytes);
        table_size(&t, s->kv_bytes);
        table_known(&t, s, s->scratch_bytes);
        table_known(&t, s, s->exchange_bytes);
        table_known(&t, s, total_bytes(s));
    }
    table_print(&t, text_terminal_columns(0), "", out);
    table_fini(&t);
}

/* Shards are as many as the split says where nobody says it. */
static int plan_flags(const struct models_plan_values *v, uint32_t *ret_shards,
                      uint64_t weights[SHARD_RANKS_MAX], size_t *ret_n_weights)
{
    const size_t stages = v->stages == 0 ? 1 : (size_t)v->stages;
    size_t n = 0;
    if (v->split && !units_shares_parse(v->split, SHARD_RANKS_MAX, weights, &n))
        return cli_fail(CLI_EXIT_USAGE,
                        "--split: '%s' is no list of at most %u numbers or sizes "
                        "with commas",
                        v->split, SHARD_RANKS_MAX);
    if (v->shards == 0 && n % stages != 0)
        return cli_fail(CLI_EXIT_USAGE, "--split: %zu parts for %zu stages", n, stages);
    *ret_shards = (uint32_t)(v->shards > 0 ? v->shards : n > 0 ? n / stages : 1);
    *ret_n_weights = n;
    return CLI_EXIT_OK;
}

int command_models_plan(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)n_operands;
    const struct models_plan_values *v = values;
    struct cloister_problem problem;
    struct cloister_result *result;
    const struct cloister_plan *plan;
    uint64_t weights[SHARD_RANKS_MAX];
    uint32_t shards = 1;
    size_t n_weights = 0;
    int code = plan_flags(v, &shards, weights, &n_weights);
    if (code == CLI_EXIT_OK)
        code = cli_connect(cli);
    if (code != CLI_EXIT_OK)
        return code;
    if (cloister_plan_model(cli->cluster, operands[0], shards, (uint32_t)v->stages, weights,
                            n_weights, &result, &plan, &problem) != CLOISTER_OK)
        return cli_fail_problem(&problem);
    if (cli->globals.json) {
        code = output_print(plan_document(plan), true);
    } else {
        struct buf text;
        char digest[2 * sizeof plan->digest + 1];
        hex_encode(plan->digest, sizeof plan->digest, digest);
        buf_init(&text);
        if (plan->stages > 1)
            buf_printf(&text, "%u stages of ", plan->stages);
        buf_printf(&text, "%u shard%s, plan %.16s\n", plan->shards, plan->shards == 1 ? "" : "s",
                   digest);
        plan_table(plan, &text);
        code = output_print_text(&text);
    }
    cloister_result_free(result);
    return code;
}
