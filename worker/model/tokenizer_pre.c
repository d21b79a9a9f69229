/*
 * tokenizer_pre.c - the split of a text into words, before merges, by PCRE2.
 *
 * The patterns are those of the models' own tokenizers with their white space written out: PCRE2's
 * \s has U+180E, which no tokenizer counts. They stay linear: a run that a pattern gives up on is
 * given up once, and the match limit is set to what that takes, so that a pattern which were not
 * linear would show as an error and not as a hang.
 */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "worker/model/tokenizer_internal.h"

#include "common/check.h"

#include <inttypes.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define PASSES_MAX 4

/* White space inside a class: TAB to CR, NEL, and Unicode's separators. */
#define WS "\\t-\\r\\x{85}\\p{Z}"

/* White space runs leave their last character to the word that follows. */
#define SPACES "[" WS "]+(?![^" WS "])|[" WS "]+"

/* Source: GPT-2. */
#define PATTERN_GPT2 "'(?:[stmd]|re|ve|ll)| ?\\p{L}++| ?\\p{N}++| ?[^" WS "\\p{L}\\p{N}]++|" SPACES

/* Source: Llama 3 and Qwen 2, which differ in how many digits stay together. */
#define PATTERN_LLAMA3(digits)                                                                     \
    "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}++|" digits "| ?[^" WS \
    "\\p{L}\\p{N}]++[\\r\\n]*+|[" WS "]*[\\r\\n]++|" SPACES

static const struct pre_type pre_types[] = {
    {"smollm", "smollm", false, false, {"\\p{N}", PATTERN_GPT2}},
    {"llama-bpe", "llama3", true, true, {PATTERN_LLAMA3("\\p{N}{1,3}+")}},
    {"llama3", "llama3", true, true, {PATTERN_LLAMA3("\\p{N}{1,3}+")}},
    {"llama-v3", "llama3", true, true, {PATTERN_LLAMA3("\\p{N}{1,3}+")}},
    {"qwen2", "qwen2", false, false, {PATTERN_LLAMA3("\\p{N}")}},
    {"gpt-2", "gpt-2", false, false, {PATTERN_GPT2}},
    {"default",
     "default",
     false,
     false,
     {"[\\p{P}$+<=>^~|]++", PATTERN_GPT2, "\\p{N}++", "[0-9][0-9][0-9]"}},
};

struct pre_tokenizer {
    pcre2_code *codes[PASSES_MAX];
    size_t n_codes;
};

const struct pre_type *pre_type_find(struct gguf_string name)
{
    for (size_t i = 0; i < sizeof pre_types / sizeof pre_types[0]; i++) {
        if (gguf_string_equal(name, pre_types[i].name))
            return &pre_types[i];
    }
    return NULL;
}

const char *pre_type_list(void)
{
    return "llama-bpe (llama3, llama-v3), smollm, qwen2, gpt-2, default";
}

void tokenizer_unicode_version(char ret_text[32])
{
    int size = pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, NULL);
    CHECK(size > 0 && size <= 32);
    (void)pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, ret_text);
}

enum err pre_tokenizer_new(struct pre_tokenizer **ret, const struct pre_type *type,
                           struct errbuf *eb)
{
    struct pre_tokenizer *p = calloc(1, sizeof *p);
    if (p == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the pre-tokenizer");
    for (size_t i = 0; type->passes[i] != NULL; i++) {
        int code;
        PCRE2_SIZE at;
        CHECK(i < PASSES_MAX);
        p->codes[i] = pcre2_compile((PCRE2_SPTR)type->passes[i], PCRE2_ZERO_TERMINATED, PCRE2_UTF,
                                    &code, &at, NULL);
        if (p->codes[i] == NULL) {
            char text[120];
            (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
            pre_tokenizer_free(p);
            return err_set(eb, ERR_INTERNAL, "pre-tokenizer '%s', pass %zu at %zu: %s", type->name,
                           i, (size_t)at, text);
        }
        p->n_codes = i + 1;
        /* Where the library has no JIT for this machine the interpreter gives the same answers. */
        (void)pcre2_jit_compile(p->codes[i], PCRE2_JIT_COMPLETE);
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
    if (pass == s->p->n_codes)
        return s->word(s->context, text, size);
    while (done < size && e == ERR_OK) {
        int n = pcre2_match(s->p->codes[pass], text, size, done, PCRE2_NO_UTF_CHECK, s->match,
                            s->limits);
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
