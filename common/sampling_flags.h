/*
 * sampling_flags.h - the flags that say how an answer is drawn and where it ends, the same for
 * `cloister submit`, `cloister batch` and `cloister-engine generate`. Thread: any.
 */
#ifndef CLOISTER_COMMON_SAMPLING_FLAGS_H
#define CLOISTER_COMMON_SAMPLING_FLAGS_H

#include "common/flags.h"

struct sampling_flags {
    uint64_t max_tokens, top_k, top_logprobs;
    double temperature, top_p, min_p, typical_p;
    double repetition_penalty, presence_penalty, frequency_penalty;
    struct flag_texts biases, stop_tokens; /* "ID:BIAS" (units_bias_parse), "ID" */
    bool has_logprobs;
};

extern const struct flag sampling_flags_table[];

/* 256 tokens, the likeliest one each time, everything off. */
struct sampling_flags sampling_flags_default(void);

#endif
