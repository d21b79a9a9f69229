/* tokens_most.h - what tokenizer_bound says of one text: no encoding of it may have more ids. */
#ifndef CLOISTER_TESTS_UNIT_MODEL_TOKENS_MOST_H
#define CLOISTER_TESTS_UNIT_MODEL_TOKENS_MOST_H

#include "worker/model/tokenizer.h"

#include <stddef.h>
#include <stdint.h>

static inline size_t tokens_most(const struct tokenizer *t, size_t size,
                                 enum tokenizer_special special)
{
    struct tokenizer_bound b;
    tokenizer_bound(t, &b);
    uint64_t rate = special == TOKENIZER_SPECIAL_PARSE ? b.per_kib_template : b.per_kib_user;
    return b.fixed + (size_t)((size * rate + 1023) / 1024);
}

#endif
