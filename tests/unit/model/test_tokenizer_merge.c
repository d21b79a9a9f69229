/*
 * Merges against the plainest way of doing them: look at all pairs, merge the best, begin again.
 * Over random vocabularies whose ranks and scores have no order in them, so that a merge often
 * makes a better pair than the one it was, and with equal scores; over words of all lengths, random
 * ones and runs, since short, long and repetitive words go other ways.
 */
#include "tests/unit/model/gguf_build.h"

#include "worker/model/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LETTERS_MAX = 8, TOKENS_MAX = 200, TEXT_MAX = 24, WORD_MAX = 3000, ROUNDS = 80 };

struct vocabulary {
    char texts[TOKENS_MAX][TEXT_MAX];
    float scores[TOKENS_MAX];
    int n;
    int n_letters;
    struct {
        int left, right;
    } merges[TOKENS_MAX]; /* by rank */
    int n_merges;
    /* How good a pair is, the smallest first, and what it makes; INT32_MAX where it makes nothing.
     */
    int orders[TOKENS_MAX][TOKENS_MAX];
    int made[TOKENS_MAX][TOKENS_MAX];
};

static uint32_t draw(uint64_t *state, uint32_t below)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((*state >> 33) % below);
}

static int find(const struct vocabulary *v, const char *text, size_t size)
{
    for (int i = 0; i < v->n; i++) {
        if (strlen(v->texts[i]) == size && memcmp(v->texts[i], text, size) == 0)
            return i;
    }
    return -1;
}

/* Letters, then tokens of two others each; ranks are shuffled, scores often equal. */
static void make(struct vocabulary *v, uint64_t *state)
{
    memset(v, 0, sizeof *v);
    v->n_letters = draw(state, 2) == 0 ? 3 : LETTERS_MAX;
    for (; v->n < v->n_letters; v->n++)
        v->texts[v->n][0] = (char)('a' + v->n);
    uint32_t n_scores = draw(state, 2) == 0 ? 8 : 60;
    int want = v->n + 4 + (int)draw(state, (uint32_t)(TOKENS_MAX - v->n - 4));
    for (int tries = 0; v->n < want && tries < 1000; tries++) {
        /* Short ones more often, or words would have little to merge. */
        int left = (int)draw(state, 1 + draw(state, (uint32_t)v->n));
        int right = (int)draw(state, 1 + draw(state, (uint32_t)v->n));
        char text[2 * TEXT_MAX];
        (void)snprintf(text, sizeof text, "%s%s", v->texts[left], v->texts[right]);
        if (strlen(text) >= TEXT_MAX || find(v, text, strlen(text)) >= 0)
            continue;
        memcpy(v->texts[v->n], text, strlen(text));
        v->scores[v->n++] = -(float)draw(state, n_scores);
        v->merges[v->n_merges].left = left;
        v->merges[v->n_merges++].right = right;
    }
    for (int i = v->n_merges - 1; i > 0 && draw(state, 4) > 0; i--) {
        int j = (int)draw(state, (uint32_t)i + 1);
        int left = v->merges[i].left;
        int right = v->merges[i].right;
        v->merges[i] = v->merges[j];
        v->merges[j].left = left;
        v->merges[j].right = right;
    }
}

static struct tokenizer *open_vocabulary(const struct vocabulary *v, bool spm)
{
    struct gguf_build b;
    struct buf file;
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct errbuf eb = {{0}};
    const char *texts[TOKENS_MAX + 1];
    const char *merges[TOKENS_MAX];
    char merge_texts[TOKENS_MAX][2 * TEXT_MAX];
    int32_t types[TOKENS_MAX + 1];
    float scores[TOKENS_MAX + 1] = {0};
    for (int i = 0; i < v->n; i++) {
        texts[i] = v->texts[i];
        types[i] = 1;
        scores[i] = v->scores[i];
    }
    texts[v->n] = "\u2581";
    types[v->n] = 1;
    for (int i = 0; i < v->n_merges; i++) {
        (void)snprintf(merge_texts[i], sizeof merge_texts[i], "%s %s", v->texts[v->merges[i].left],
                       v->texts[v->merges[i].right]);
        merges[i] = merge_texts[i];
    }
    gguf_build_init(&b);
    gguf_build_string(&b, "tokenizer.ggml.model", spm ? "llama" : "gpt2");
    gguf_build_string(&b, "tokenizer.ggml.pre", "gpt-2");
    gguf_build_bool(&b, "tokenizer.ggml.add_bos_token", 0);
    gguf_build_bool(&b, "tokenizer.ggml.add_space_prefix", 0);
    gguf_build_strings(&b, "tokenizer.ggml.tokens", texts, (size_t)v->n + 1);
    gguf_build_i32s(&b, "tokenizer.ggml.token_type", types, (size_t)v->n + 1);
    gguf_build_f32s(&b, "tokenizer.ggml.scores", scores, (size_t)v->n + 1);
    gguf_build_strings(&b, "tokenizer.ggml.merges", merges, (size_t)v->n_merges);
    gguf_build_finish(&b, &file);
    if (gguf_open_memory(&g, file.data, file.size, &eb) != ERR_OK ||
        tokenizer_open(&t, g, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    gguf_close(g);
    buf_fini(&file);
    gguf_build_fini(&b);
    return t;
}

static void fill_pairs(struct vocabulary *v, bool spm)
{
    for (int l = 0; l < v->n; l++) {
        for (int r = 0; r < v->n; r++) {
            char text[2 * TEXT_MAX];
            (void)snprintf(text, sizeof text, "%s%s", v->texts[l], v->texts[r]);
            int made = find(v, text, strlen(text));
            v->made[l][r] = made;
            v->orders[l][r] = spm && made >= 0 ? (int)-v->scores[made] : INT32_MAX;
        }
    }
    for (int rank = 0; rank < v->n_merges && !spm; rank++)
        v->orders[v->merges[rank].left][v->merges[rank].right] = rank;
}

static size_t merge_plainly(const struct vocabulary *v, const char *word, size_t size, int *ids)
{
    size_t n = size;
    for (size_t i = 0; i < n; i++)
        ids[i] = word[i] - 'a';
    for (;;) {
        size_t best = n;
        int order = INT32_MAX;
        for (size_t i = 0; i + 1 < n; i++) {
            if (v->orders[ids[i]][ids[i + 1]] < order) {
                order = v->orders[ids[i]][ids[i + 1]];
                best = i;
            }
        }
        if (best == n)
            return n;
        ids[best] = v->made[ids[best]][ids[best + 1]];
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
    }
}

static size_t make_word(const struct vocabulary *v, uint64_t *state, char *word)
{
    static const uint32_t sizes[] = {4, 30, 60, 400, WORD_MAX};
    size_t size = 1 + draw(state, sizes[draw(state, 5)]);
    uint32_t kind = draw(state, 3);
    size_t period = 1 + draw(state, 4);
    for (size_t i = 0; i < size; i++) {
        bool repeats = kind > 0 && i >= period && (kind == 1 || draw(state, 50) > 0);
        word[i] = repeats ? word[i - period] : (char)('a' + draw(state, (uint32_t)v->n_letters));
    }
    return size;
}

static void check_family(bool spm)
{
    static char word[WORD_MAX + 1];
    static int want[WORD_MAX + 1];
    uint64_t state = spm ? 7 : 8;
    for (int round = 0; round < ROUNDS; round++) {
        static struct vocabulary v;
        make(&v, &state);
        fill_pairs(&v, spm);
        struct tokenizer *t = open_vocabulary(&v, spm);
        for (int i = 0; i < 12; i++) {
            struct tokens ids = {0};
            size_t size = make_word(&v, &state, word);
            size_t n = merge_plainly(&v, word, size, want);
            assert_int_equal(
                tokenizer_encode(t, word, size, TOKENIZER_SPECIAL_PLAIN, true, &ids, NULL), ERR_OK);
            bool equal = ids.count == n;
            for (size_t k = 0; equal && k < n; k++)
                equal = ids.ids[k] == want[k];
            if (!equal)
                fail_msg("round %d, word %d: %zu ids for %zu of '%.*s'", round, i, ids.count, n,
                         (int)size, word);
            tokens_fini(&ids);
        }
        tokenizer_close(t);
    }
}

static void test_bpe_merges_as_the_plain_way_does(void **state)
{
    (void)state;
    check_family(false);
}

static void test_spm_merges_as_the_plain_way_does(void **state)
{
    (void)state;
    check_family(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bpe_merges_as_the_plain_way_does),
        cmocka_unit_test(test_spm_merges_as_the_plain_way_does),
    };
    return cmocka_run_group_tests_name("tokenizer merges", tests, NULL, NULL);
}
