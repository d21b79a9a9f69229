/*
 * Operations that are held back (backend_step.may_hold), as a list of words: which operation, how
 * many words it has, its arguments. The words say all that its launches follow from beside the
 * step's own numbers (cuda_graph.c), so that equal words are equal launches. Places in the step's
 * arrays are written as how far from their beginning, since the arrays lie elsewhere each time.
 *
 * What takes other arrays than the step's is not held back: what was before it goes first.
 *
 * A stretch is queued when it ends, or, where others queue something between stretches, all of them
 * are put off until the step's last operation is known, and queued one by one then.
 */
#include "worker/kernels/cuda/cuda_internal.h"

#include "common/check.h"

#include <stdlib.h>
#include <string.h>

enum held_op {
    HELD_EMBED,
    HELD_NORM,
    HELD_NORM_ADD,
    HELD_SOFTCAP,
    HELD_PICK,
    HELD_QUANTIZE,
    HELD_MATMUL,
    HELD_JOIN,
    HELD_ROPE_KV,
    HELD_ATTENTION,
    HELD_GATE,
    HELD_OPS,
};

static const char *const held_names[HELD_OPS] = {
    "embed",    "norm",    "norm_add", "softcap",   "pick", "quantize",
    "products", "joining", "rope_kv",  "attention", "gate",
};

#define HELD_WORDS_FIRST 1024u
#define HELD_CUTS_FIRST  256u
/* Words of an operation: its head, and arguments. */
#define HELD_HEAD       2u
#define HELD_JOB_WORDS  5u
#define HELD_JOBS_MAX   8u
#define HELD_JOIN_WORDS (8u + 3u * SUM_GROUPS_MAX)

struct cuda_cut {
    uint32_t end; /* in the words */
    uint32_t n_ops, last;
};

/* ---- words ----------------------------------------------------------------------------------- */

static uint64_t word_of(const void *pointer)
{
    return (uintptr_t)pointer;
}

static uint64_t word_of_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void *pointer_of(uint64_t word)
{
    return (void *)(uintptr_t)word;
}

static float float_of(uint64_t word)
{
    const uint32_t bits = (uint32_t)word;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t count_of(uint64_t word)
{
    return (uint32_t)word;
}

static bool held_grow(struct cuda_held *held, uint32_t n)
{
    uint32_t max = held->max == 0 ? HELD_WORDS_FIRST : held->max;

    while (max < n)
        max *= 2;
    if (max == held->max)
        return true;
    uint64_t *grown = realloc(held->words, max * sizeof *grown);
    if (grown == NULL)
        return false;
    held->words = grown;
    held->max = max;
    return true;
}

static bool cuts_grow(struct cuda_held *held)
{
    const uint32_t max = held->cuts_max == 0 ? HELD_CUTS_FIRST : 2 * held->cuts_max;
    struct cuda_cut *grown = realloc(held->cuts, max * sizeof *grown);
    if (grown == NULL)
        return false;
    held->cuts = grown;
    held->cuts_max = max;
    return true;
}

bool cuda_held_reserve(struct cuda_backend *cuda)
{
    return held_grow(&cuda->held, HELD_WORDS_FIRST) &&
           (cuda->held.cuts_max > 0 || cuts_grow(&cuda->held));
}

void cuda_held_fini(struct cuda_backend *cuda)
{
    free(cuda->held.words);
    free(cuda->held.cuts);
    cuda->held = (struct cuda_held){0};
}

/* What is put off cannot go before what others queue between. */
static _Noreturn void fail_keeping(const struct cuda_backend *cuda)
{
    cuda_fail(cudaErrorMemoryAllocation, NULL, "keeping track of a step of %u rows on the host",
              cuda->step.host.rows.n_rows);
}

/* False where the operation is to be run now; what is held has gone before it then. */
static bool hold(struct cuda_backend *cuda, enum held_op op, const uint64_t *words, uint32_t n)
{
    struct cuda_held *held = &cuda->held;

    if (!cuda->step.is_held)
        return false;
    if (!held_grow(held, held->n + HELD_HEAD + n)) {
        if (held->is_put_off)
            fail_keeping(cuda);
        cuda_held_flush(cuda);
        return false;
    }
    held->words[held->n] = op;
    held->words[held->n + 1] = n;
    memcpy(held->words + held->n + HELD_HEAD, words, n * sizeof *words);
    held->n += HELD_HEAD + n;
    held->last = op;
    held->n_ops++;
    return true;
}

/* An operation that is not held back. */
static void hold_not(struct cuda_backend *cuda)
{
    cuda_held_flush(cuda);
}

#define N_WORDS(words) ((uint32_t)(sizeof(words) / sizeof(words)[0]))

/* ---- holding --------------------------------------------------------------------------------- */

void cuda_hold_embed(struct backend *b, const struct weight *w, const int32_t *ids, uint32_t n,
                     float scale, float *out)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    const int32_t *of_step = cuda->step.host.ids;
    const bool is_ours = cuda->step.is_held && of_step != NULL && ids >= of_step &&
                         ids + n <= of_step + cuda->step.host.rows.n_rows;
    const uint64_t words[] = {word_of(w), is_ours ? (uint64_t)(ids - of_step) : 0, n,
                              word_of_float(scale), word_of(out)};
    if (is_ours && hold(cuda, HELD_EMBED, words, N_WORDS(words)))
        return;
    hold_not(cuda);
    cuda_embed(b, w, ids, n, scale, out);
}

void cuda_hold_norm(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
                    float eps, struct act *out)
{
    const uint64_t words[] = {word_of(x), n, cols, word_of(gain), word_of_float(eps), word_of(out)};
    if (!hold((struct cuda_backend *)b, HELD_NORM, words, N_WORDS(words)))
        cuda_norm(b, x, n, cols, gain, eps, out);
}

void cuda_hold_norm_add(struct backend *b, const float *x, uint32_t n, uint32_t cols,
                        const float *gain, float eps, float *out)
{
    const uint64_t words[] = {word_of(x), n, cols, word_of(gain), word_of_float(eps), word_of(out)};
    if (!hold((struct cuda_backend *)b, HELD_NORM_ADD, words, N_WORDS(words)))
        cuda_norm_add(b, x, n, cols, gain, eps, out);
}

void cuda_hold_softcap(struct backend *b, float *x, size_t count, float cap)
{
    const uint64_t words[] = {word_of(x), count, word_of_float(cap)};
    if (!hold((struct cuda_backend *)b, HELD_SOFTCAP, words, N_WORDS(words)))
        cuda_softcap(b, x, count, cap);
}

void cuda_hold_pick(struct backend *b, const float *x, uint32_t n, uint32_t cols,
                    const struct pick *picks, float *ret_picked)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    const uint64_t words[] = {word_of(x), n, cols, word_of(ret_picked)};
    if (picks == cuda->step.host.picks && n <= cuda->step.host.n_results &&
        hold(cuda, HELD_PICK, words, N_WORDS(words)))
        return;
    hold_not(cuda);
    cuda_pick(b, x, n, cols, picks, ret_picked);
}

void cuda_hold_quantize(struct backend *b, const float *x, uint32_t n, uint32_t cols,
                        struct act *out)
{
    const uint64_t words[] = {word_of(x), n, cols, word_of(out)};
    if (!hold((struct cuda_backend *)b, HELD_QUANTIZE, words, N_WORDS(words)))
        cuda_quantize(b, x, n, cols, out);
}

void cuda_hold_place(struct backend *b, const float *rows, const uint32_t *at, uint32_t n,
                     uint32_t cols, float *out)
{
    hold_not((struct cuda_backend *)b); /* places are never the step's */
    cuda_place(b, rows, at, n, cols, out);
}

void cuda_hold_matmul(struct backend *b, const struct act *x, uint32_t n,
                      const struct matmul_job *jobs, uint32_t n_jobs)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    uint64_t words[3 + HELD_JOBS_MAX * HELD_JOB_WORDS] = {word_of(x), n, n_jobs};
    const uint32_t n_words = 3 + n_jobs * HELD_JOB_WORDS;

    for (uint32_t i = 0; i < n_jobs && n_jobs <= HELD_JOBS_MAX; i++) {
        uint64_t *w = words + 3 + i * HELD_JOB_WORDS;
        w[0] = word_of(jobs[i].weight);
        w[1] = word_of(jobs[i].out);
        w[2] = jobs[i].out_stride | (uint64_t)(jobs[i].accumulate ? 1 : 0) << 32;
        w[3] = jobs[i].node_stride;
        w[4] = word_of(jobs[i].bias);
    }
    if (n_jobs <= HELD_JOBS_MAX && hold(cuda, HELD_MATMUL, words, n_words))
        return;
    hold_not(cuda);
    cuda_matmul(b, x, n, jobs, n_jobs);
}

void cuda_hold_join(struct backend *b, uint32_t n, const struct join_job *job)
{
    uint64_t words[HELD_JOIN_WORDS] = {n,
                                       job->n_parts,
                                       job->n_joins,
                                       job->cols,
                                       word_of(job->out),
                                       job->out_stride,
                                       word_of(job->bias),
                                       word_of(job->onto)};
    uint32_t at = 8;

    CHECK(job->n_parts <= SUM_GROUPS_MAX && job->n_joins < SUM_GROUPS_MAX);
    for (uint32_t i = 0; i < job->n_parts; i++) {
        words[at++] = word_of(job->part[i].at);
        words[at++] = job->part[i].stride;
    }
    for (uint32_t i = 0; i < job->n_joins; i++)
        words[at++] = job->joins[i].into | (uint64_t)job->joins[i].from << 32;
    if (!hold((struct cuda_backend *)b, HELD_JOIN, words, at))
        cuda_join(b, n, job);
}

/* Where in the step's rows these begin. */
static uint64_t first_of(const struct cuda_backend *cuda, const struct step_rows *rows)
{
    const struct step_rows *all = &cuda->step.host.rows;
    if (!cuda->step.is_held)
        return 0;
    CHECK(rows->position >= all->position &&
          rows->position + rows->n_rows <= all->position + all->n_rows &&
          rows->sequence - all->sequence == rows->position - all->position &&
          rows->page_table == all->page_table);
    return (uint64_t)(rows->position - all->position);
}

void cuda_hold_rope_kv(struct backend *b, const struct rope_kv_job *job)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    const uint64_t words[] = {word_of(job->kv),
                              job->layer,
                              first_of(cuda, job->rows),
                              job->rows->n_rows,
                              word_of(job->q),
                              word_of(job->k),
                              word_of(job->v),
                              word_of(job->q_norm),
                              word_of(job->k_norm),
                              word_of_float(job->norm_eps),
                              job->n_heads,
                              job->rope_dim,
                              (uint64_t)job->style,
                              word_of(job->table)};
    if (!hold(cuda, HELD_ROPE_KV, words, N_WORDS(words)))
        cuda_rope_kv(b, job);
}

void cuda_hold_attention(struct backend *b, const struct attention_job *job)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    const uint64_t words[] = {word_of(job->kv),
                              job->layer,
                              first_of(cuda, job->rows),
                              job->rows->n_rows,
                              word_of(job->q),
                              job->n_heads,
                              job->group,
                              job->skip,
                              word_of_float(job->scale),
                              job->window,
                              word_of_float(job->softcap),
                              word_of(job->out)};
    if (!hold(cuda, HELD_ATTENTION, words, N_WORDS(words)))
        cuda_attention(b, job);
}

void cuda_hold_gate(struct backend *b, const float *gate, const float *up, uint32_t n,
                    uint32_t cols, enum activation activation, struct act *out)
{
    const uint64_t words[] = {word_of(gate), word_of(up),          n,
                              cols,          (uint64_t)activation, word_of(out)};
    if (!hold((struct cuda_backend *)b, HELD_GATE, words, N_WORDS(words)))
        cuda_gate(b, gate, up, n, cols, activation, out);
}

/* ---- running --------------------------------------------------------------------------------- */

static void run_matmul(struct backend *b, const uint64_t *words)
{
    struct matmul_job jobs[HELD_JOBS_MAX];
    const uint32_t n_jobs = count_of(words[2]);

    for (uint32_t i = 0; i < n_jobs; i++) {
        const uint64_t *w = words + 3 + i * HELD_JOB_WORDS;
        jobs[i] = (struct matmul_job){.weight = pointer_of(w[0]),
                                      .out = pointer_of(w[1]),
                                      .out_stride = count_of(w[2]),
                                      .accumulate = w[2] >> 32 != 0,
                                      .node_stride = w[3],
                                      .bias = pointer_of(w[4])};
    }
    cuda_matmul(b, pointer_of(words[0]), count_of(words[1]), jobs, n_jobs);
}

static void run_join(struct backend *b, const uint64_t *words)
{
    struct join_part part[SUM_GROUPS_MAX];
    struct sum_join joins[SUM_GROUPS_MAX];
    const struct join_job job = {.part = part,
                                 .n_parts = count_of(words[1]),
                                 .joins = joins,
                                 .n_joins = count_of(words[2]),
                                 .cols = count_of(words[3]),
                                 .out = pointer_of(words[4]),
                                 .out_stride = words[5],
                                 .bias = pointer_of(words[6]),
                                 .onto = pointer_of(words[7])};
    const uint64_t *w = words + 8;

    for (uint32_t i = 0; i < job.n_parts; i++, w += 2)
        part[i] = (struct join_part){pointer_of(w[0]), w[1]};
    for (uint32_t i = 0; i < job.n_joins; i++, w++)
        joins[i] = (struct sum_join){.into = (uint16_t)*w, .from = (uint16_t)(*w >> 32)};
    cuda_join(b, count_of(words[0]), &job);
}

static struct step_rows rows_of(const struct cuda_backend *cuda, uint64_t first, uint64_t count)
{
    struct step_rows rows = cuda->step.host.rows;
    rows.n_rows = count_of(count);
    rows.position += first;
    rows.sequence += first;
    return rows;
}

static void run_rope_kv(struct cuda_backend *cuda, const uint64_t *w)
{
    const struct step_rows rows = rows_of(cuda, w[2], w[3]);
    const struct rope_kv_job job = {.kv = pointer_of(w[0]),
                                    .layer = count_of(w[1]),
                                    .rows = &rows,
                                    .q = pointer_of(w[4]),
                                    .k = pointer_of(w[5]),
                                    .v = pointer_of(w[6]),
                                    .q_norm = pointer_of(w[7]),
                                    .k_norm = pointer_of(w[8]),
                                    .norm_eps = float_of(w[9]),
                                    .n_heads = count_of(w[10]),
                                    .rope_dim = count_of(w[11]),
                                    .style = (enum rope_style)w[12],
                                    .table = pointer_of(w[13])};
    cuda_rope_kv(&cuda->host.base, &job);
}

static void run_attention(struct cuda_backend *cuda, const uint64_t *w)
{
    const struct step_rows rows = rows_of(cuda, w[2], w[3]);
    const struct attention_job job = {.kv = pointer_of(w[0]),
                                      .layer = count_of(w[1]),
                                      .rows = &rows,
                                      .q = pointer_of(w[4]),
                                      .n_heads = count_of(w[5]),
                                      .group = count_of(w[6]),
                                      .skip = count_of(w[7]),
                                      .scale = float_of(w[8]),
                                      .window = count_of(w[9]),
                                      .softcap = float_of(w[10]),
                                      .out = pointer_of(w[11])};
    cuda_attention(&cuda->host.base, &job);
}

static void run_one(struct cuda_backend *cuda, enum held_op op, const uint64_t *w)
{
    struct backend *b = &cuda->host.base;

    switch (op) {
    case HELD_EMBED:
        cuda_embed(b, pointer_of(w[0]), cuda->step.host.ids + w[1], count_of(w[2]), float_of(w[3]),
                   pointer_of(w[4]));
        return;
    case HELD_NORM:
        cuda_norm(b, pointer_of(w[0]), count_of(w[1]), count_of(w[2]), pointer_of(w[3]),
                  float_of(w[4]), pointer_of(w[5]));
        return;
    case HELD_NORM_ADD:
        cuda_norm_add(b, pointer_of(w[0]), count_of(w[1]), count_of(w[2]), pointer_of(w[3]),
                      float_of(w[4]), pointer_of(w[5]));
        return;
    case HELD_SOFTCAP:
        cuda_softcap(b, pointer_of(w[0]), w[1], float_of(w[2]));
        return;
    case HELD_PICK:
        cuda_pick(b, pointer_of(w[0]), count_of(w[1]), count_of(w[2]), cuda->step.host.picks,
                  pointer_of(w[3]));
        return;
    case HELD_QUANTIZE:
        cuda_quantize(b, pointer_of(w[0]), count_of(w[1]), count_of(w[2]), pointer_of(w[3]));
        return;
    case HELD_MATMUL:
        run_matmul(b, w);
        return;
    case HELD_JOIN:
        run_join(b, w);
        return;
    case HELD_ROPE_KV:
        run_rope_kv(cuda, w);
        return;
    case HELD_ATTENTION:
        run_attention(cuda, w);
        return;
    case HELD_GATE:
        cuda_gate(b, pointer_of(w[0]), pointer_of(w[1]), count_of(w[2]), count_of(w[3]),
                  (enum activation)w[4], pointer_of(w[5]));
        return;
    case HELD_OPS:
        break;
    }
    CHECK(false);
}

void cuda_held_run(struct cuda_backend *cuda, const struct cuda_stretch *s)
{
    for (uint32_t at = 0; at < s->n; at += HELD_HEAD + count_of(s->words[at + 1]))
        run_one(cuda, (enum held_op)s->words[at], s->words + at + HELD_HEAD);
}

void cuda_held_say(struct cuda_backend *cuda, const struct cuda_stretch *s)
{
    cuda->said = (struct cuda_said){.first = held_names[s->words[0]],
                                    .last = held_names[s->last],
                                    .n_ops = s->n_ops,
                                    .n_rows = cuda->step.host.rows.n_rows};
}

/* ---- stretches ------------------------------------------------------------------------------- */

/* The i-th that was put off; behind those, what has not ended. */
static struct cuda_stretch stretch_at(const struct cuda_held *held, uint32_t i)
{
    const uint32_t begin = i == 0 ? 0 : held->cuts[i - 1].end;
    if (i == held->n_cuts)
        return (struct cuda_stretch){held->words + begin, held->n - begin, held->n_ops, held->last};
    const struct cuda_cut *cut = &held->cuts[i];
    return (struct cuda_stretch){held->words + begin, cut->end - begin, cut->n_ops, cut->last};
}

void cuda_queue_next(struct backend *b)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    struct cuda_held *held = &cuda->held;
    const uint32_t i = held->next++;

    CHECK(i <= held->n_cuts);
    cuda_enter(cuda);
    const struct cuda_stretch s = stretch_at(held, i);
    if (s.n > 0)
        cuda_stretch_queue(cuda, &s);
    if (i < held->n_cuts)
        return;
    held->n = held->n_ops = held->n_cuts = held->next = 0;
    held->is_put_off = false;
}

void cuda_submit(struct backend *b)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    struct cuda_held *held = &cuda->held;

    if (!held->is_put_off) {
        cuda_held_flush(cuda);
        return;
    }
    if (held->n_cuts == held->cuts_max && !cuts_grow(held))
        fail_keeping(cuda);
    held->cuts[held->n_cuts++] =
        (struct cuda_cut){.end = held->n, .n_ops = held->n_ops, .last = held->last};
    held->n_ops = 0;
}

void cuda_held_flush(struct cuda_backend *cuda)
{
    if (cuda->held.n == 0)
        return;
    CHECK(!cuda->held.is_put_off); /* others queue something before it */
    cuda_queue_next(&cuda->host.base);
}

void cuda_held_end(struct cuda_backend *cuda)
{
    while (cuda->held.is_put_off) /* of a step that has failed */
        cuda_queue_next(&cuda->host.base);
    cuda_held_flush(cuda);
}

bool cuda_put_off(struct backend *b)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;

    CHECK(cuda->step.is_open && !cuda->held.is_put_off);
    if (!cuda->step.is_held)
        return false;
    cuda_held_flush(cuda);
    cuda->held.is_put_off = true;
    return true;
}

bool cuda_is_known(struct backend *b)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    bool is_known = true;

    for (uint32_t i = cuda->held.next; i <= cuda->held.n_cuts && is_known; i++) {
        const struct cuda_stretch s = stretch_at(&cuda->held, i);
        is_known = s.n == 0 || cuda_stretch_is_known(cuda, &s);
    }
    return is_known;
}
