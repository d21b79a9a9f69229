/*
 * llama_sampling - the same draws as bench_sampling, by llama.cpp's chain of samplers, for its
 * ratios. Built by tests/bench/run where CLOISTER_LLAMA_CPP names a tree of llama.cpp.
 *
 *   llama_sampling CASE ROUNDS      microseconds a draw, of ROUNDS rounds over all rows
 *
 * As llama_sampler_sample does it, which needs a model: all logits become candidates, and the chain
 * runs over them, in llama.cpp's order (filters first, then temperature).
 */
#include "tests/bench/sampling_rows.h"

#include "llama.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
    size_t which = argc == 3 ? strtoul(argv[1], NULL, 10) : ROWS_CASES;
    unsigned long rounds = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
    if (which >= ROWS_CASES || rounds == 0) {
        fprintf(stderr, "usage: llama_sampling CASE ROUNDS\n");
        return 2;
    }
    const struct rows_case *c = &rows_cases[which];
    float *logits = rows_make(c->flat);
    llama_token_data *candidates = malloc(sizeof *candidates * ROWS_VOCAB);
    struct llama_sampler *chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    if (c->top_p < 1)
        llama_sampler_chain_add(chain, llama_sampler_init_top_p(c->top_p, 1));
    if (c->min_p > 0)
        llama_sampler_chain_add(chain, llama_sampler_init_min_p(c->min_p, 1));
    if (c->temperature > 0) {
        llama_sampler_chain_add(chain, llama_sampler_init_temp(c->temperature));
        llama_sampler_chain_add(chain, llama_sampler_init_dist(1));
    } else {
        llama_sampler_chain_add(chain, llama_sampler_init_greedy());
    }
    unsigned sum = 0;
    double start = 0;
    for (unsigned long round = 0; round <= rounds; round++) {
        if (round == 1) /* the first one warms up */
            start = now_us();
        for (int r = 0; r < ROWS_STREAMS; r++) {
            const float *row = logits + (size_t)r * ROWS_VOCAB;
            for (int i = 0; i < ROWS_VOCAB; i++)
                candidates[i] = (llama_token_data){i, row[i], 0.0f};
            llama_token_data_array all = {candidates, ROWS_VOCAB, -1, false};
            llama_sampler_apply(chain, &all);
            sum += (unsigned)all.data[all.selected].id;
        }
    }
    printf("%.3f %u\n", (now_us() - start) / (double)(rounds * ROWS_STREAMS), sum);
    llama_sampler_free(chain);
    free(candidates);
    free(logits);
    return 0;
}
