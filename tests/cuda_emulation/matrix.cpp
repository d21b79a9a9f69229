/*
 * matrix.cpp - mma.sync on signed bytes, and ldmatrix. Which element is in which byte of which
 * lane's register: PTX ISA, "Matrix Fragments for mma.m16n8k16" and "... mma.m16n8k32" with .s8
 * operands, "Warp-level matrix load instruction: ldmatrix". In PTX's words groupID is lane / 4 and
 * threadID_in_group lane % 4:
 *
 *     a  register r: row groupID + 8 * (r % 2), columns 16 * (r / 2) + 4 * threadID_in_group + 0 ..
 * 3 b  register r: rows 16 * r + 4 * threadID_in_group + 0 .. 3, column groupID c  register r: row
 * groupID + 8 * (r / 2), column 2 * threadID_in_group + r % 2
 *
 * m16n8k16 has the registers of the first 16 columns of a.
 */
#include "tests/cuda_emulation/access.h"
#include "tests/cuda_emulation/block.h"
#include "tests/cuda_emulation/counters.h"
#include "tests/cuda_emulation/fault.h"
#include "tests/cuda_emulation/shared.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define MMA_M 16
#define MMA_N 8

/* The product of K signed bytes of a row and a column, widened before: what pmaddwd does eight at a
 * time where there is one, which is every x86-64. */
#ifdef __SSE2__
template <int K> static inline int32_t dot(const int16_t *row, const int16_t *column)
{
    __m128i sum = _mm_setzero_si128();
    for (int k = 0; k < K; k += 8)
        sum = _mm_add_epi32(
            sum, _mm_madd_epi16(_mm_load_si128(reinterpret_cast<const __m128i *>(row + k)),
                                _mm_load_si128(reinterpret_cast<const __m128i *>(column + k))));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    return _mm_cvtsi128_si32(sum);
}

/* Four signed bytes, widened. */
static inline void widen(int16_t *to, uint32_t word)
{
    __m128i bytes = _mm_cvtsi32_si128((int)word);
    _mm_storel_epi64(reinterpret_cast<__m128i *>(to),
                     _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8));
}
#else
template <int K> static inline int32_t dot(const int16_t *row, const int16_t *column)
{
    int32_t sum = 0; /* at most 32 * 128 * 128 */
    for (int k = 0; k < K; k++)
        sum += (int32_t)row[k] * column[k];
    return sum;
}

static inline void widen(int16_t *to, uint32_t word)
{
    for (int i = 0; i < 4; i++)
        to[i] = (int8_t)(word >> (8 * i));
}
#endif

/* Words 0-3 of a lane's `in` are c, then a, then b. */
template <int K> static void finish_mma(struct emu_warp *warp, uint32_t mask)
{
    const uint32_t a_words = K / 8;
    const uint32_t b_words = K / 16;
    alignas(16) int16_t a[MMA_M][K];
    alignas(16) int16_t b[MMA_N][K]; /* by columns */
    (void)mask;
    for (uint32_t l = 0; l < EMU_WARP; l++) {
        const uint32_t *in = warp->lanes[l].in;
        uint32_t group = l / 4;
        uint32_t k = l % 4 * 4;
        for (uint32_t r = 0; r < a_words; r++)
            widen(&a[group + 8 * (r % 2)][16 * (r / 2) + k], in[4 + r]);
        for (uint32_t r = 0; r < b_words; r++)
            widen(&b[group][16 * r + k], in[4 + a_words + r]);
    }
    for (uint32_t l = 0; l < EMU_WARP; l++) {
        struct emu_lane *lane = &warp->lanes[l];
        for (uint32_t r = 0; r < 4; r++)
            lane->out[r] =
                lane->in[r] + (uint32_t)dot<K>(a[l / 4 + 8 * (r / 2)], b[l % 4 * 2 + r % 2]);
    }
    emu_counters_now()->mma++;
}

template <int K>
static void mma(const char *name, int32_t c[4], const uint32_t *a, const uint32_t *b,
                emu_place place)
{
    struct emu_lane *self = emu_lane_here(name);
    memcpy(self->in, c, 4 * sizeof *c);
    memcpy(self->in + 4, a, K / 8 * sizeof *a);
    memcpy(self->in + 4 + K / 8, b, K / 16 * sizeof *b);
    emu_warp_meet(self, name, EMU_ALL_LANES, finish_mma<K>, place);
    memcpy(c, self->out, 4 * sizeof *c);
}

void emu_mma_m16n8k32_s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2], emu_place place)
{
    mma<32>("mma.m16n8k32", c, a, b, place);
}

void emu_mma_m16n8k16_s8(int32_t c[4], const uint32_t a[2], const uint32_t b[1], emu_place place)
{
    mma<16>("mma.m16n8k16", c, a, b, place);
}

/* --- ldmatrix --- */

static void finish_ldmatrix(struct emu_warp *warp, uint32_t mask)
{
    uint32_t words[4][8][4]; /* of each matrix, row by row */
    (void)mask;
    for (uint32_t l = 0; l < EMU_WARP; l++) {
        const struct emu_lane *lane = &warp->lanes[l];
        if (!emu_shared_is(lane->in_address))
            emu_raise_for(EMU_FAULT_OUT_OF_BOUNDS, lane, lane->in_address,
                          "ldmatrix of %s:%d: the row's address %p is not in shared memory",
                          lane->place.file, lane->place.line, lane->in_address);
        emu_access_of_lane(lane, lane->in_address, 16, EMU_ACCESS_READ);
        memcpy(words[l / 8][l % 8], lane->in_address, 16);
    }
    emu_access_count_matrices(warp);
    for (uint32_t l = 0; l < EMU_WARP; l++) {
        for (uint32_t m = 0; m < 4; m++)
            warp->lanes[l].out[m] = words[m][l / 4][l % 4];
    }
    emu_counters_now()->ldmatrix++;
}

void emu_ldmatrix_x4(uint32_t ret[4], const void *row, emu_place place)
{
    struct emu_lane *self = emu_lane_here("ldmatrix");
    self->in_address = row;
    emu_warp_meet(self, "ldmatrix", EMU_ALL_LANES, finish_ldmatrix, place);
    memcpy(ret, self->out, 4 * sizeof *ret);
}
