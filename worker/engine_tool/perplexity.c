/*
 * cloister-engine perplexity: how well a file's model predicts a text. The text is cut into pieces
 * of --context tokens; in each the second half is scored, every token by what the model makes of
 * those before it in the piece. Where the file wants it, a piece begins with BOS in the place of
 * its first token. This is how llama.cpp's llama-perplexity counts, so that figures compare.
 */
#include "worker/engine_tool/model_options.h"
#include "worker/engine_tool/shard_options.h"
#include "worker/engine_tool/stepping.h"
#include "worker/engine_tool/tool.h"

#include "common/limits.h"
#include "worker/engine/forward.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT_DEFAULT 512u
#define TEXT_BYTES_MAX  (1u << 28)
#define LOGITS_ROWS     64u /* of one step */

struct score {
    double sum, squares; /* of -log of each scored token's probability */
    uint64_t count;
};

static enum err read_text(const char *path, struct buf *ret_text, struct errbuf *eb)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");

    if (f == NULL)
        return err_set_errno(eb, errno, "%s", path);
    enum err err = tool_read_all(f, TEXT_BYTES_MAX, ret_text, eb);
    if (f != stdin)
        (void)fclose(f);
    return err;
}

/* -log softmax(logits)[id], in double. */
static double surprise(const float *logits, uint32_t count, int32_t id)
{
    double greatest = -INFINITY, sum = 0;

    for (uint32_t i = 0; i < count; i++)
        greatest = logits[i] > greatest ? logits[i] : greatest;
    for (uint32_t i = 0; i < count; i++)
        sum += exp(logits[i] - greatest);
    return log(sum) + greatest - logits[id];
}

/* One piece of `context` ids: the tokens from its middle on are scored. */
static enum err score_piece(struct stepping *s, const int32_t *ids, uint32_t context,
                            struct score *score, struct errbuf *eb)
{
    /* The last id is only scored: nothing behind it is asked for. The draw that ends the job is
     * not used. */
    struct batch_job job = {
        .ids = ids,
        .n_ids = context - 1,
        .n_limit = context,
        .logits_from = context / 2,
    };
    struct batch_seq *seq;
    struct batch_plan plan;
    enum err err = batch_add(s->batch, &job, &seq, eb);

    if (err != ERR_OK)
        return err;
    while (!batch_full(seq)) {
        err = stepping_step(s, &plan, eb);
        if (err != ERR_OK)
            break;
        for (uint32_t i = 0; i < plan.n_logits; i++) {
            uint32_t position = plan.position[plan.n_rows - plan.n_logits + i];
            double x = surprise(forward_logits(s->runtime, i), s->runtime->hparams.vocab_size,
                                ids[position + 1]);
            score->sum += x;
            score->squares += x * x;
            score->count++;
        }
    }
    batch_remove(s->batch, seq);
    return err;
}

static enum err tokenize(const struct stepping *s, const struct buf *text, struct tokens *ids,
                         struct errbuf *eb)
{
    const struct tokenizer *t = s->runtime->tokenizer;

    if (tokenizer_adds_bos(t) && tokenizer_bos(t) >= 0 &&
        tokens_append(ids, tokenizer_bos(t)) != ERR_OK)
        return err_set(eb, ERR_NO_MEMORY, "no memory for token ids");
    return tokenizer_encode(t, text->data, text->size, TOKENIZER_SPECIAL_PLAIN, true, ids, eb);
}

static enum err score_text(struct stepping *s, const struct model_options *o, struct tokens *ids,
                           struct score *score, struct errbuf *eb)
{
    const struct tokenizer *t = s->runtime->tokenizer;
    uint32_t context = o->model.context_tokens;
    size_t pieces = ids->count / context;

    if (pieces == 0)
        return err_set(eb, ERR_INVALID, "the text has %zu tokens; one piece takes %u (--context)",
                       ids->count, context);
    for (size_t i = 0; i < pieces; i++) {
        int32_t *piece = ids->ids + i * context;
        if (tokenizer_adds_bos(t) && tokenizer_bos(t) >= 0)
            piece[0] = tokenizer_bos(t);
        enum err err = score_piece(s, piece, context, score, eb);
        if (err != ERR_OK)
            return err;
        if (!o->json)
            fprintf(stderr, "\rpiece %zu of %zu: %.4f ", i + 1, pieces,
                    exp(score->sum / (double)score->count));
    }
    if (!o->json)
        fputc('\n', stderr);
    return ERR_OK;
}

static int print_score(const struct model_options *o, const struct score *score)
{
    double mean = score->sum / (double)score->count;
    double variance = score->squares / (double)score->count - mean * mean;
    double perplexity = exp(mean);
    double error =
        score->count > 1 ? perplexity * sqrt(variance / (double)(score->count - 1)) : INFINITY;

    if (o->json)
        return tool_json_print(json_pack("{s:f, s:f, s:I, s:I}", "perplexity", perplexity, "error",
                                         error, "scored_tokens", (json_int_t)score->count,
                                         "context", (json_int_t)o->model.context_tokens),
                               true);
    printf("perplexity %.4f +/- %.4f over %llu tokens\n", perplexity, error,
           (unsigned long long)score->count);
    return tool_finish_output();
}

struct perplexity_flags {
    struct model_flags model;
    struct shard_flags shard;
};

static int run(void *values, char **operands)
{
    const struct perplexity_flags *f = values;
    struct model_options o = model_options_of(&f->model, operands[0]);
    struct stepping s = {0};
    struct score score = {0};
    struct errbuf eb = {{0}};
    struct tokens ids = {0};
    struct buf text;

    if (shard_options_of(&f->shard, &o.model, &eb) != ERR_OK)
        return tool_usage("perplexity: %s", eb.text);
    o.engine.sequences = LOGITS_ROWS;
    o.model.slots = 1;
    if (o.model.context_tokens == 0)
        o.model.context_tokens = CONTEXT_DEFAULT;
    if (o.model.context_tokens < 4)
        return tool_usage("perplexity: --context %u: at least 4", o.model.context_tokens);
    buf_init(&text);
    enum err err = read_text(operands[1], &text, &eb);
    if (err == ERR_OK)
        err = stepping_open(&s, &o.engine, &o.model, &eb);
    if (err == ERR_OK && s.runtime->context_tokens < o.model.context_tokens)
        err = err_set(&eb, ERR_INVALID, "the model's context is %u, less than --context %u",
                      s.runtime->context_tokens, o.model.context_tokens);
    if (err == ERR_OK)
        err = tokenize(&s, &text, &ids, &eb);
    if (err == ERR_OK)
        err = score_text(&s, &o, &ids, &score, &eb);
    int result = err == ERR_OK ? print_score(&o, &score) : tool_fail_file(o.model.path, &eb);
    stepping_close(&s);
    tokens_fini(&ids);
    buf_fini(&text);
    return result;
}

static const struct flag_set sets[] = {
    {model_flags_table, offsetof(struct perplexity_flags, model)},
    {shard_flags_table, offsetof(struct perplexity_flags, shard)},
    {0}};

const struct tool_command tool_perplexity_command = {
    .name = "perplexity",
    .operands = "FILE TEXT",
    .n_operands = 2,
    .summary = "of a text file (- is standard input), in pieces of --context tokens (512)",
    .sets = sets,
    .values_bytes = sizeof(struct perplexity_flags),
    .run = run,
};
