/*
 * sampling_rows.h - the rows of logits and the sets of parameters that bench_sampling and
 * llama_sampling are both given.
 */
#ifndef CLOISTER_TESTS_BENCH_SAMPLING_ROWS_H
#define CLOISTER_TESTS_BENCH_SAMPLING_ROWS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define ROWS_VOCAB   262144
#define ROWS_STREAMS 32

static const struct rows_case {
    const char *name;
    bool flat;
    float temperature, top_p, min_p;
} rows_cases[] = {
    {"greedy", false, 0, 1, 0},
    {"temperature 0.8", false, 0.8f, 1, 0},
    {"temperature 0.8, flat", true, 0.8f, 1, 0},
    {"temperature 0.8, min-p 0.05", false, 0.8f, 1, 0.05f},
    {"temperature 0.8, top-p 0.95", false, 0.8f, 0.95f, 0},
    {"temperature 0.8, top-p 0.95, flat", true, 0.8f, 0.95f, 0},
    {"temperature 0.8, top-p 0.95, min-p 0.05", false, 0.8f, 0.95f, 0.05f},
};
#define ROWS_CASES (sizeof rows_cases / sizeof rows_cases[0])

static inline uint64_t rows_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline double rows_uniform(uint64_t *state)
{
    return ((double)(rows_random(state) >> 11) + 0.5) * 0x1p-53;
}

/* ROWS_STREAMS rows of normal noise; `flat` leaves it at that, so that every token counts. Else the
 * noise is three times as wide and forty tokens stand out, by up to 22, as a language model's do.
 */
static inline float *rows_make(bool flat)
{
    float *logits = malloc(sizeof *logits * ROWS_VOCAB * ROWS_STREAMS);
    uint64_t state = flat ? 88172645463325252u : 2463534242u;
    if (!logits)
        abort();
    for (int r = 0; r < ROWS_STREAMS; r++) {
        float *row = logits + (size_t)r * ROWS_VOCAB;
        for (int i = 0; i < ROWS_VOCAB; i++)
            row[i] = (float)((flat ? 1.0 : 3.0) * sqrt(-2.0 * log(rows_uniform(&state))) *
                             cos(6.283185307179586 * rows_uniform(&state)));
        for (int i = 0; i < 40 && !flat; i++)
            row[rows_random(&state) % ROWS_VOCAB] = (float)(22.0 - 14.0 * sqrt(i / 40.0));
    }
    return logits;
}

#endif
