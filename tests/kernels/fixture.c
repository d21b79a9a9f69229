#include "tests/kernels/fixture.h"

#ifdef KERNELS_CUDA
#include "tests/cuda_emulation/emulation.h"
#endif
#include "worker/kernels/cpu/cpu.h"
#include "worker/kernels/half.h"
#include "worker/kernels/host.h"
#include "worker/kernels/quant_block.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const enum quant_type fixture_types[] = {
    QUANT_TYPE_F32,  QUANT_TYPE_F16,    QUANT_TYPE_BF16,   QUANT_TYPE_Q4_0,
    QUANT_TYPE_Q4_1, QUANT_TYPE_Q8_0,   QUANT_TYPE_Q5_0,   QUANT_TYPE_Q5_1,
    QUANT_TYPE_Q2_K, QUANT_TYPE_Q3_K,   QUANT_TYPE_Q4_K,   QUANT_TYPE_Q5_K,
    QUANT_TYPE_Q6_K, QUANT_TYPE_IQ4_NL, QUANT_TYPE_IQ4_XS, QUANT_TYPE_MXFP4,
};
const size_t fixture_n_types = sizeof fixture_types / sizeof fixture_types[0];

static void fixture_add(struct fixture *f, const char *name, uint32_t threads, struct backend *b)
{
    assert_true(f->n_others < FIXTURE_BACKENDS_MAX);
    struct fixture_backend *slot = &f->others[f->n_others++];
    snprintf(slot->name, sizeof slot->name, "%s x%u", name, threads);
    slot->backend = b;
}

#ifdef KERNELS_CUDA

/* The device as it is emulated; CUDA_EMULATION_SCHEDULE says how it orders its work. With one
 * multiprocessor: small matrices fill it, and so get the tiles that large ones get elsewhere. */
static bool fixture_open_others(struct fixture *f)
{
    const struct backend_cuda_config config = {.threads = 2};
    struct emu_device device = emu_device_get();
    struct errbuf eb = {0};
    struct backend *b;

    device.multiprocessors = 1;
    emu_device_set(&device);
    if (backend_cuda_open(&b, &config, &eb) != ERR_OK) {
        print_error("%s\n", eb.text);
        return false;
    }
    fixture_add(f, b->ops->name, config.threads, b);
    return true;
}

uint64_t fixture_weight_bytes(enum quant_type type, uint32_t rows, uint32_t cols,
                              const struct sum_cut *cut)
{
    return backend_cuda_weight_bytes(type, rows, cols, cut);
}

bool fixture_leaves_out(size_t i, size_t turn)
{
    return emu_is_checked() && (i + turn) % 4 != 0;
}

#else

uint64_t fixture_weight_bytes(enum quant_type type, uint32_t rows, uint32_t cols,
                              const struct sum_cut *cut)
{
    return backend_cpu_weight_bytes(type, rows, cols, cut);
}

bool fixture_leaves_out(size_t i, size_t turn)
{
    (void)i;
    (void)turn;
    return false;
}

/* Three threads on two memory nodes: work cut by node changes no bit either. */
static void fixture_on_nodes(struct backend *b, uint32_t threads)
{
    struct topology two = {.n_cpus = 3, .n_nodes = 2, .first = {0, 2, 3}};
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    struct errbuf eb = {0};

    pool_free(cpu->pool);
    assert_int_equal(pool_new_on(&two, threads, &cpu->pool, &eb), ERR_OK);
}

static void fixture_add_cpu(struct fixture *f, const char *name, uint32_t threads,
                            struct backend *b)
{
    fixture_add(f, name, threads, b);
    if (threads == 3)
        fixture_on_nodes(b, threads);
}

static bool fixture_open_others(struct fixture *f)
{
    struct errbuf eb = {0};
    static const struct {
        const char *name;
        enum backend_isa isa;
    } sets[] = {
        {"avx2", BACKEND_ISA_AVX2}, {"avx512", BACKEND_ISA_AVX512}, {"amx", BACKEND_ISA_AMX}};
    const char *only = getenv("KERNELS_ONLY");
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct backend *b;
        for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
            if (only != NULL && strcmp(only, sets[i].name) != 0)
                continue;
            if (!backend_isa_available(sets[i].isa)) {
                if (threads == 1)
                    print_message("this machine cannot run %s: left out\n", sets[i].name);
                continue;
            }
            const struct backend_cpu_config config = {.isa = sets[i].isa, .threads = threads};
            if (backend_cpu_open(&b, &config, &eb) != ERR_OK)
                return false;
            fixture_add_cpu(f, sets[i].name, threads, b);
        }
        static const struct cpu_kernels *const plain[] = {&cpu_kernels_plain,
                                                          &cpu_kernels_plain_tmul};
        for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
            if (only != NULL ? strcmp(only, plain[i]->name) != 0 : i > 0 && threads > 1)
                continue;
            if (cpu_backend_new(plain[i], threads, &b, &eb) != ERR_OK)
                return false;
            fixture_add_cpu(f, plain[i]->name, threads, b);
        }
    }
    return true;
}

#endif

int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct errbuf eb = {0};
    const struct backend_cpu_config scalar = {.isa = BACKEND_ISA_SCALAR, .threads = 1};
    if (backend_cpu_open(&f->ref, &scalar, &eb) != ERR_OK)
        return -1;
    if (!fixture_open_others(f))
        return -1;
    *state = f;
    if (f->n_others > 0)
        return 0;
    print_error("nothing to compare with the reference: KERNELS_ONLY is avx2, avx512, amx, "
                "plain16 or plain_tmul, and the machine's own\n");
    return -1;
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < f->n_others; i++)
        f->others[i].backend->ops->close(f->others[i].backend);
    f->ref->ops->close(f->ref);
    free(f);
    return 0;
}

uint64_t fixture_next(struct fixture_random *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint32_t fixture_below(struct fixture_random *r, uint32_t bound)
{
    return (uint32_t)((fixture_next(r) >> 32) * bound >> 32);
}

float fixture_float(struct fixture_random *r)
{
    float sum = 0.0f;
    for (int i = 0; i < 4; i++)
        sum += (float)((double)(fixture_next(r) >> 11) * 0x1p-53 - 0.5);
    return fixture_below(r, 64) == 0 ? sum * 17.0f : sum * 1.7f;
}

void fixture_floats(struct fixture_random *r, float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = fixture_float(r);
}

static void fixture_bytes(struct fixture_random *r, void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)(fixture_next(r) >> 56);
}

static uint16_t fixture_half(struct fixture_random *r)
{
    return half_from_float(fixture_float(r) * 0.02f);
}

/* Where the block's binary16 numbers are: its scale, and its minimum (0: none). */
static void fixture_halves_at(enum quant_type type, size_t *ret_d, size_t *ret_m)
{
    *ret_d = 0;
    *ret_m = 0;
    switch (type) {
    case QUANT_TYPE_Q4_1:
    case QUANT_TYPE_Q5_1:
    case QUANT_TYPE_Q4_K:
    case QUANT_TYPE_Q5_K:
        *ret_m = 2;
        break;
    case QUANT_TYPE_Q2_K:
        *ret_d = offsetof(struct block_q2_k, d);
        *ret_m = offsetof(struct block_q2_k, dmin);
        break;
    case QUANT_TYPE_Q3_K:
        *ret_d = offsetof(struct block_q3_k, d);
        break;
    case QUANT_TYPE_Q6_K:
        *ret_d = offsetof(struct block_q6_k, d);
        break;
    default:
        break;
    }
}

void fixture_scale(enum quant_type type, uint8_t *block, uint16_t d, uint16_t m)
{
    size_t d_at;
    size_t m_at;
    fixture_halves_at(type, &d_at, &m_at);
    memcpy(block + d_at, &d, sizeof d);
    if (m_at > 0)
        memcpy(block + m_at, &m, sizeof m);
}

uint8_t *fixture_matrix(struct fixture_random *r, enum quant_type type, uint32_t rows,
                        uint32_t cols)
{
    const struct quant_type_info *info = quant_type_info((uint32_t)type);
    size_t blocks = (size_t)rows * (cols / info->block_items);
    uint8_t *data = malloc(blocks * info->block_bytes + 1);
    assert_non_null(data);
    for (size_t i = 0; i < blocks; i++) {
        uint8_t *block = data + i * info->block_bytes;
        fixture_bytes(r, block, info->block_bytes);
        float x = fixture_float(r);
        uint16_t d = fixture_half(r);
        uint16_t m = fixture_half(r);
        if (type == QUANT_TYPE_F32) {
            memcpy(block, &x, sizeof x);
        } else if (type == QUANT_TYPE_MXFP4) {
            block[0] = (uint8_t)(118 + fixture_below(r, 8)); /* 2^-10 .. 2^-3 */
        } else {
            if (type == QUANT_TYPE_F16)
                d = half_from_float(x);
            if (type == QUANT_TYPE_BF16)
                d = (uint16_t)(half_float_bits(x) >> 16);
            fixture_scale(type, block, d, m);
        }
    }
    return data;
}

void fixture_same(const char *what, const char *backend, const float *expected, const float *actual,
                  size_t n)
{
    if (memcmp(expected, actual, n * sizeof *expected) == 0)
        return;
    for (size_t i = 0; i < n; i++) {
        if (memcmp(expected + i, actual + i, sizeof *expected) != 0)
            fail_msg("%s, %s: float %zu of %zu is %a, not %a", what, backend, i, n,
                     (double)actual[i], (double)expected[i]);
    }
}

void fixture_same_act(const char *what, const char *backend, struct backend *ref,
                      const struct act *expected, struct backend *other, const struct act *actual,
                      uint32_t n, uint32_t cols, int has_float)
{
    uint32_t blocks = (cols + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    int8_t *q = malloc((size_t)2 * cols);
    float *x = malloc((size_t)2 * (cols + blocks) * sizeof *x);
    assert_true(q != NULL && x != NULL);
    float *scales = x + (size_t)2 * cols;
    memset(x, 0, (size_t)2 * (cols + blocks) * sizeof *x);
    for (uint32_t i = 0; i < n; i++) {
        ref->ops->act_read(ref, expected, i, cols, q, scales, has_float ? x : NULL);
        other->ops->act_read(other, actual, i, cols, q + cols, scales + blocks,
                             has_float ? x + cols : NULL);
        if (memcmp(q, q + cols, cols) != 0)
            fail_msg("%s, %s: quants of row %u differ", what, backend, i);
        fixture_same(what, backend, scales, scales + blocks, blocks);
        fixture_same(what, backend, x, x + cols, cols);
    }
    free(q);
    free(x);
}

uint64_t fixture_hash(const float *x, size_t n)
{
    uint64_t hash = 1469598103934665603ull;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ half_float_bits(x[i])) * 1099511628211ull;
    return hash;
}

float *fixture_upload(struct backend *b, const float *host, size_t count)
{
    if (host == NULL)
        return NULL;
    float *buffer = b->ops->buffer_new(b, count);
    assert_non_null(buffer);
    b->ops->buffer_write(b, buffer, host, count);
    return buffer;
}
