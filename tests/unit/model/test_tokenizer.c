/* Tokenizers over small vocabularies: families, special tokens, broken bytes, lying tables. */
#include "tests/unit/model/gguf_build.h"
#include "tests/unit/model/tokens_most.h"

#include "worker/model/tokenizer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static enum err build_and_open(struct gguf_build *b, struct tokenizer **ret, struct errbuf *eb)
{
    struct buf file;
    struct gguf *g = NULL;
    gguf_build_finish(b, &file);
    enum err e = gguf_open_memory(&g, file.data, file.size, eb);
    assert_int_equal(e, ERR_OK);
    e = tokenizer_open(ret, g, eb);
    gguf_close(g);
    buf_fini(&file);
    gguf_build_fini(b);
    return e;
}

/* One name of each split, and SentencePiece. */
static const char *const pres[] = {
    "gpt-2",    "llama-bpe",  "smollm",       "qwen2",       "default",        "tekken",
    "gpt-4o",   "falcon",     "deepseek-llm", "deepseek-v3", "deepseek-coder", "qwen35",
    "minicpm5", "seed-coder", "ufakzeka",     "bloom",       "viking",         NULL,
};
enum { N_PRES = sizeof pres / sizeof pres[0] };

static struct tokenizer *open_bpe(const char *pre)
{
    struct gguf_build b;
    struct tokenizer *t = NULL;
    struct errbuf eb = {{0}};
    gguf_build_init(&b);
    gguf_build_bpe(&b, pre);
    if (build_and_open(&b, &t, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    return t;
}

static struct tokenizer *open_spm(bool prefix)
{
    struct gguf_build b;
    struct tokenizer *t = NULL;
    struct errbuf eb = {{0}};
    gguf_build_init(&b);
    gguf_build_bool(&b, "tokenizer.ggml.add_space_prefix", prefix);
    gguf_build_spm(&b);
    if (build_and_open(&b, &t, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    return t;
}

#define END      (-1)
#define IDS(...) ((const int32_t[]){__VA_ARGS__, END})

static void expect(const struct tokenizer *t, const void *text, size_t size,
                   enum tokenizer_special special, bool at_start, const int32_t *want)
{
    struct tokens got = {0};
    struct errbuf eb = {{0}};
    enum err e = tokenizer_encode(t, text, size, special, at_start, &got, &eb);
    if (e != ERR_OK)
        fail_msg("'%.*s': %s", (int)size, (const char *)text, eb.text);
    size_t n = 0;
    while (want[n] != END)
        n++;
    bool equal = got.count == n;
    for (size_t i = 0; equal && i < n; i++)
        equal = got.ids[i] == want[i];
    if (!equal) {
        for (size_t i = 0; i < got.count; i++)
            print_error("%d ", got.ids[i]);
        fail_msg("are the ids of '%.*s'", (int)size, (const char *)text);
    }
    assert_true(got.count <= tokens_most(t, size, special));
    tokens_fini(&got);
}

#define PLAIN(t, text, ...)                                                                        \
    expect(t, text, sizeof(text) - 1, TOKENIZER_SPECIAL_PLAIN, true, IDS(__VA_ARGS__))
#define PARSE(t, text, ...)                                                                        \
    expect(t, text, sizeof(text) - 1, TOKENIZER_SPECIAL_PARSE, true, IDS(__VA_ARGS__))

static void test_bpe_merges_by_rank(void **state)
{
    (void)state;
    struct tokenizer *t = open_bpe("gpt-2");
    PLAIN(t, "hello", BUILD_ID_HELLO);
    PLAIN(t, "hello hello", BUILD_ID_HELLO, BUILD_ID_SPACE_HELLO);
    PLAIN(t, "hel", BUILD_ID_HE, 'l');
    PLAIN(t, "xxxxx", BUILD_ID_XXXX, 'x');
    PLAIN(t, "xxx", BUILD_ID_XX, 'x'); /* equal ranks: the left one */
    PLAIN(t, "a\n", 'a', '\n');
    expect(t, "", 0, TOKENIZER_SPECIAL_PLAIN, true, IDS(END));
    tokenizer_close(t);
}

static void test_bpe_whole_words_come_first_for_llama3(void **state)
{
    (void)state;
    /* "zz" is a token that no merge makes. */
    for (int llama3 = 0; llama3 < 2; llama3++) {
        struct gguf_build b;
        struct tokenizer *t = NULL;
        static const char *const merges[] = {"h e"};
        gguf_build_init(&b);
        gguf_build_strings(&b, "tokenizer.ggml.merges", merges, 1);
        b.skip[0] = "tokenizer.ggml.merges";
        gguf_build_bpe(&b, llama3 ? "llama-bpe" : "gpt-2");
        assert_int_equal(build_and_open(&b, &t, NULL), ERR_OK);
        if (llama3)
            PLAIN(t, "hello", BUILD_ID_HELLO);
        else
            PLAIN(t, "hello", BUILD_ID_HE, 'l', 'l', 'o');
        /* Never a control token. */
        PLAIN(t, "he", BUILD_ID_HE);
        assert_int_equal(tokenizer_adds_bos(t), llama3);
        tokenizer_close(t);
    }
}

static void test_control_tokens_only_where_they_are_parsed(void **state)
{
    (void)state;
    struct tokenizer *t = open_bpe("gpt-2");
    PARSE(t, "<|im_end|>", BUILD_ID_END);
    PARSE(t, "he<|im_end|>he", BUILD_ID_HE, BUILD_ID_END, BUILD_ID_HE);
    PARSE(t, "<|im_end|><|im_start|>", BUILD_ID_END, BUILD_ID_START);
    PLAIN(t, "<|im_end|>", '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>');
    PARSE(t, "<|im_end|", '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|');
    PLAIN(t, "he<tool>he", BUILD_ID_HE, BUILD_ID_USER, BUILD_ID_HE);

    /* User text between template text: parsed outside, plain inside, and no token of both. */
    static const char text[] = "<|im_start|><|im_end|><|im_end|>";
    struct tokens ids = {0};
    const struct tokenizer_span spans[] = {{12, TOKENIZER_SPECIAL_PARSE},
                                           {10, TOKENIZER_SPECIAL_PLAIN},
                                           {10, TOKENIZER_SPECIAL_PARSE}};
    assert_int_equal(tokenizer_encode_spans(t, text, spans, 3, true, &ids, NULL), ERR_OK);
    assert_int_equal(ids.count, 12);
    assert_int_equal(ids.ids[0], BUILD_ID_START);
    assert_int_equal(ids.ids[1], '<');
    assert_int_equal(ids.ids[11], BUILD_ID_END);
    tokens_fini(&ids);
    for (size_t cut = 1; cut < 10; cut++) {
        const struct tokenizer_span halves[] = {{12, TOKENIZER_SPECIAL_PARSE},
                                                {cut, TOKENIZER_SPECIAL_PLAIN},
                                                {20 - cut, TOKENIZER_SPECIAL_PARSE}};
        ids = (struct tokens){0};
        assert_int_equal(tokenizer_encode_spans(t, text, halves, 3, true, &ids, NULL), ERR_OK);
        assert_int_equal(ids.count, 12);
        assert_int_equal(ids.ids[11], BUILD_ID_END);
        tokens_fini(&ids);
    }
    tokenizer_close(t);
}

#define CH(x) ((x) - '!')

/* Of printable characters, one token each, and of user-defined tokens behind them. */
static struct tokenizer *open_users(const char *const *names, size_t n_names)
{
    struct gguf_build b;
    struct tokenizer *t = NULL;
    const char *texts[94 + 16];
    char bytes[94][2];
    int32_t types[94 + 16];
    size_t n = 0;
    assert_true(n_names <= 16);
    gguf_build_init(&b);
    for (char c = '!'; c <= '~'; c++, n++) {
        bytes[n][0] = c;
        bytes[n][1] = 0;
        texts[n] = bytes[n];
        types[n] = 1;
    }
    for (size_t i = 0; i < n_names; i++, n++) {
        texts[n] = names[i];
        types[n] = 4;
    }
    gguf_build_string(&b, "tokenizer.ggml.model", "gpt2");
    gguf_build_string(&b, "tokenizer.ggml.pre", "gpt-2");
    gguf_build_strings(&b, "tokenizer.ggml.tokens", texts, n);
    gguf_build_i32s(&b, "tokenizer.ggml.token_type", types, n);
    gguf_build_strings(&b, "tokenizer.ggml.merges", NULL, 0);
    assert_int_equal(build_and_open(&b, &t, NULL), ERR_OK);
    return t;
}

/* Special tokens that share bytes: the longest of the whole text first, then from the left. */
static void test_longest_special_token_wins(void **state)
{
    (void)state;
    static const char *const names[] = {"<a>", "<a><b>", "b><c><", "<c>", "aaa",  "aa",
                                        "xy",  "yzw",    "zwvu",   "pqr", "rstu", "pq"};
    struct tokenizer *t = open_users(names, sizeof names / sizeof names[0]);
    const int32_t a = CH('~') + 1, ab = a + 1, bc = a + 2, c = a + 3, aaa = a + 4, aa = a + 5;
    const int32_t xy = a + 6, yzw = a + 7, zwvu = a + 8, pqr = a + 9, rstu = a + 10, pq = a + 11;
    PLAIN(t, "<a>", a);
    PLAIN(t, "<a><b>", ab);
    PLAIN(t, "<a><b><c>", ab, c); /* equally long: the left one */
    PLAIN(t, "<b><c><", CH('<'), bc);
    PLAIN(t, "<c><b><c><", c, CH('<'), bc);
    PLAIN(t, "aaaaa", aaa, aa);
    PLAIN(t, "aaaa", aaa, CH('a'));
    PLAIN(t, "aaaaaaa", aaa, aaa, CH('a'));
    PLAIN(t, "xyzw", CH('x'), yzw); /* one that begins later takes bytes from the one before */
    PLAIN(t, "xyzwvu", xy, zwvu);   /* and loses its own to the next */
    PLAIN(t, "xyzwvuxyzw", xy, zwvu, CH('x'), yzw);
    PLAIN(t, "pqrs", pqr, CH('s'));
    PLAIN(t, "pqrstu", pq, rstu); /* what is left of it is a shorter token */
    tokenizer_close(t);
}

/* The rule as it is said: lengths from the longest down, each from left to right, where no byte is
 * taken. */
static void cut_plainly(const char *text, size_t size, const char *const *names, size_t n_names,
                        int32_t *ret_ids)
{
    int32_t at[32];
    size_t length[32] = {0}, n = 0;
    bool taken[32] = {false};
    for (size_t want = size; want > 0; want--) {
        for (size_t start = 0; start + want <= size; start++) {
            for (size_t k = 0; k < n_names; k++) {
                if (strlen(names[k]) != want || memcmp(names[k], text + start, want) != 0 ||
                    memchr(taken + start, true, want) != NULL)
                    continue;
                memset(taken + start, true, want);
                at[start] = CH('~') + 1 + (int32_t)k;
                length[start] = want;
            }
        }
    }
    for (size_t i = 0; i<size; i += length[i]> 0 ? length[i] : 1)
        ret_ids[n++] = length[i] > 0 ? at[i] : CH(text[i]);
    ret_ids[n] = END;
}

static void test_special_tokens_share_bytes_in_every_way(void **state)
{
    (void)state;
    static const char *const names[] = {"ab",   "ba",   "aab",   "bca",   "cab",    "abca",
                                        "ccab", "bbbb", "cabcc", "abcab", "bcabca", "cc"};
    const size_t n_names = sizeof names / sizeof names[0];
    struct tokenizer *t = open_users(names, n_names);
    uint32_t dice = 1;
    for (int round = 0; round < 20000; round++) {
        char text[32];
        int32_t want[33];
        size_t size = 1 + (size_t)round % 31;
        for (size_t i = 0; i < size; i++) {
            dice = dice * 1664525u + 1013904223u;
            text[i] = (char)('a' + (dice >> 16) % 3);
        }
        cut_plainly(text, size, names, n_names, want);
        expect(t, text, size, TOKENIZER_SPECIAL_PLAIN, true, want);
    }
    tokenizer_close(t);
}

static void expect_back(const struct tokenizer *t, const void *bytes, size_t size)
{
    struct tokens ids = {0};
    struct errbuf eb = {{0}};
    struct buf out;
    buf_init(&out);
    if (tokenizer_encode(t, bytes, size, TOKENIZER_SPECIAL_PLAIN, true, &ids, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    for (size_t i = 0; i < ids.count; i++)
        tokenizer_decode(t, ids.ids[i], false, i == 0, &out);
    assert_int_equal(out.size, size);
    assert_memory_equal(out.data, bytes, size);
    buf_fini(&out);
    tokens_fini(&ids);
}

/* Every string of one, two and three bytes out of those that matter, and every pair of bytes. */
static void test_any_bytes_come_back(void **state)
{
    (void)state;
    static const uint8_t kinds[] = {0x00, ' ',  'a',  '\n', '7',  '\'', 0x80, 0xa0, 0xbf,
                                    0xc0, 0xc3, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff};
    for (int i = 0; i < N_PRES; i++) {
        struct tokenizer *t = pres[i] != NULL ? open_bpe(pres[i]) : open_spm(false);
        uint8_t b[5];
        for (unsigned pair = 0; pair < 65536; pair += i == 0 ? 1 : 7) {
            b[0] = (uint8_t)(pair >> 8);
            b[1] = (uint8_t)pair;
            expect_back(t, b, 2);
        }
        const size_t n = sizeof kinds;
        for (size_t k = 0; k < n * n * n * n; k++) {
            b[0] = kinds[k % n];
            b[1] = kinds[k / n % n];
            b[2] = kinds[k / n / n % n];
            b[3] = kinds[k / n / n / n];
            if (k % N_PRES == (size_t)i)
                expect_back(t, b, 4);
        }
        expect_back(t, "\xf4\x90\x80\x80", 4); /* past U+10FFFF */
        expect_back(t, "a\xf0\x9f\x98\x80z\xf0\x9f\x98", 9);
        tokenizer_close(t);
    }
}

static void test_spm_merges_by_score(void **state)
{
    (void)state;
    struct tokenizer *t = open_spm(false);
    enum { SPACE = 259, A, B, AB, SPACE_AB, ABAB, E_ACUTE, TWO_SPACES, LINES, USER };
    PLAIN(t, "ab", AB);
    PLAIN(t, "abab", ABAB);
    PLAIN(t, " ab", SPACE_AB);
    PLAIN(t, "ababab", ABAB, AB);
    PLAIN(t, "a b", A, SPACE, B);
    PLAIN(t, "\xc3\xa9", E_ACUTE);
    PLAIN(t, "\xc3\xa8", 3 + 0xc3, 3 + 0xa8); /* bytes of what has no token */
    PLAIN(t, "\xe9z", 3 + 0xe9, 3 + 'z');
    PLAIN(t, "a\n\nb", A, LINES, B);
    PLAIN(t, "<s>", 3 + '<', 3 + 's', 3 + '>');
    PARSE(t, "<s>ab</s>", 1, AB, 2);
    PARSE(t, "<unk>", 0);
    tokenizer_close(t);

    t = open_spm(true);
    PLAIN(t, "ab", SPACE_AB);
    PLAIN(t, " ab", SPACE, SPACE_AB);
    PLAIN(t, "  ", TWO_SPACES, SPACE);
    expect(t, "ab", 2, TOKENIZER_SPECIAL_PLAIN, false, IDS(AB));
    /* Behind a special token a space stands again. */
    PLAIN(t, "ab[USER]ab", SPACE_AB, USER, SPACE_AB);
    expect(t, "", 0, TOKENIZER_SPECIAL_PLAIN, true, IDS(END));
    struct buf out;
    buf_init(&out);
    tokenizer_decode(t, SPACE_AB, false, true, &out);
    tokenizer_decode(t, SPACE_AB, false, false, &out);
    tokenizer_decode(t, 1, false, false, &out);
    tokenizer_decode(t, 1, true, false, &out);
    tokenizer_decode(t, -1, true, false, &out);
    tokenizer_decode(t, 1 << 20, true, false, &out);
    assert_string_equal(buf_str(&out), "ab ab<s>");
    buf_fini(&out);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_true(tokenizer_adds_bos(t));
    tokenizer_close(t);
}

/* Without byte tokens there is the unknown token, and without that a refusal. */
static void test_spm_without_bytes(void **state)
{
    (void)state;
    static const char *const texts[] = {"<unk>", "\u2581", "a"};
    static const float scores[] = {0, -1, -2};
    for (int unknown = 0; unknown < 2; unknown++) {
        struct gguf_build b;
        struct tokenizer *t = NULL;
        struct tokens ids = {0};
        struct errbuf eb = {{0}};
        const int32_t types[] = {unknown ? 2 : 1, 1, 1};
        gguf_build_init(&b);
        gguf_build_string(&b, "tokenizer.ggml.model", "llama");
        gguf_build_strings(&b, "tokenizer.ggml.tokens", texts, 3);
        gguf_build_f32s(&b, "tokenizer.ggml.scores", scores, 3);
        gguf_build_i32s(&b, "tokenizer.ggml.token_type", types, 3);
        gguf_build_bool(&b, "tokenizer.ggml.add_bos_token", 0);
        gguf_build_bool(&b, "tokenizer.ggml.add_space_prefix", 0);
        assert_int_equal(build_and_open(&b, &t, &eb), ERR_OK);
        if (unknown) {
            PLAIN(t, "a\xc3\xa9 a", 2, 0, 1, 2);
        } else {
            assert_int_equal(tokens_append(&ids, 77), ERR_OK);
            assert_int_equal(
                tokenizer_encode(t, "a\xc3\xa9", 3, TOKENIZER_SPECIAL_PLAIN, true, &ids, &eb),
                ERR_INVALID);
            assert_non_null(strstr(eb.text, "0xc3"));
            assert_int_equal(ids.count, 1); /* what was there before stays, and only that */
        }
        tokens_fini(&ids);
        tokenizer_close(t);
    }
}

/* A vocabulary that lacks a byte: the place is named. */
static void test_bpe_without_a_byte(void **state)
{
    (void)state;
    struct tokenizer *t = NULL;
    struct gguf_build b;
    struct tokens ids = {0};
    struct errbuf eb = {{0}};
    static const char *const texts[] = {"a", "b", "c"};
    static const int32_t types[] = {1, 1, 3};
    gguf_build_init(&b);
    gguf_build_string(&b, "tokenizer.ggml.model", "gpt2");
    gguf_build_string(&b, "tokenizer.ggml.pre", "gpt-2");
    gguf_build_strings(&b, "tokenizer.ggml.tokens", texts, 3);
    gguf_build_i32s(&b, "tokenizer.ggml.token_type", types, 3);
    gguf_build_strings(&b, "tokenizer.ggml.merges", NULL, 0);
    assert_int_equal(build_and_open(&b, &t, &eb), ERR_OK);
    assert_int_equal(tokenizer_encode(t, "ab ab", 5, TOKENIZER_SPECIAL_PLAIN, true, &ids, &eb),
                     ERR_INVALID);
    assert_non_null(strstr(eb.text, "byte 2 of the text is 0x20"));
    /* A control token that is one byte long is no byte token. */
    assert_int_equal(tokenizer_encode(t, "abc", 3, TOKENIZER_SPECIAL_PLAIN, true, &ids, &eb),
                     ERR_INVALID);
    PARSE(t, "abc", 0, 1, 2);
    tokens_fini(&ids);
    tokenizer_close(t);
}

static const char *const repeated[] = {
    "x",         " ",      "7",  "\n",       "\t",           "'",    "<",
    " \n",       "\n ",    "a ", "\xc3\xa9", "\xe2\x96\x81", "\xff", "\xe2\x80",
    "<|im_end|", "<tool>", "'s", "\r\n\t",   "\xe3\x80\x80", "ab"};
enum { N_REPEATED = sizeof repeated / sizeof repeated[0] };

/* Returns how many bytes of `text` it is: whole units. */
static size_t repeat(char *text, const char *unit, size_t size)
{
    size_t unit_size = strlen(unit);
    size -= size % unit_size;
    for (size_t at = 0; at < size; at += unit_size)
        memcpy(text + at, unit, unit_size);
    return size;
}

/* A megabyte of what a bad pattern or merge loop would take hours for; for the splits, of which
 * there are many, a quarter of it. */
static void test_a_megabyte_of_one_thing(void **state)
{
    (void)state;
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE + 16);
    for (int i = 0; i < N_PRES; i++) {
        struct tokenizer *t = pres[i] != NULL ? open_bpe(pres[i]) : open_spm(true);
        for (size_t u = 0; u < N_REPEATED; u++) {
            size_t size = repeat(text, repeated[u], i == 0 || pres[i] == NULL ? SIZE : SIZE / 4);
            struct tokens ids = {0};
            struct errbuf eb = {{0}};
            struct buf out;
            if (tokenizer_encode(t, text, size, TOKENIZER_SPECIAL_PARSE, true, &ids, &eb) != ERR_OK)
                fail_msg("%s %s: %s", tokenizer_kind(t), repeated[u], eb.text);
            assert_true(ids.count <= tokens_most(t, size, TOKENIZER_SPECIAL_PARSE));
            buf_init(&out);
            for (size_t k = 0; k < ids.count; k++)
                tokenizer_decode(t, ids.ids[k], true, k == 0, &out);
            if (strcmp(repeated[u], "\xe2\x96\x81") != 0) {
                /* With a space prefix each piece behind a special token has one. */
                if (pres[i] != NULL || strcmp(repeated[u], "<tool>") != 0)
                    assert_int_equal(out.size, size);
                assert_memory_equal(out.data, text, size);
            }
            buf_fini(&out);
            tokens_fini(&ids);
        }
        tokenizer_close(t);
    }
    free(text);
}

/* Nanoseconds of this thread, not of the clock: what else the machine does hardly counts. */
static uint64_t encode_ns(const struct tokenizer *t, const char *text, size_t size)
{
    struct timespec began, ended;
    struct tokens ids = {0};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &began);
    enum err e = tokenizer_encode(t, text, size, TOKENIZER_SPECIAL_PARSE, true, &ids, NULL);
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
    assert_int_equal(e, ERR_OK);
    tokens_fini(&ids);
    return (uint64_t)((ended.tv_sec - began.tv_sec) * 1000000000 + ended.tv_nsec - began.tv_nsec);
}

/* How many times as long `size` bytes take as a quarter of them; of five tries the least, or the
 * first that is below nine. A run behind which nothing follows can hide what one in a text's middle
 * costs: `last` comes behind both where it is not 0. */
static double encode_ratio(const struct tokenizer *t, char *text, size_t size, char last)
{
    enum { TRIES = 5 };
    double least = INFINITY;
    for (int try = 0; try < TRIES && least > 9.0; try++) {
        uint64_t ns[2];
        for (size_t part = 0; part < 2; part++) {
            size_t n = part == 0 ? size / 4 : size;
            char kept = text[n - 1];
            text[n - 1] = last != 0 ? last : kept;
            ns[part] = encode_ns(t, text, n);
            text[n - 1] = kept;
        }
        least = fmin(least, (double)ns[1] / (double)(ns[0] > 0 ? ns[0] : 1));
    }
    return least;
}

/* Four times the text takes about four times as long, however fast that is, and not sixteen. */
static void test_time_is_in_proportion_to_size(void **state)
{
    (void)state;
    enum { SIZE = 64 << 10 }; /* whoever is quadratic is found out within a minute */
    static const char lasts[] = {0, 'x', '7'};
    char *text = malloc(SIZE);
    for (int i = 0; i < N_PRES; i++) {
        struct tokenizer *t = pres[i] != NULL ? open_bpe(pres[i]) : open_spm(true);
        for (size_t u = 0; u < N_REPEATED; u++) {
            size_t size = repeat(text, repeated[u], SIZE);
            for (size_t k = 0; k < sizeof lasts; k++) {
                double ratio = encode_ratio(t, text, size, lasts[k]);
                if (ratio > 9.0)
                    fail_msg(
                        "%s: %zu bytes of '%s' and '%.1s' take %.1f times as long as a quarter",
                        tokenizer_kind(t), size, repeated[u], &lasts[k], ratio);
            }
        }
        tokenizer_close(t);
    }
    free(text);
}

/* --- vocabularies that lie --- */

enum what { MISSING, U32, BOOL, STRING, STRINGS, I32S, F32S };

static const char *const token_twice[] = {"a", "b", "a"};
static const char *const some_texts[] = {"a", "b", "ab"};
static const char *const left_unknown[] = {"h e", "zz e"};
static const char *const right_unknown[] = {"h zz"};
static const char *const made_unknown[] = {"h z"};
static const char *const no_space[] = {"he"};
static const char *const empty_merge[] = {""};
static const char *const space_only[] = {" "};
static const char *const merge_twice[] = {"h e", "l l", "h e"};
static const int32_t some_types[] = {1, 1, 1};
static const int32_t type_0[BUILD_BPE_TOKENS] = {1, 1, 0};
static const int32_t type_7[BUILD_BPE_TOKENS] = {1, 1, 7};
static const int32_t type_negative[BUILD_BPE_TOKENS] = {-1};
static const int32_t type_byte[BUILD_BPE_TOKENS] = {6};
static char long_text[TOKENIZER_TOKEN_MAX + 2];
static const char *const long_token[] = {long_text};
static float score_nan[269];
static float score_inf[269];
static const float some_scores[3] = {0};

static const struct bad_key {
    bool spm;
    const char *key;
    enum what what;
    const void *value;
    size_t n;
    enum err code;
    const char *says;
} bad_keys[] = {
    {false, "tokenizer.ggml.model", MISSING, NULL, 0, ERR_NOT_FOUND, "'tokenizer.ggml.model'"},
    {false, "tokenizer.ggml.model", STRING, "bert", 0, ERR_UNSUPPORTED,
     "'bert' is not one of gpt2"},
    {false, "tokenizer.ggml.model", U32, NULL, 1, ERR_INVALID, "is u32, not a string"},
    {false, "tokenizer.ggml.pre", MISSING, NULL, 0, ERR_NOT_FOUND, "'tokenizer.ggml.pre'"},
    {false, "tokenizer.ggml.pre", STRING, "superbpe", 0, ERR_UNSUPPORTED,
     "'superbpe' is not one of llama-bpe, smollm, qwen2, gpt-2, default, tekken, gpt-4o, "
     "deepseek-llm, deepseek-coder, deepseek-v3, falcon"},
    {false, "tokenizer.ggml.pre", STRING, "Tekken", 0, ERR_UNSUPPORTED, "'Tekken' is not one of"},
    {false, "tokenizer.ggml.pre", STRING, "", 0, ERR_UNSUPPORTED, "'' is not one of llama-bpe"},
    {false, "tokenizer.ggml.tokens", MISSING, NULL, 0, ERR_NOT_FOUND, "'tokenizer.ggml.tokens'"},
    {false, "tokenizer.ggml.tokens", STRINGS, NULL, 0, ERR_INVALID, "has 0 tokens"},
    {false, "tokenizer.ggml.tokens", STRINGS, some_texts, 3, ERR_INVALID, "has 268 elements, but"},
    {false, "tokenizer.ggml.tokens", I32S, some_types, 3, ERR_INVALID, "is an array of i32, not"},
    {false, "tokenizer.ggml.tokens", STRINGS, long_token, 1, ERR_TOO_LARGE,
     "token 0 has 1025 bytes"},
    {false, "tokenizer.ggml.token_type", MISSING, NULL, 0, ERR_NOT_FOUND, "token_type'"},
    {false, "tokenizer.ggml.token_type", I32S, some_types, 3, ERR_INVALID, "has 3 elements, but"},
    {false, "tokenizer.ggml.token_type", F32S, some_scores, 3, ERR_INVALID, "an array of f32, not"},
    {false, "tokenizer.ggml.token_type", I32S, type_0, 268, ERR_INVALID, "element 2 is 0, not"},
    {false, "tokenizer.ggml.token_type", I32S, type_7, 268, ERR_INVALID, "element 2 is 7, not"},
    {false, "tokenizer.ggml.token_type", I32S, type_negative, 268, ERR_INVALID, "element 0 is -1"},
    {false, "tokenizer.ggml.token_type", I32S, type_byte, 268, ERR_INVALID, "element 1 is 0"},
    {false, "tokenizer.ggml.merges", MISSING, NULL, 0, ERR_NOT_FOUND, "'tokenizer.ggml.merges'"},
    {false, "tokenizer.ggml.merges", I32S, some_types, 3, ERR_INVALID, "is an array of i32, not"},
    {false, "tokenizer.ggml.merges", STRINGS, left_unknown, 2, ERR_INVALID,
     "element 1, 'zz e', begins with what is not a token"},
    {false, "tokenizer.ggml.merges", STRINGS, right_unknown, 1, ERR_INVALID,
     "ends with what is not"},
    {false, "tokenizer.ggml.merges", STRINGS, made_unknown, 1, ERR_INVALID, "makes what is not"},
    {false, "tokenizer.ggml.merges", STRINGS, no_space, 1, ERR_INVALID, "is not two texts"},
    {false, "tokenizer.ggml.merges", STRINGS, empty_merge, 1, ERR_INVALID, "element 0, '', is not"},
    {false, "tokenizer.ggml.merges", STRINGS, space_only, 1, ERR_INVALID, "' ', is not two texts"},
    {false, "tokenizer.ggml.merges", STRINGS, merge_twice, 3, ERR_INVALID, "elements 0 and 2 are"},
    {false, "tokenizer.ggml.merges", STRINGS, long_token, 1, ERR_INVALID, "element 0"},
    {false, "tokenizer.ggml.bos_token_id", U32, NULL, 268, ERR_INVALID, "there are 268 tokens"},
    {false, "tokenizer.ggml.bos_token_id", STRING, "1", 0, ERR_INVALID, "bos_token_id' is string"},
    {false, "tokenizer.ggml.eos_token_id", U32, NULL, UINT32_MAX, ERR_INVALID,
     "is 4294967295, but"},
    {false, "tokenizer.ggml.unknown_token_id", U32, NULL, 1000, ERR_INVALID, "unknown_token_id'"},
    {false, "tokenizer.ggml.eot_token_id", U32, NULL, 1000, ERR_INVALID, "eot_token_id' is 1000"},
    {false, "tokenizer.ggml.bos_token_id", MISSING, NULL, 0, ERR_INVALID, "prompts are to begin"},
    {false, "tokenizer.ggml.add_bos_token", U32, NULL, 1, ERR_INVALID, "add_bos_token' is u32"},
    {false, "tokenizer.ggml.add_space_prefix", STRING, "", 0, ERR_INVALID, "add_space_prefix'"},
    {true, "tokenizer.ggml.scores", MISSING, NULL, 0, ERR_NOT_FOUND, "'tokenizer.ggml.scores'"},
    {true, "tokenizer.ggml.scores", F32S, some_scores, 3, ERR_INVALID, "has 3 elements, but"},
    {true, "tokenizer.ggml.scores", I32S, some_types, 3, ERR_INVALID, "is an array of i32, not"},
    {true, "tokenizer.ggml.scores", F32S, score_nan, 269, ERR_INVALID, "element 260 is"},
    {true, "tokenizer.ggml.scores", F32S, score_inf, 269, ERR_INVALID, "element 7 is inf"},
};

static void put_key(struct gguf_build *b, const struct bad_key *k)
{
    switch (k->what) {
    case MISSING:
        break;
    case U32:
        gguf_build_u32(b, k->key, (uint32_t)k->n);
        break;
    case BOOL:
        gguf_build_bool(b, k->key, 1);
        break;
    case STRING:
        gguf_build_string(b, k->key, k->value);
        break;
    case STRINGS:
        gguf_build_strings(b, k->key, k->value, k->n);
        break;
    case I32S:
        gguf_build_i32s(b, k->key, k->value, k->n);
        break;
    case F32S:
        gguf_build_f32s(b, k->key, k->value, k->n);
        break;
    }
}

static void test_refuses_vocabularies_that_lie(void **state)
{
    (void)state;
    size_t failed = 0;
    memset(long_text, 'a', sizeof long_text - 1);
    score_nan[260] = NAN;
    score_inf[7] = INFINITY;
    for (size_t i = 0; i < sizeof bad_keys / sizeof bad_keys[0]; i++) {
        const struct bad_key *bad = &bad_keys[i];
        struct gguf_build b;
        struct tokenizer *t = NULL;
        struct errbuf eb = {{0}};
        gguf_build_init(&b);
        put_key(&b, bad);
        b.skip[0] = bad->key;
        if (bad->spm)
            gguf_build_spm(&b);
        else
            gguf_build_bpe(&b, "llama-bpe");
        enum err e = build_and_open(&b, &t, &eb);
        if (e != bad->code || strstr(eb.text, bad->says) == NULL || t != NULL) {
            print_error("%s (row %zu): %s '%s', expected %s '%s'\n", bad->key, i, err_name(e),
                        eb.text, err_name(bad->code), bad->says);
            failed++;
        }
        tokenizer_close(t);
    }
    assert_int_equal(failed, 0);
}

static void test_refuses_a_token_twice(void **state)
{
    (void)state;
    struct gguf_build b;
    struct tokenizer *t = NULL;
    struct errbuf eb = {{0}};
    gguf_build_init(&b);
    gguf_build_strings(&b, "tokenizer.ggml.tokens", token_twice, 3);
    gguf_build_i32s(&b, "tokenizer.ggml.token_type", some_types, 3);
    b.skip[0] = "tokenizer.ggml.tokens";
    b.skip[1] = "tokenizer.ggml.token_type";
    gguf_build_bpe(&b, "gpt-2");
    assert_int_equal(build_and_open(&b, &t, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "tokens 0 and 2 are both 'a'"));
}

/* Words that end an answer are control tokens, whatever the file calls them: a user could write
 * them otherwise. */
static void test_ends_are_control_tokens(void **state)
{
    (void)state;
    static const int32_t normal[BUILD_BPE_TOKENS] = {0};
    int32_t types[BUILD_BPE_TOKENS];
    struct gguf_build b;
    struct tokenizer *t = NULL;
    struct errbuf eb = {{0}};
    memcpy(types, normal, sizeof types);
    for (size_t i = 0; i < BUILD_BPE_TOKENS; i++)
        types[i] = 1;
    types[BUILD_ID_END] = 4;
    gguf_build_init(&b);
    gguf_build_i32s(&b, "tokenizer.ggml.token_type", types, BUILD_BPE_TOKENS);
    b.skip[0] = "tokenizer.ggml.token_type";
    gguf_build_bpe(&b, "gpt-2");
    assert_int_equal(build_and_open(&b, &t, &eb), ERR_OK);
    PLAIN(t, "<|im_end|>", '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>');
    PARSE(t, "<|im_end|>", BUILD_ID_END);
    assert_true(tokenizer_is_end(t, BUILD_ID_END));
    assert_false(tokenizer_is_end(t, BUILD_ID_START));
    assert_false(tokenizer_is_end(t, -1));
    assert_false(tokenizer_is_end(t, BUILD_BPE_TOKENS));
    tokenizer_close(t);
}

/* No way of making a control token out of plain text by merges. */
static void test_merges_make_no_control_token(void **state)
{
    (void)state;
    int32_t types[BUILD_BPE_TOKENS];
    static const char *const names[] = {"gpt-2", "llama-bpe"};
    for (size_t i = 0; i < BUILD_BPE_TOKENS; i++)
        types[i] = 1;
    types[BUILD_ID_HELLO] = 3;
    for (int i = 0; i < 2; i++) {
        struct gguf_build b;
        struct tokenizer *t = NULL;
        gguf_build_init(&b);
        gguf_build_i32s(&b, "tokenizer.ggml.token_type", types, BUILD_BPE_TOKENS);
        b.skip[0] = "tokenizer.ggml.token_type";
        gguf_build_bpe(&b, names[i]);
        assert_int_equal(build_and_open(&b, &t, NULL), ERR_OK);
        PLAIN(t, "hello", BUILD_ID_HELL, 'o');
        PARSE(t, "hello", BUILD_ID_HELLO);
        tokenizer_close(t);
    }
}

static void test_digest_names_what_decides_ids(void **state)
{
    (void)state;
    uint8_t a[32];
    uint8_t b[32];
    struct tokenizer *t = open_bpe("gpt-2");
    tokenizer_digest(t, a);
    tokenizer_close(t);
    t = open_bpe("gpt-2");
    tokenizer_digest(t, b);
    assert_memory_equal(a, b, 32);
    tokenizer_close(t);
    t = open_bpe("qwen2");
    tokenizer_digest(t, b);
    assert_memory_not_equal(a, b, 32);
    tokenizer_close(t);
    /* Two names of one split are one tokenizer. */
    t = open_bpe("llama3");
    tokenizer_digest(t, a);
    tokenizer_close(t);
    t = open_bpe("llama-bpe");
    tokenizer_digest(t, b);
    assert_memory_equal(a, b, 32);
    tokenizer_close(t);
    t = open_spm(false);
    tokenizer_digest(t, a);
    tokenizer_close(t);
    t = open_spm(true);
    tokenizer_digest(t, b);
    assert_memory_not_equal(a, b, 32);
    tokenizer_close(t);
    char version[32];
    tokenizer_unicode_version(version);
    assert_true(version[0] >= '1' && version[0] <= '9');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bpe_merges_by_rank),
        cmocka_unit_test(test_bpe_whole_words_come_first_for_llama3),
        cmocka_unit_test(test_control_tokens_only_where_they_are_parsed),
        cmocka_unit_test(test_longest_special_token_wins),
        cmocka_unit_test(test_special_tokens_share_bytes_in_every_way),
        cmocka_unit_test(test_any_bytes_come_back),
        cmocka_unit_test(test_spm_merges_by_score),
        cmocka_unit_test(test_spm_without_bytes),
        cmocka_unit_test(test_bpe_without_a_byte),
        cmocka_unit_test(test_a_megabyte_of_one_thing),
        cmocka_unit_test(test_time_is_in_proportion_to_size),
        cmocka_unit_test(test_refuses_vocabularies_that_lie),
        cmocka_unit_test(test_refuses_a_token_twice),
        cmocka_unit_test(test_ends_are_control_tokens),
        cmocka_unit_test(test_merges_make_no_control_token),
        cmocka_unit_test(test_digest_names_what_decides_ids),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
