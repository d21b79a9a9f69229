/* Every architecture, on the shapes of tiny_model.h: logits as other engines have them, and the
 * same bits however they are computed. */
#include "tests/unit/engine/tiny_model.h"
#include "tests/unit/model/vectors.h"
#include "worker/engine/forward.h"
#include "worker/kernels/pool.h"

#include "common/check.h"
#include "common/crypto.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define CONTEXT 128u
#define PAGES   (CONTEXT / KV_PAGE_TOKENS)
#define IDS_MAX 128u

struct run {
    enum backend_isa isa;
    uint32_t threads, chunk;
    enum kv_type kv;
};

static struct runtime *open_runtime(const char *path, const struct run *run)
{
    const struct engine_config config = {
        .isa = run->isa, .threads = run->threads, .step_tokens = 128, .sequences = IDS_MAX};
    const struct engine_model_config model = {
        .path = path, .context_tokens = CONTEXT, .slots = 1, .kv_type = run->kv};
    struct engine_config complete;
    struct runtime *r = NULL;
    struct errbuf eb = {{0}};

    if (runtime_config_complete(&config, &complete, &eb) != ERR_OK ||
        runtime_open(&r, &complete, &model, NULL, &eb) != ERR_OK)
        fail_msg("%s: %s", path, eb.text);
    return r;
}

/* The logits behind each of the ids, `chunk` of them a step. */
static void compute(struct runtime *r, const int32_t *ids, uint32_t n_ids, uint32_t chunk,
                    float *ret_logits)
{
    /* Not in order, so that a page is found by its id alone. */
    const uint32_t pages[PAGES] = {2, 0, 3, 1};
    uint32_t positions[IDS_MAX], slots[IDS_MAX] = {0};
    size_t n_vocab = r->hparams.vocab_size;

    for (uint32_t at = 0; at < n_ids; at += chunk) {
        uint32_t n = n_ids - at < chunk ? n_ids - at : chunk;
        for (uint32_t i = 0; i < n; i++)
            positions[i] = at + i;
        const struct batch_plan plan = {.n_rows = n,
                                        .ids = ids + at,
                                        .position = positions,
                                        .slot = slots,
                                        .n_logits = n,
                                        .pages = pages,
                                        .pages_stride = PAGES};
        struct errbuf eb;
        assert_int_equal(forward_step(r, &plan, &eb), ERR_OK);
        for (uint32_t i = 0; i < n; i++)
            memcpy(ret_logits + (at + i) * n_vocab, forward_logits(r, i), n_vocab * sizeof(float));
    }
}

static void file_sha256(const char *path, char ret_hex[SHA256_HEX_BYTES])
{
    uint8_t digest[SHA256_BYTES];
    assert_int_equal(model_file_digest(path, digest, NULL), ERR_OK);
    hex_encode(digest, sizeof digest, ret_hex);
}

/* ---- other engines ----------------------------------------------------------------------- */

/* Of the range of a row. Both round keys and values to float16 and differ in the order of sums and
 * in what else they round: measured, the plain forward pass in double precision is up to 3e-4 away,
 * llama.cpp, which rounds queries too, up to 1.6e-3. */
static const struct {
    const char *source;
    double bound;
} sources[] = {{"plain", 5e-4}, {"llama.cpp", 3e-3}};

static double row_distance(const char *where, const float *got, json_t *want, size_t n)
{
    double least = INFINITY, most = -INFINITY, apart = 0;
    size_t best_got = 0, best_want = 0;

    assert_int_equal(json_array_size(want), n);
    for (size_t i = 0; i < n; i++) {
        double w = json_number_value(json_array_get(want, i));
        least = fmin(least, w);
        most = fmax(most, w);
        apart = fmax(apart, fabs((double)got[i] - w));
        best_got = got[i] > got[best_got] ? i : best_got;
        best_want = w > json_number_value(json_array_get(want, best_want)) ? i : best_want;
    }
    /* The greedy token is the same, unless two are as close as the engines are. */
    double margin = most - json_number_value(json_array_get(want, best_got));
    if (best_got != best_want && margin > 2 * apart)
        fail_msg("%s: token %zu, not %zu", where, best_got, best_want);
    return apart / (most - least);
}

static void compare_line(const struct vectors *v, enum backend_isa isa)
{
    const char *shape = json_string_value(json_object_get(v->object, "shape"));
    json_t *json_ids = json_object_get(v->object, "ids");
    json_t *positions = json_object_get(v->object, "positions");
    const struct run run = {.isa = isa, .threads = 1};
    struct tiny_model m;
    int32_t ids[IDS_MAX];
    size_t n_ids = json_array_size(json_ids), i;
    char path[64], where[96], hex[SHA256_HEX_BYTES];
    json_t *position;

    assert_true(tiny_model_shape(shape, &m) && n_ids <= CONTEXT);
    for (i = 0; i < n_ids; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(json_ids, i));
    tiny_model_write(&m, path);
    file_sha256(path, hex);
    if (strcmp(hex, json_string_value(json_object_get(v->object, "sha256"))) != 0)
        fail_msg("shape %s is another file than its vectors were made with", shape);
    struct runtime *r = open_runtime(path, &run);
    size_t n_vocab = r->hparams.vocab_size;
    float *logits = malloc(n_ids * n_vocab * sizeof *logits);
    assert_non_null(logits);
    compute(r, ids, (uint32_t)n_ids, 33, logits);
    for (size_t s = 0; s < sizeof sources / sizeof sources[0]; s++) {
        json_t *rows = json_object_get(v->object, sources[s].source);
        double apart = 0;
        if (rows == NULL)
            continue; /* llama.cpp cannot compute every shape */
        json_array_foreach(positions, i, position)
        {
            size_t at = (size_t)json_integer_value(position);
            (void)snprintf(where, sizeof where, "%s, position %zu, %s", shape, at,
                           sources[s].source);
            apart = fmax(apart, row_distance(where, logits + at * n_vocab, json_array_get(rows, i),
                                             n_vocab));
        }
        print_message("%-18s %-10s %s, apart by %.1e\n", shape, sources[s].source,
                      r->backend->ops->name, apart);
        if (apart > sources[s].bound)
            fail_msg("%s: %g of the range away from %s", shape, apart, sources[s].source);
    }
    free(logits);
    runtime_close(r);
    (void)unlink(path);
}

static void test_logits_are_those_of_other_engines(void **state)
{
    (void)state;
    struct vectors v;
    size_t lines = 0;

    vectors_open(&v, "arch_logits.jsonl");
    while (vectors_next(&v)) {
        compare_line(&v, BACKEND_ISA_SCALAR);
        compare_line(&v, BACKEND_ISA_AUTO);
        lines++;
    }
    vectors_close(&v);
    assert_int_equal(lines, tiny_model_shape_count());
}

/* ---- the same bits ----------------------------------------------------------------------- */

static void fingerprint(const char *path, const struct run *run, uint8_t ret[SHA256_BYTES])
{
    int32_t ids[100];
    struct runtime *r = open_runtime(path, run);
    size_t count = 100 * (size_t)r->hparams.vocab_size;
    float *logits = malloc(count * sizeof *logits);

    assert_non_null(logits);
    for (int32_t i = 0; i < 100; i++)
        ids[i] = (i * i * 5 + i * 3 + 1) % 256;
    compute(r, ids, 100, run->chunk, logits);
    for (size_t i = 0; i < count; i++)
        assert_true(isfinite(logits[i]));
    sha256(logits, count * sizeof *logits, ret);
    free(logits);
    runtime_close(r);
}

static void check_same(const char *name, const char *path, enum kv_type kv)
{
    static const uint32_t chunks[] = {1, 17, 64, 100};
    const struct run first_run = {.isa = BACKEND_ISA_SCALAR, .threads = 1, .chunk = 100, .kv = kv};
    uint8_t first[SHA256_BYTES], other[SHA256_BYTES];

    fingerprint(path, &first_run, first);
    for (int isa = BACKEND_ISA_SCALAR; isa <= BACKEND_ISA_AMX; isa++)
        for (uint32_t i = 0; i < 8; i++) {
            const struct run run = {.isa = (enum backend_isa)isa,
                                    .threads = 1 + i / 4 * 2,
                                    .chunk = chunks[i % 4],
                                    .kv = kv};
            /* AMX differs from AVX-512 in products of many columns alone. */
            if (!backend_isa_available(run.isa) || (isa == BACKEND_ISA_SCALAR && i > 1) ||
                (isa == BACKEND_ISA_AMX && i != 1 && i != 2 && i != 7))
                continue;
            fingerprint(path, &run, other);
            if (memcmp(first, other, sizeof first) != 0)
                fail_msg("%s, KV %d: isa %d, %u threads, chunks of %u give other bits", name,
                         (int)kv, isa, run.threads, run.chunk);
        }
}

static void test_bits_depend_on_nothing_but_the_file(void **state)
{
    (void)state;
    static const enum quant_type types[] = {QUANT_TYPE_Q8_0, QUANT_TYPE_Q4_1, QUANT_TYPE_F16};

    for (size_t i = 0; i < tiny_model_shape_count(); i++) {
        const char *name = tiny_model_shape_name(i);
        struct tiny_model m;
        char path[64];
        assert_true(tiny_model_shape(name, &m));
        m.layer_type = types[i % 3];
        m.embd_type = types[(i + 1) % 3];
        m.n_layers = m.n_layers > 8 ? 8 : m.n_layers; /* a scalar one is slow */
        tiny_model_write(&m, path);
        check_same(name, path, KV_TYPE_F16);
        if (m.head_dim % 32 == 0)
            check_same(name, path, KV_TYPE_Q8_0);
        (void)unlink(path);
    }
}

/* ---- what it takes ----------------------------------------------------------------------- */

static void test_estimates_are_what_loading_holds(void **state)
{
    (void)state;

    for (size_t i = 0; i < tiny_model_shape_count(); i++) {
        const struct run run = {.isa = BACKEND_ISA_AUTO, .threads = 1};
        const struct engine_config config = {
            .threads = 1, .step_tokens = 128, .sequences = IDS_MAX};
        struct engine_model_config model = {.context_tokens = CONTEXT, .slots = 1};
        struct engine_estimate estimate;
        struct tiny_model m;
        struct errbuf eb = {{0}};
        char path[64];
        assert_true(tiny_model_shape(tiny_model_shape_name(i), &m));
        tiny_model_write(&m, path);
        model.path = path;
        assert_int_equal(engine_estimate_file(&config, &model, &estimate, &eb), ERR_OK);
        struct runtime *r = open_runtime(path, &run);
        assert_int_equal(estimate.weights_bytes, r->weights_bytes);
        assert_int_equal(estimate.kv_bytes, r->kv_bytes);
        assert_int_equal(estimate.scratch_bytes, r->scratch_bytes);
        runtime_close(r);
        (void)unlink(path);
    }
}

/* ---- how often threads meet -------------------------------------------------------------- */

/* Operations that are shared out, at the end of each of which all threads wait for each other. */
static uint32_t n_shared;

void __real_pool_run(struct pool *pool, pool_fn *fn, void *ctx, uint32_t n_tasks);
void __real_pool_run_nodes(struct pool *pool, pool_fn *fn, void *ctx, const uint32_t *first);
void __wrap_pool_run(struct pool *pool, pool_fn *fn, void *ctx, uint32_t n_tasks);
void __wrap_pool_run_nodes(struct pool *pool, pool_fn *fn, void *ctx, const uint32_t *first);

void __wrap_pool_run(struct pool *pool, pool_fn *fn, void *ctx, uint32_t n_tasks)
{
    n_shared += n_tasks > 1; /* one task runs in place */
    __real_pool_run(pool, fn, ctx, n_tasks);
}

void __wrap_pool_run_nodes(struct pool *pool, pool_fn *fn, void *ctx, const uint32_t *first)
{
    n_shared++;
    __real_pool_run_nodes(pool, fn, ctx, first);
}

/* Of a step of so many rows behind one of 40, on two threads. */
static uint32_t shared_in_a_step(uint32_t n_layers, uint32_t rows)
{
    const struct run run = {.isa = BACKEND_ISA_AUTO, .threads = 2};
    struct tiny_model m = tiny_model_default();
    int32_t ids[IDS_MAX] = {0};
    char path[64];

    m.n_layers = n_layers;
    m.n_embd = 1024;
    m.n_heads = 8;
    m.n_kv_heads = 4;
    m.n_ff = 2048;
    tiny_model_write(&m, path);
    struct runtime *r = open_runtime(path, &run);
    float *logits = malloc((size_t)IDS_MAX * r->hparams.vocab_size * sizeof *logits);
    assert_non_null(logits);
    compute(r, ids, 40, 40, logits);
    n_shared = 0;
    compute(r, ids, rows, rows, logits);
    free(logits);
    runtime_close(r);
    (void)unlink(path);
    return n_shared;
}

/* A token: q, k and v; attention; its output; gate and up; down. What is cheap stays with the
 * thread that has it: norms, rotation and gate of one row. In a prompt these are shared out as
 * well, and the storing of what attention gives. */
static void test_threads_meet_seldom(void **state)
{
    (void)state;
    static const struct {
        uint32_t rows, a_layer, beside; /* beside the layers: embedding, last norm, head */
    } cases[] = {{1, 5, 2}, {64, 10, 4}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t two = shared_in_a_step(2, cases[i].rows);
        uint32_t five = shared_in_a_step(5, cases[i].rows);
        print_message("%u rows: %u in 2 layers, %u in 5\n", cases[i].rows, two, five);
        assert_int_equal((five - two) % 3, 0);
        assert_in_range((five - two) / 3, 1, cases[i].a_layer);
        assert_in_range(two - (five - two) / 3 * 2, 0, cases[i].beside);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_are_those_of_other_engines),
        cmocka_unit_test(test_bits_depend_on_nothing_but_the_file),
        cmocka_unit_test(test_estimates_are_what_loading_holds),
        cmocka_unit_test(test_threads_meet_seldom),
    };
    return cmocka_run_group_tests_name("arch", tests, NULL, NULL);
}
