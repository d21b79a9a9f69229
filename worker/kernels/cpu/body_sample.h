/*
 * body_sample.h - the passes of sample.h, once. Included by one sample_<isa>.c per instruction set
 * after SAMPLE_TABLE and SAMPLE_NAME are defined. Loops without branches over a block of 64, which
 * the compiler turns into the instruction set's vectors; the random words alone are written with
 * vectors, since no compiler finds their 32-bit multiplications. All of it is static: each
 * instruction set has its own copy.
 */
#include "worker/kernels/sample.h"

#include <float.h>
#include <math.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "two words to a lane, the lower first");

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

/* Counters of random words that are made at once; tests set it to try a width without its
 * instructions. */
#if !defined(SAMPLE_LANES)
#if defined(__AVX512F__)
#define SAMPLE_LANES 8
#elif defined(__AVX2__)
#define SAMPLE_LANES 4
#else
#define SAMPLE_LANES 2
#endif
#endif

typedef uint64_t sample_wide __attribute__((vector_size(SAMPLE_LANES * 8)));

/* The products of the low halves of all lanes. */
static inline sample_wide sample_wide_mul(sample_wide a, sample_wide b)
{
#if defined(__AVX512F__)
    return (sample_wide)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (sample_wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
    return (a & UINT32_MAX) * (b & UINT32_MAX);
#endif
}

/* The Philox words of a block: word i belongs to its id i. As philox.h, a counter to a lane; the
 * upper halves of the lanes carry what is left over from the multiplications, and are cut off at
 * the end. */
static inline void sample_words(uint32_t block, uint32_t position, uint64_t seed,
                                uint32_t ret_words[SAMPLE_BLOCK])
{
    const sample_wide zero = {0};
    const sample_wide m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u;
    sample_wide lane;

    for (int i = 0; i < SAMPLE_LANES; i++)
        lane[i] = (uint64_t)i;
    for (uint32_t first = 0; first < SAMPLE_BLOCK / 4; first += SAMPLE_LANES) {
        sample_wide c0 = lane + (block * (SAMPLE_BLOCK / 4) + first);
        sample_wide c1 = zero + position, c2 = zero, c3 = zero;
        uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
        for (int round = 0; round < 10; round++) {
            sample_wide p0 = sample_wide_mul(m0, c0);
            sample_wide p1 = sample_wide_mul(m1, c2);
            c0 = (p1 >> 32) ^ c1 ^ k0;
            c1 = p1;
            c2 = (p0 >> 32) ^ c3 ^ k1;
            c3 = p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        sample_wide low = (c0 & UINT32_MAX) | c1 << 32;
        sample_wide high = (c2 & UINT32_MAX) | c3 << 32;
#if SAMPLE_LANES == 8
        sample_wide front = __builtin_shufflevector(low, high, 0, 8, 1, 9, 2, 10, 3, 11);
        sample_wide back = __builtin_shufflevector(low, high, 4, 12, 5, 13, 6, 14, 7, 15);
#elif SAMPLE_LANES == 4
        sample_wide front = __builtin_shufflevector(low, high, 0, 4, 1, 5);
        sample_wide back = __builtin_shufflevector(low, high, 2, 6, 3, 7);
#else
        sample_wide front = __builtin_shufflevector(low, high, 0, 2);
        sample_wide back = __builtin_shufflevector(low, high, 1, 3);
#endif
        memcpy(ret_words + 4 * first, &front, sizeof front);
        memcpy(ret_words + 4 * first + 2 * SAMPLE_LANES, &back, sizeof back);
    }
}

/* The greater of x and y, lane by lane; y where x is a NaN. */
typedef float sample_floats __attribute__((vector_size(SAMPLE_LANES * 8)));

static inline sample_floats sample_floats_max(sample_floats x, sample_floats y)
{
#if defined(__AVX512F__)
    return (sample_floats)_mm512_max_ps((__m512)x, (__m512)y);
#elif defined(__AVX2__)
    return (sample_floats)_mm256_max_ps((__m256)x, (__m256)y);
#else
    for (int i = 0; i < SAMPLE_LANES * 2; i++)
        y[i] = x[i] > y[i] ? x[i] : y[i];
    return y;
#endif
}

static inline const float *sample_block(const struct sample_row *row, uint32_t block)
{
    uint32_t own = row->own_at[block];

    return own == 0 ? row->logits + (size_t)block * SAMPLE_BLOCK
                    : row->own + (size_t)(own - 1) * SAMPLE_BLOCK;
}

static void body_block_max(const struct sample_row *row, float *ret_max)
{
    enum { LANES = SAMPLE_LANES * 2 };

    for (uint32_t block = 0; block < row->n_blocks; block++) {
        const float *x = sample_block(row, block);
        sample_floats most = {0}, one;
        most -= INFINITY;
        for (uint32_t i = 0; i < SAMPLE_BLOCK; i += LANES) {
            memcpy(&one, x + i, sizeof one);
            most = sample_floats_max(one, most);
        }
        float lanes[LANES];
        memcpy(lanes, &most, sizeof lanes);
        for (uint32_t half = LANES / 2; half > 0; half /= 2)
            for (uint32_t j = 0; j < half; j++)
                lanes[j] = lanes[j + half] > lanes[j] ? lanes[j + half] : lanes[j];
        ret_max[block] = lanes[0];
    }
}

static uint64_t body_masses(const float *z, uint32_t n, uint64_t *ret_mass)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < n; i++)
        ret_mass[i] = sample_mass(z[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += ret_mass[i];
    return sum;
}

static uint64_t body_mass_sum(const struct sample_row *row)
{
    const float greatest = row->greatest, temperature = row->temperature;
    uint64_t sum = 0;

    for (uint32_t block = 0; block < row->n_blocks; block++) {
        if (!(sample_z(row->block_max[block], greatest, temperature) >= SAMPLE_MASS_Z_MIN))
            continue;
        const float *x = sample_block(row, block);
        uint64_t part = 0;
        for (uint32_t i = 0; i < SAMPLE_BLOCK; i++)
            part += sample_mass(sample_z(x[i], greatest, temperature));
        sum += part;
    }
    return sum;
}

static uint32_t body_gather(const struct sample_row *row, float cut, uint32_t *ret_ids,
                            float *ret_z)
{
    const float greatest = row->greatest, temperature = row->temperature;
    uint32_t n = 0;

    for (uint32_t block = 0; block < row->n_blocks; block++) {
        float most = sample_z(row->block_max[block], greatest, temperature);
        if (!(most >= cut) || most == -INFINITY)
            continue;
        const float *x = sample_block(row, block);
        float z[SAMPLE_BLOCK];
        for (uint32_t i = 0; i < SAMPLE_BLOCK; i++)
            z[i] = sample_z(x[i], greatest, temperature);
        for (uint32_t i = 0; i < SAMPLE_BLOCK; i++) {
            /* Written in any case, counted where it belongs there: nothing to mispredict. There is
             * room: n never passes the ids before this one. */
            ret_ids[n] = block * SAMPLE_BLOCK + i;
            ret_z[n] = z[i];
            n += z[i] >= cut && z[i] > -INFINITY;
        }
    }
    return n;
}

/* Takes up the ids of one block that can win by their bound. */
static void sample_settle(const struct sample_filter *filter, uint32_t block,
                          const float z[SAMPLE_BLOCK], const float bound[SAMPLE_BLOCK],
                          const uint32_t words[SAMPLE_BLOCK], struct sample_best *best)
{
    for (uint32_t i = 0; i < SAMPLE_BLOCK; i++) {
        uint32_t id = block * SAMPLE_BLOCK + i;
        if (!(bound[i] >= best->sum) || !sample_filter_keeps(filter, z[i], id))
            continue;
        float sum = z[i] + nm_gumbel(words[i]);
        if (sum > best->sum || (sum == best->sum && id < best->id)) {
            best->sum = sum;
            best->id = id;
        }
    }
}

static void body_draw(const struct sample_row *row, const struct sample_filter *filter,
                      uint64_t seed, uint32_t position, struct sample_best *best)
{
    const float greatest = row->greatest, temperature = row->temperature;

    for (uint32_t block = 0; block < row->n_blocks; block++) {
        float most = sample_z(row->block_max[block], greatest, temperature);
        if (!(most >= filter->floor) || !(most + SAMPLE_GUMBEL_MAX >= best->sum))
            continue;
        const float *x = sample_block(row, block);
        float z[SAMPLE_BLOCK], bound[SAMPLE_BLOCK];
        uint32_t words[SAMPLE_BLOCK];
        const float to_beat = best->sum;
        int32_t any = 0;
        sample_words(block, position, seed, words);
        for (uint32_t i = 0; i < SAMPLE_BLOCK; i++) {
            z[i] = sample_z(x[i], greatest, temperature);
            bound[i] = z[i] + sample_gumbel_bound(words[i]);
            any |= bound[i] >= to_beat ? 1 : 0;
        }
        if (any != 0)
            sample_settle(filter, block, z, bound, words, best);
    }
}

const struct sample_kernels SAMPLE_TABLE = {
    .name = SAMPLE_NAME,
    .block_max = body_block_max,
    .mass_sum = body_mass_sum,
    .gather = body_gather,
    .masses = body_masses,
    .draw = body_draw,
};
