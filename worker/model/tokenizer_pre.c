/*
 * tokenizer_pre.c - the split of a text into words, before merges, by PCRE2.
 *
 * The match limit is set to what a linear pattern takes, so that one which were not would show as
 * an error and not as a hang.
 */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "worker/model/tokenizer_internal.h"

#include "common/check.h"

#include <inttypes.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

struct pre_tokenizer {
    pcre2_code *codes[PRE_PASSES_MAX];
    bool compiled[PRE_PASSES_MAX]; /* to machine code */
    size_t n_codes;
};

void tokenizer_unicode_version(char ret_text[32])
{
    int size = pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, NULL);
    CHECK(size > 0 && size <= 32);
    (void)pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, ret_text);
}

enum err pre_tokenizer_new(struct pre_tokenizer **ret, const struct pre_split *split,
                           struct errbuf *eb)
{
    struct pre_tokenizer *p = calloc(1, sizeof *p);
    if (p == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the pre-tokenizer");
    for (size_t i = 0; split->passes[i] != NULL; i++) {
        int code;
        PCRE2_SIZE at;
        CHECK(i < PRE_PASSES_MAX);
        p->codes[i] = pcre2_compile((PCRE2_SPTR)split->passes[i], PCRE2_ZERO_TERMINATED, PCRE2_UTF,
                                    &code, &at, NULL);
        if (p->codes[i] == NULL) {
            char text[120];
            (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
            pre_tokenizer_free(p);
            return err_set(eb, ERR_INTERNAL, "pre-tokenizer '%s', pass %zu at %zu: %s", split->kind,
                           i, (size_t)at, text);
        }
        p->n_codes = i + 1;
        /* Where the library has no JIT for this machine the interpreter gives the same answers. */
        p->compiled[i] = pcre2_jit_compile(p->codes[i], PCRE2_JIT_COMPLETE) == 0;
    }
    *ret = p;
    return ERR_OK;
}

void pre_tokenizer_free(struct pre_tokenizer *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->n_codes; i++)
        pcre2_code_free(p->codes[i]);
    free(p);
}

struct split {
    const struct pre_tokenizer *p;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    pre_word_fn *word;
    void *context;
    struct errbuf *eb;
};

/* Each pass sees a piece as if it were the whole text: a look-ahead ends where the piece does. */
static enum err split_pass(const struct split *s, size_t pass, const uint8_t *text, size_t size)
{
    enum err e = ERR_OK;
    size_t done = 0;
    /* One byte cannot be cut. */
    if (pass == s->p->n_codes || size == 1)
        return s->word(s->context, text, size);
    while (done < size && e == ERR_OK) {
        int n = s->p->compiled[pass] ? pcre2_jit_match(s->p->codes[pass], text, size, done,
                                                       PCRE2_NO_UTF_CHECK, s->match, s->limits)
                                     : pcre2_match(s->p->codes[pass], text, size, done,
                                                   PCRE2_NO_UTF_CHECK, s->match, s->limits);
        if (n == PCRE2_ERROR_NOMATCH)
            break;
        if (n < 0) {
            char message[120];
            (void)pcre2_get_error_message(n, (PCRE2_UCHAR *)message, sizeof message);
            return err_set(s->eb, n == PCRE2_ERROR_NOMEMORY ? ERR_NO_MEMORY : ERR_INTERNAL,
                           "splitting %zu bytes of text at %zu: %s", size, done, message);
        }
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(s->match);
        size_t start = ends[0];
        size_t end = ends[1];
        CHECK(start >= done && end > start && end <= size);
        if (start > done)
            e = split_pass(s, pass + 1, text + done, start - done);
        if (e == ERR_OK)
            e = split_pass(s, pass + 1, text + start, end - start);
        done = end;
    }
    if (e == ERR_OK && done < size)
        e = split_pass(s, pass + 1, text + done, size - done);
    return e;
}

enum err pre_tokenizer_split(const struct pre_tokenizer *p, const uint8_t *text, size_t size,
                             pre_word_fn *word, void *context, struct errbuf *eb)
{
    enum err e;
    struct split s = {.p = p,
                      .match = pcre2_match_data_create(1, NULL),
                      .limits = pcre2_match_context_create(NULL),
                      .word = word,
                      .context = context,
                      .eb = eb};
    if (s.match == NULL || s.limits == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory to split %zu bytes of text", size);
        goto out;
    }
    /* A few steps a byte and alternative is all that a linear pattern can take. */
    (void)pcre2_set_match_limit(s.limits,
                                (uint32_t)(16 * (size < (1u << 27) ? size : 1u << 27)) + 10000u);
    e = split_pass(&s, 0, text, size);
out:
    pcre2_match_context_free(s.limits);
    pcre2_match_data_free(s.match);
    return e;
}
