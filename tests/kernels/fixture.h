/*
 * fixture.h - what the tests of the kernels share: every backend this machine can run, seeded
 * data, and comparison bit for bit.
 */
#ifndef CLOISTER_TESTS_KERNELS_FIXTURE_H
#define CLOISTER_TESTS_KERNELS_FIXTURE_H

#include "worker/kernels/backend.h"
#include "worker/kernels/cpu/kernels.h"

#include <stddef.h>
#include <stdint.h>

/* tests/kernels/kernels_plain.c, kernels_plain_tmul.c */
extern const struct cpu_kernels cpu_kernels_plain;
extern const struct cpu_kernels cpu_kernels_plain_tmul;

struct fixture_backend {
    char name[32]; /* "avx2 x3": instruction set and threads */
    struct backend *backend;
};

#define FIXTURE_BACKENDS_MAX 24

/* The oracle, and everything that must equal it. cmocka group set-up and tear-down. Where time is
 * short (in an emulator), KERNELS_ONLY in the environment names the one that is compared: avx2,
 * avx512, amx, plain16 or plain_tmul. */
struct fixture {
    struct backend *ref;
    struct fixture_backend others[FIXTURE_BACKENDS_MAX];
    size_t n_others;
};

int fixture_setup(void **state);
int fixture_teardown(void **state);

/* SplitMix64. */
struct fixture_random {
    uint64_t state;
};

uint64_t fixture_next(struct fixture_random *r);
uint32_t fixture_below(struct fixture_random *r, uint32_t bound);
/* Normal-like, about -3 .. 3, with now and then an outlier of ten times that. */
float fixture_float(struct fixture_random *r);
void fixture_floats(struct fixture_random *r, float *x, size_t count);

/* A matrix as a file would hold it: sensible scales, every quant value, all types with kernels.
 * Ownership: the caller frees it. */
uint8_t *fixture_matrix(struct fixture_random *r, enum quant_type type, uint32_t rows,
                        uint32_t cols);

/* Writes a block's scale and, for types that have one, its minimum (binary16); not for F32 and
 * MXFP4. */
void fixture_scale(enum quant_type type, uint8_t *block, uint16_t d, uint16_t m);

/* Fails the test, naming `what` and the backend, where n floats differ in any bit. */
void fixture_same(const char *what, const char *backend, const float *expected, const float *actual,
                  size_t n);
/* As fixture_same for n rows of two activation buffers. */
void fixture_same_act(const char *what, const char *backend, struct backend *ref,
                      const struct act *expected, struct backend *other, const struct act *actual,
                      uint32_t n, uint32_t cols, int has_float);

/* FNV-1a over the bits of n floats: for tests that hold the bits themselves, since a change of the
 * definition would change ref and every backend alike. */
uint64_t fixture_hash(const float *x, size_t n);

/* Bytes that a backend other than the reference holds for such a matrix. */
uint64_t fixture_weight_bytes(enum quant_type type, uint32_t rows, uint32_t cols,
                              const struct sum_cut *cut);

/* Where every load and store is watched (CUDA emulated in checked mode) a test takes a share of its
 * cases: whether it leaves out case i of a row of them, in which `turn` changes from row to row. */
bool fixture_leaves_out(size_t i, size_t turn);

/* A backend buffer with a copy of `count` host floats; NULL gives NULL. */
float *fixture_upload(struct backend *b, const float *host, size_t count);

extern const enum quant_type fixture_types[];
extern const size_t fixture_n_types;

#endif
