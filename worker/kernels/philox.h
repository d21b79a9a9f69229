/*
 * philox.h - Philox4x32-10, a counter-based random function: four words from (counter, key), no
 * state. The same question always gets the same answer, so a draw does not depend on what else was
 * drawn before it.
 *
 * Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11; its
 * known answers are in tests/kernels/test_numerics.c. Thread: any (pure).
 */
#ifndef CLOISTER_WORKER_KERNELS_PHILOX_H
#define CLOISTER_WORKER_KERNELS_PHILOX_H

#include "worker/kernels/device_code.h"

#include <stdint.h>

CLOISTER_DEVICE static inline void philox4x32(const uint32_t counter[4], const uint32_t key[2],
                                              uint32_t ret[4])
{
    uint32_t c0 = counter[0];
    uint32_t c1 = counter[1];
    uint32_t c2 = counter[2];
    uint32_t c3 = counter[3];
    uint32_t k0 = key[0];
    uint32_t k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    ret[0] = c0;
    ret[1] = c1;
    ret[2] = c2;
    ret[3] = c3;
}

/* The word that belongs to (seed, position, token): one call serves four neighbouring tokens. */
CLOISTER_DEVICE static inline uint32_t philox_token_word(uint64_t seed, uint32_t position,
                                                         uint32_t token)
{
    const uint32_t counter[4] = {token >> 2, position, 0, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t words[4];
    philox4x32(counter, key, words);
    return words[token & 3u];
}

#endif
