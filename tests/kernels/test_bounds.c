/*
 * The oracle itself against double precision: every operation of ref/ computed from the same
 * inputs in double, with one table of bounds. Errors are measured against the size of what was
 * summed, so that cancellation in the data is not held against the arithmetic.
 */
#include "tests/kernels/fixture.h"
#include "tests/kernels/matrix.h"

#include "worker/kernels/half.h"
#include "worker/kernels/quant_raw_read.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum bound {
    BOUND_EMBED,
    BOUND_QUANTIZE,
    BOUND_MATMUL_QUANTIZED,
    BOUND_MATMUL_FLOAT,
    BOUND_MATMUL_END_TO_END,
    BOUND_NORM,
    BOUND_GATE,
    BOUND_ATTENTION,
    BOUND_COUNT
};

static const struct {
    const char *name;
    double max;
} bounds[BOUND_COUNT] = {
    [BOUND_EMBED] = {"embed: relative", 0x1p-23},
    [BOUND_QUANTIZE] = {"quantize: of the block's scale", 0.5001},
    [BOUND_MATMUL_QUANTIZED] = {"matmul from quantized x: of sum |w x|", 1e-6},
    [BOUND_MATMUL_FLOAT] = {"matmul of float types: of sum |w x|", 2e-6},
    [BOUND_MATMUL_END_TO_END] = {"matmul from float x: of sqrt(sum (w x)^2)", 0.05},
    [BOUND_NORM] = {"norm: relative", 1e-6},
    [BOUND_GATE] = {"gate: relative", 1e-5},
    [BOUND_ATTENTION] = {"attention: of max |v|", 2e-6},
};

static double worst[BOUND_COUNT];

static void measure(enum bound which, double error)
{
    if (!(error <= worst[which]))
        worst[which] = error;
}

static int setup(void **state)
{
    const struct backend_cpu_config config = {.isa = BACKEND_ISA_SCALAR, .threads = 1};
    struct errbuf eb = {0};
    struct backend *b;
    if (backend_cpu_open(&b, &config, &eb) != ERR_OK)
        return -1;
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct backend *b = *state;
    b->ops->close(b);
    return 0;
}

/* Element k of a row, from the file's numbers, in double. That they are read from the right bits is
 * test_dequantize.c's to show. */
static double element(enum quant_type type, const uint8_t *row, uint32_t k)
{
    float x;
    uint16_t half;
    if (type == QUANT_TYPE_F32) {
        memcpy(&x, row + (size_t)4 * k, sizeof x);
        return (double)x;
    }
    if (type == QUANT_TYPE_F16 || type == QUANT_TYPE_BF16) {
        memcpy(&half, row + (size_t)2 * k, sizeof half);
        return (double)(type == QUANT_TYPE_F16 ? half_to_float(half) : bfloat_to_float(half));
    }
    struct quant_raw raw;
    quant_raw_read(type, row, k / QUANT_BLOCK_ITEMS, &raw);
    uint32_t j = k % QUANT_BLOCK_ITEMS;
    double w =
        (double)quant_raw_d(type, &raw) * raw.scale[j / 16] * quant_raw_value(type, raw.q[j]);
    return quant_raw_has_min(type) ? w + (double)half_to_float(raw.m) * raw.min[j / 16] : w;
}

static void test_embed(void **state)
{
    struct backend *b = *state;
    struct fixture_random r = {21};
    enum { ROWS = 8, COLS = 512 };
    for (size_t t = 0; t < fixture_n_types; t++) {
        enum quant_type type = fixture_types[t];
        const struct quant_type_info *info = quant_type_info((uint32_t)type);
        uint8_t *matrix = fixture_matrix(&r, type, ROWS, COLS);
        struct weight *w;
        struct errbuf eb = {0};
        assert_int_equal(matrix_load(b, type, matrix, ROWS, COLS, NULL, &w, &eb), ERR_OK);
        for (int32_t id = 0; id < ROWS; id++) {
            float out[COLS];
            b->ops->embed(b, w, &id, 1, 1.0f, out);
            const uint8_t *row =
                matrix + (size_t)id * (COLS / info->block_items) * info->block_bytes;
            for (uint32_t k = 0; k < COLS; k++) {
                double exact = element(type, row, k);
                if (exact != 0.0)
                    measure(BOUND_EMBED, fabs((double)out[k] - exact) / fabs(exact));
            }
        }
        b->ops->weight_free(b, w);
        free(matrix);
    }
}

static void test_quantize(void **state)
{
    struct backend *b = *state;
    struct fixture_random r = {22};
    enum { COLS = 6400 };
    static float x[COLS];
    fixture_floats(&r, x, COLS);
    struct act *a = b->ops->act_new(b, 1, COLS, false);
    b->ops->quantize(b, x, 1, COLS, a);
    static int8_t q[COLS];
    float scales[COLS / 32];
    b->ops->act_read(b, a, 0, COLS, q, scales, NULL);
    for (uint32_t k = 0; k < COLS; k++)
        measure(BOUND_QUANTIZE,
                fabs((double)x[k] - q[k] * (double)scales[k / 32]) / (double)scales[k / 32]);
    b->ops->act_free(b, a);
}

static void test_matmul(void **state)
{
    struct backend *b = *state;
    struct fixture_random r = {23};
    enum { ROWS = 24, COLS = 2304, N = 3 };
    static float x[N * COLS];
    fixture_floats(&r, x, N * COLS);
    for (size_t t = 0; t < fixture_n_types; t++) {
        enum quant_type type = fixture_types[t];
        const struct quant_type_info *info = quant_type_info((uint32_t)type);
        uint8_t *matrix = fixture_matrix(&r, type, ROWS, COLS);
        struct weight *w;
        struct errbuf eb = {0};
        const struct sum_cut cut = sum_cut_whole(COLS, 8, SUM_LEAF_BLOCKS);
        assert_int_equal(matrix_load(b, type, matrix, ROWS, COLS, &cut, &w, &eb), ERR_OK);
        struct act *a = b->ops->act_new(b, N, COLS, true);
        b->ops->quantize(b, x, N, COLS, a);
        float out[N * ROWS];
        const struct matmul_job job = {.weight = w, .out = out, .out_stride = ROWS};
        b->ops->matmul(b, a, N, &job, 1);
        for (uint32_t i = 0; i < N; i++) {
            static int8_t q[COLS];
            float scales[COLS / 32];
            b->ops->act_read(b, a, i, COLS, q, scales, NULL);
            for (uint32_t row = 0; row < ROWS; row++) {
                const uint8_t *bytes =
                    matrix + (size_t)row * (COLS / info->block_items) * info->block_bytes;
                double from_q = 0.0;
                double from_x = 0.0;
                double magnitude = 0.0;
                double energy = 0.0;
                for (uint32_t k = 0; k < COLS; k++) {
                    double we = element(type, bytes, k);
                    double xe = (double)x[i * COLS + k];
                    from_q += we * q[k] * (double)scales[k / 32];
                    from_x += we * xe;
                    magnitude += fabs(we * xe);
                    energy += we * xe * we * xe;
                }
                double y = (double)out[i * ROWS + row];
                if (info->block_items == 1) {
                    measure(BOUND_MATMUL_FLOAT, fabs(y - from_x) / magnitude);
                } else {
                    measure(BOUND_MATMUL_QUANTIZED, fabs(y - from_q) / magnitude);
                    measure(BOUND_MATMUL_END_TO_END, fabs(y - from_x) / sqrt(energy));
                }
            }
        }
        b->ops->act_free(b, a);
        b->ops->weight_free(b, w);
        free(matrix);
    }
}

static void test_norm_and_gate(void **state)
{
    struct backend *b = *state;
    struct fixture_random r = {24};
    enum { COLS = 1571 };
    float x[COLS];
    float y[COLS];
    float result[COLS];
    int8_t q[COLS];
    float scales[COLS / 32 + 1];
    fixture_floats(&r, x, COLS);
    fixture_floats(&r, y, COLS);
    struct act *a = b->ops->act_new(b, 1, COLS, true);

    b->ops->norm(b, x, 1, COLS, y, 1e-5f, a);
    b->ops->act_read(b, a, 0, COLS, q, scales, result);
    double squares = 0.0;
    for (int k = 0; k < COLS; k++)
        squares += (double)x[k] * (double)x[k];
    double root = sqrt(squares / COLS + (double)1e-5f);
    for (int k = 0; k < COLS; k++) {
        double exact = (double)x[k] / root * (double)y[k];
        measure(BOUND_NORM, fabs((double)result[k] - exact) / fabs(exact));
    }
    for (enum activation f = ACTIVATION_SILU; f <= ACTIVATION_GELU_TANH; f++) {
        b->ops->gate(b, x, y, 1, COLS, f, a);
        b->ops->act_read(b, a, 0, COLS, q, scales, result);
        for (int k = 0; k < COLS; k++) {
            double g = (double)x[k];
            double u = 0.79788456080286535588 * (g + 0.044715 * g * g * g);
            double exact = g / (1.0 + exp(f == ACTIVATION_SILU ? -g : -2.0 * u)) * (double)y[k];
            if (g > -5.0)
                measure(BOUND_GATE, fabs((double)result[k] - exact) / fabs(exact));
        }
    }
    b->ops->act_free(b, a);
}

static void test_attention(void **state)
{
    struct backend *b = *state;
    struct fixture_random r = {25};
    enum { HEADS = 2, DIM = 64, LENGTH = 300, PAGES = 10 };
    static float q[LENGTH * HEADS * DIM];
    static float k[LENGTH * DIM];
    static float v[LENGTH * DIM];
    static float still[LENGTH * 2];
    fixture_floats(&r, q, LENGTH * HEADS * DIM);
    fixture_floats(&r, k, LENGTH * DIM);
    fixture_floats(&r, v, LENGTH * DIM);
    /* Rounded to binary16 beforehand, so that the cache gives back what was put in. */
    for (int i = 0; i < LENGTH * DIM; i++) {
        k[i] = half_to_float(half_from_float(k[i]));
        v[i] = half_to_float(half_from_float(v[i]));
    }
    uint32_t pages[PAGES];
    uint32_t position[LENGTH];
    uint32_t sequence[LENGTH] = {0};
    for (uint32_t i = 0; i < PAGES; i++)
        pages[i] = PAGES - 1 - i;
    for (uint32_t i = 0; i < LENGTH; i++) {
        position[i] = i;
        still[2 * i] = 1.0f; /* turns by nothing */
    }
    const struct kv_shape shape = {1, 1, DIM, DIM, KV_TYPE_F16, PAGES};
    struct kv *kv;
    struct errbuf eb = {0};
    assert_int_equal(b->ops->kv_new(b, &shape, &kv, &eb), ERR_OK);
    const struct step_rows rows = {LENGTH, position, sequence, pages, PAGES};
    const struct rope_kv_job rope = {.kv = kv,
                                     .rows = &rows,
                                     .q = q,
                                     .k = k,
                                     .v = v,
                                     .n_heads = HEADS,
                                     .rope_dim = 2,
                                     .table = still};
    b->ops->rope_kv(b, &rope);
    struct act *a = b->ops->act_new(b, LENGTH, HEADS * DIM, true);
    const struct attention_job job = {
        .kv = kv, .rows = &rows, .q = q, .n_heads = HEADS, .scale = 0.125f, .out = a};
    b->ops->attention(b, &job);
    for (uint32_t i = 0; i < LENGTH; i += 13) {
        int8_t quants[HEADS * DIM];
        float scales[HEADS * DIM / 32];
        float result[HEADS * DIM];
        b->ops->act_read(b, a, i, HEADS * DIM, quants, scales, result);
        for (int h = 0; h < HEADS; h++) {
            double weights[LENGTH];
            double total = 0.0;
            double v_max = 0.0;
            for (uint32_t j = 0; j <= i; j++) {
                double s = 0.0;
                for (int d = 0; d < DIM; d++)
                    s += (double)q[(i * HEADS + (uint32_t)h) * DIM + (uint32_t)d] *
                         (double)k[j * DIM + (uint32_t)d] * 0.125;
                weights[j] = exp(s);
                total += weights[j];
            }
            for (int d = 0; d < DIM; d++) {
                double exact = 0.0;
                for (uint32_t j = 0; j <= i; j++) {
                    double value = (double)v[j * DIM + (uint32_t)d];
                    exact += weights[j] / total * value;
                    v_max = fabs(value) > v_max ? fabs(value) : v_max;
                }
                measure(BOUND_ATTENTION, fabs((double)result[h * DIM + d] - exact) / v_max);
            }
        }
    }
    b->ops->act_free(b, a);
    b->ops->kv_free(b, kv);
}

static void test_every_error_is_within_its_bound(void **state)
{
    (void)state;
    for (size_t i = 0; i < BOUND_COUNT; i++) {
        print_message("%-45s %.3g, at most %.3g\n", bounds[i].name, worst[i], bounds[i].max);
        assert_true(worst[i] > 0.0 || i == BOUND_EMBED);
        assert_true(worst[i] <= bounds[i].max);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),     cmocka_unit_test(test_quantize),
        cmocka_unit_test(test_matmul),    cmocka_unit_test(test_norm_and_gate),
        cmocka_unit_test(test_attention), cmocka_unit_test(test_every_error_is_within_its_bound),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
