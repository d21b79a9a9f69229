/*
 * tokenizer_bound.c - how many tokens a text can become at most, which admission reserves before a
 * worker has counted.
 *
 * Let one space make S tokens, and the prefix P = S where there is one, else 0. Each byte of text
 * makes at most S tokens. A special token makes one, and the text behind it P more:
 *   user text: special tokens of at least m bytes each, and a byte behind each that gets a prefix:
 *     1 + P + S tokens for m + 1 bytes;
 *   template: its control tokens may stand before user text, so they are charged alone: 1 + P for
 *     their bytes.
 */
#include "worker/model/tokenizer_internal.h"

#define KIB 1024u

static uint32_t per_kib(uint32_t tokens, uint32_t bytes)
{
    return (tokens * KIB + bytes - 1) / bytes;
}

static uint32_t greater(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* U+2581, as which a space stands in the text that SPM splits. */
static uint32_t space_tokens(const struct tokenizer *t)
{
    int32_t id = text_map_find(t, "\u2581", 3);
    return id >= 0 && t->tokens[id].mergeable ? 1 : 3;
}

void tokenizer_bound(const struct tokenizer *t, struct tokenizer_bound *ret_bound)
{
    uint32_t space = t->family == TOKENIZER_FAMILY_SPM ? space_tokens(t) : 1;
    uint32_t prefix = t->family == TOKENIZER_FAMILY_SPM && t->adds_space_prefix ? space : 0;
    uint32_t user_min = 0, any_min = 0; /* bytes of the shortest special token; 0: there is none */

    for (int32_t id = 0; id < t->n_tokens; id++) {
        const struct token *token = &t->tokens[id];
        bool user = token->type == TOKEN_TYPE_USER;
        if (token->text_size == 0 ||
            (!user && token->type != TOKEN_TYPE_CONTROL && token->type != TOKEN_TYPE_UNKNOWN))
            continue;
        if (user && (user_min == 0 || token->text_size < user_min))
            user_min = token->text_size;
        if (any_min == 0 || token->text_size < any_min)
            any_min = token->text_size;
    }
    struct tokenizer_bound b = {.fixed = 1 + prefix, .per_kib_user = space * KIB};
    if (user_min > 0)
        b.per_kib_user = greater(b.per_kib_user, per_kib(1 + prefix + space, user_min + 1));
    b.per_kib_template = b.per_kib_user;
    if (any_min > 0)
        b.per_kib_template = greater(b.per_kib_template, per_kib(1 + prefix, any_min));
    *ret_bound = b;
}
