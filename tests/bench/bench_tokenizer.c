/*
 * bench_tokenizer [--against PROGRAM] FILE...: megabytes a second of each vocabulary's tokenizer on
 * a megabyte of each kind of text. The aim is 5 MB/s for every kind, and for runs of one character
 * no less than for prose. Processor time of this thread, the best of some runs, so that a busy
 * machine counts little. PROGRAM is another engine's: `PROGRAM FILE TEXTFILE` prints its seconds
 * and how many ids it made (llama_tokenizer.c).
 */
#include "common/buf.h"
#include "common/check.h"
#include "common/err.h"
#include "worker/model/gguf.h"
#include "worker/model/tokenizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TEXT_SIZE ((size_t)1 << 20)
#define RUNS      5

/* --- texts --- */

static uint32_t draw(uint64_t *state, uint32_t below)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((*state >> 33) % below);
}

/* English words of usual lengths; one in eight is made up, so that no cache of words holds all. */
static void fill_prose(struct buf *b)
{
    static const char *const words[] = {
        "the",     "of",      "and",      "to",      "in",      "is",      "that",       "for",
        "it",      "was",     "with",     "be",      "by",      "on",      "not",        "this",
        "from",    "had",     "they",     "which",   "one",     "were",    "would",      "their",
        "been",    "has",     "who",      "will",    "more",    "out",     "about",      "than",
        "between", "during",  "however",  "another", "through", "against", "because",    "without",
        "weather", "machine", "language", "morning", "garden",  "letters", "government", "possible",
        "whether", "thought", "question", "country", "history", "evening", "important",  "children",
    };
    static const char *const syllables[] = {"ka", "ro",  "min", "tel", "va",  "shu", "por", "end",
                                            "li", "gra", "no",  "bis", "que", "ty",  "ux",  "or"};
    static const char *const ends[] = {", ", ". ", ".\n", "; ", "? ", ".\n\n", "! ", " (", ") "};
    uint64_t state = 1;
    while (b->size < TEXT_SIZE) {
        if (draw(&state, 8) == 0) {
            for (uint32_t i = draw(&state, 4) + 1; i > 0; i--)
                buf_append_str(b, syllables[draw(&state, 16)]);
        } else {
            buf_append_str(b, words[draw(&state, sizeof words / sizeof words[0])]);
        }
        if (draw(&state, 50) == 0) {
            char number[16];
            (void)snprintf(number, sizeof number, " %" PRIu32, draw(&state, 100000));
            buf_append_str(b, number);
        }
        buf_append_str(b, draw(&state, 9) > 0 ? " " : ends[draw(&state, 9)]);
    }
}

static void fill_code(struct buf *b)
{
    static const char *const lines[] = {
        "    for (size_t i = 0; i < count; i++) {\n",
        "        total += items[i].size * 0x1f;\n",
        "    }\n",
        "\tif err != nil { return fmt.Errorf(\"%w: %s\", err, path) }\n",
        "def __init__(self, *args, **kwargs) -> None:\n",
        "        self.items = [x for x in args if x is not None]\n",
        "\n",
        "// ---------------------------------------------------------------\n",
        "  {\"id\": 1234567, \"name\": \"caf\\u00e9\", \"tags\": [\"a\", \"b\"]},\n",
    };
    uint64_t state = 2;
    while (b->size < TEXT_SIZE)
        buf_append_str(b, lines[draw(&state, sizeof lines / sizeof lines[0])]);
}

static void append_code_point(struct buf *b, uint32_t code)
{
    if (code < 0x800) {
        buf_append_byte(b, (uint8_t)(0xc0u | code >> 6));
    } else {
        if (code < 0x10000) {
            buf_append_byte(b, (uint8_t)(0xe0u | code >> 12));
        } else {
            buf_append_byte(b, (uint8_t)(0xf0u | code >> 18));
            buf_append_byte(b, (uint8_t)(0x80u | (code >> 12 & 0x3fu)));
        }
        buf_append_byte(b, (uint8_t)(0x80u | (code >> 6 & 0x3fu)));
    }
    buf_append_byte(b, (uint8_t)(0x80u | (code & 0x3fu)));
}

/* Characters drawn from `count` at `first`, with a sign of `ends` now and then where there is one.
 */
static void fill_drawn(struct buf *b, uint32_t first, uint32_t count, const char *end)
{
    uint64_t state = 3;
    while (b->size < TEXT_SIZE) {
        append_code_point(b, first + draw(&state, count));
        if (end != NULL && draw(&state, 12) == 0)
            buf_append_str(b, end);
    }
}

static void fill_cjk(struct buf *b)
{
    fill_drawn(b, 0x4e00, 3000, "\u3002");
}

/* Ideographs without anything between them: one word of a megabyte. */
static void fill_cjk_run(struct buf *b)
{
    fill_drawn(b, 0x4e00, 3000, NULL);
}

static void fill_cyrillic(struct buf *b)
{
    fill_drawn(b, 0x430, 32, " ");
}

static void fill_emoji(struct buf *b)
{
    fill_drawn(b, 0x1f600, 64, NULL);
}

static void fill_run(struct buf *b, const char *unit)
{
    while (b->size < TEXT_SIZE)
        buf_append_str(b, unit);
}

struct text_kind {
    const char *name;
    void (*fill)(struct buf *b);
    const char *unit; /* repeated, where there is no `fill` */
};

static const struct text_kind kinds[] = {
    {"prose", fill_prose, NULL},
    {"code", fill_code, NULL},
    {"cyrillic", fill_cyrillic, NULL},
    {"cjk", fill_cjk, NULL},
    {"cjk-run", fill_cjk_run, NULL},
    {"emoji", fill_emoji, NULL},
    {"one-letter", NULL, "a"},
    {"one-capital", NULL, "A"},
    {"spaces", NULL, " "},
    {"digits", NULL, "7"},
    {"newlines", NULL, "\n"},
    {"tabs", NULL, "\t"},
    {"one-emoji", NULL, "\U0001f600"},
    {"one-cjk", NULL, "\u4e2d"},
    {"punctuation", NULL, "!"},
    {"letters-ab", NULL, "ab"},
    {"space-newline", NULL, " \n"},
    {"apostrophes", NULL, "'"},
};

static void fill(const struct text_kind *kind, struct buf *b)
{
    buf_clear(b);
    if (kind->fill != NULL)
        kind->fill(b);
    else
        fill_run(b, kind->unit);
    CHECK(!b->failed);
}

/* --- measuring --- */

static double now_s(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds of the other engine for the same text, and a mark where it makes another number of ids.
 */
static void print_against(const char *program, const char *model, const struct buf *b, double our_s,
                          size_t n_ids)
{
    char path[] = "/tmp/bench_tokenizer.XXXXXX";
    char command[1024];
    double s = 0;
    size_t n = 0;
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, b->data, b->size) == (ssize_t)b->size && close(fd) == 0);
    (void)snprintf(command, sizeof command, "'%s' '%s' '%s' 2>/dev/null", program, model, path);
    FILE *pipe = popen(command, "r");
    if (pipe != NULL && fscanf(pipe, "%lf %zu", &s, &n) == 2)
        printf("   llama.cpp %6.1f MB/s, ratio %5.1f%s", (double)b->size / s / 1e6, s / our_s,
               n == n_ids ? "" : ", other ids");
    else
        printf("   llama.cpp gives no answer");
    if (pipe != NULL)
        (void)pclose(pipe);
    (void)unlink(path);
}

struct bench {
    const struct tokenizer *t;
    const char *path;
    const char *against; /* NULL for none */
};

static enum err bench_text(const struct bench *bench, const struct text_kind *kind, struct buf *b,
                           double *ret_mb_s, struct errbuf *eb)
{
    const struct tokenizer *t = bench->t;
    struct tokens ids = {0};
    struct buf back;
    double best_s = 1e9;
    double decode_s;
    enum err err = ERR_OK;

    fill(kind, b);
    buf_init(&back);
    for (int run = 0; run < RUNS && err == ERR_OK; run++) {
        ids.count = 0;
        double start_s = now_s();
        err = tokenizer_encode(t, b->data, b->size, TOKENIZER_SPECIAL_PLAIN, true, &ids, eb);
        double s = now_s() - start_s;
        best_s = s < best_s ? s : best_s;
    }
    if (err != ERR_OK)
        goto out;
    decode_s = now_s();
    for (size_t i = 0; i < ids.count; i++)
        tokenizer_decode(t, ids.ids[i], false, i == 0, &back);
    decode_s = now_s() - decode_s;
    if (back.size != b->size || memcmp(back.data, b->data, b->size) != 0) {
        err = err_set(eb, ERR_INTERNAL, "the text does not come back");
        goto out;
    }
    *ret_mb_s = (double)b->size / best_s / 1e6;
    printf("  %-14s %8zu tokens   encode %7.1f MB/s   decode %7.1f MB/s", kind->name, ids.count,
           *ret_mb_s, (double)b->size / decode_s / 1e6);
    if (bench->against != NULL)
        print_against(bench->against, bench->path, b, best_s, ids.count);
    putchar('\n');
    (void)fflush(stdout);
out:
    tokens_fini(&ids);
    buf_fini(&back);
    return err;
}

static int bench_file(const char *path, const char *against)
{
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct errbuf eb = {{0}};
    struct buf b;
    double prose_mb_s = 0;
    double least_mb_s = 1e9;

    buf_init(&b);
    double start_s = now_s();
    enum err err = gguf_open_file(&g, path, true, &eb);
    if (err == ERR_OK)
        err = tokenizer_open(&t, g, &eb);
    if (err == ERR_OK)
        printf("%s: %s, %" PRId32 " tokens, opened in %.0f ms\n", path, tokenizer_kind(t),
               tokenizer_vocab_size(t), (now_s() - start_s) * 1e3);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] && err == ERR_OK; i++) {
        double mb_s = 0;
        err = bench_text(&(struct bench){t, path, against}, &kinds[i], &b, &mb_s, &eb);
        if (err == ERR_INVALID) {
            printf("  %-14s not in this vocabulary: %s\n", kinds[i].name, eb.text);
            err = ERR_OK;
            continue;
        }
        if (i == 0)
            prose_mb_s = mb_s;
        least_mb_s = mb_s < least_mb_s ? mb_s : least_mb_s;
    }
    if (err == ERR_OK)
        printf("  slowest %.1f MB/s (aim 5), %.2f of prose\n", least_mb_s, least_mb_s / prose_mb_s);
    else
        (void)fprintf(stderr, "bench_tokenizer: %s\n", eb.text);
    tokenizer_close(t);
    gguf_close(g);
    buf_fini(&b);
    return err == ERR_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    static char *small[] = {"tests/vectors/mini_bpe.gguf", "tests/vectors/mini_spm.gguf"};
    const char *against = NULL;
    int rc = 0;
    argv++;
    argc--;
    if (argc > 1 && strcmp(argv[0], "--against") == 0) {
        against = argv[1];
        argv += 2;
        argc -= 2;
    }
    char **paths = argc > 0 ? argv : small;
    int n_paths = argc > 0 ? argc : 2;
    for (int i = 0; i < n_paths; i++)
        rc |= bench_file(paths[i], against);
    return rc;
}
