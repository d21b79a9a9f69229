/* stream: what is handed out after each token, for every way to cut a text into tokens. */
#include "common/limits.h"
#include "common/utf8.h"
#include "worker/engine/stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TOKENS_MAX 8

/* After the k-th push `out[k]` is handed out (NULL: nothing); after the end `rest`. */
static const struct row {
    const char *what;
    const char *stops[3];
    const char *tokens[TOKENS_MAX];
    const char *out[TOKENS_MAX];
    const char *rest;
    bool stopped;
} rows[] = {
    {"plain text goes at once", {0}, {"Hel", "lo"}, {"Hel", "lo"}, NULL, false},
    {"a token without bytes", {0}, {"a", "", "b"}, {"a", "", "b"}, NULL, false},
    {"a character in two tokens", {0}, {"x\xE2\x82", "\xAC"}, {NULL, "x\xE2\x82\xAC"}, NULL, false},
    {"four tokens, one character",
     {0},
     {"\xF0", "\x9F", "\x98", "\x80"},
     {NULL, NULL, NULL, "\xF0\x9F\x98\x80"},
     NULL,
     false},
    {"a character that never ends goes at the end",
     {0},
     {"a\xE2", "\x82"},
     {NULL, NULL},
     "a\xE2\x82",
     false},
    {"a broken byte goes at once", {0}, {"a\xFF", "b"}, {"a\xFF", "b"}, NULL, false},
    {"a lone continuation byte", {0}, {"\x80", "\xBF"}, {"\x80", "\xBF"}, NULL, false},
    {"F4 90 can be nothing",
     {0},
     {"\xF4", "\x90\x80\x80"},
     {NULL, "\xF4\x90\x80\x80"},
     NULL,
     false},
    {"a surrogate is broken by its second byte",
     {0},
     {"\xED", "\xA0"},
     {NULL, "\xED\xA0"},
     NULL,
     false},
    {"overlong E0 80", {0}, {"\xE0", "\x80"}, {NULL, "\xE0\x80"}, NULL, false},
    {"a new character breaks the old one",
     {0},
     {"\xE2\x82", "a"},
     {NULL, "\xE2\x82"
            "a"},
     NULL,
     false},
    {"two half characters", {0}, {"\xE2\x82", "\xC3"}, {NULL, "\xE2\x82"}, "\xC3", false},

    {"a stop string in one token", {"STOP"}, {"a STOP b"}, {"a "}, NULL, true},
    {"across tokens", {"STOP"}, {"aS", "TO", "P!"}, {NULL, NULL, "a"}, NULL, true},
    {"a beginning that comes to nothing", {"STOP"}, {"aS", "TX"}, {NULL, "aSTX"}, NULL, false},
    {"tokens before the beginning go", {"STOP"}, {"a", "S", "T"}, {"a", NULL, NULL}, "ST", false},
    {"a beginning inside a beginning",
     {"aab"},
     {"a", "a", "a", "b"},
     {NULL, NULL, "a", ""},
     NULL,
     true},
    {"the first completed wins", {"abc", "b"}, {"abc"}, {"a"}, NULL, true},
    {"also when the other is longer", {"xabc", "ab"}, {"xabc"}, {"x"}, NULL, true},
    {"of two completed together the longer", {"c", "abc"}, {"xabc"}, {"x"}, NULL, true},
    {"nothing before the stop", {"\n"}, {"\n"}, {""}, NULL, true},
    {"the stop's first byte is inside a character",
     {"\xAC!"},
     {"\xE2\x82\xAC", "?"},
     {NULL, "\xE2\x82\xAC?"},
     NULL,
     false},
    {"a stop waits longer than a character",
     {"\xE2\x82\xAC!"},
     {"\xE2", "\x82\xAC", "!"},
     {NULL, NULL, ""},
     NULL,
     true},
    {"half a character before a beginning",
     {"ab"},
     {"\xE2\x82", "\xAC"
                  "a"},
     {NULL, NULL},
     "\xE2\x82\xAC"
     "a",
     false},
};

static struct stream open_stream(const struct row *row)
{
    struct sampling_stop stops[3];
    size_t n = 0;
    struct stream s;

    for (; n < 3 && row->stops[n] != NULL; n++)
        stops[n] = (struct sampling_stop){row->stops[n], strlen(row->stops[n])};
    assert_int_equal(stream_init(&s, stops, n, NULL), ERR_OK);
    return s;
}

static void check_taken(struct stream *s, const struct row *row, const char *expect)
{
    struct stream_piece piece;

    if (!stream_take(s, &piece)) {
        if (expect != NULL)
            fail_msg("%s: nothing, not '%s'", row->what, expect);
        return;
    }
    if (expect == NULL)
        fail_msg("%s: '%.*s', not nothing", row->what, (int)piece.text_size, piece.text);
    if (piece.text_size != strlen(expect) || memcmp(piece.text, expect, piece.text_size) != 0)
        fail_msg("%s: '%.*s', not '%s'", row->what, (int)piece.text_size, piece.text, expect);
    assert_false(stream_take(s, &piece));
}

static void rows_hand_out_what_they_say(void **state)
{
    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct stream s = open_stream(&rows[r]);
        for (size_t i = 0; i < TOKENS_MAX && rows[r].tokens[i] != NULL; i++) {
            const char *token = rows[r].tokens[i];
            assert_int_equal(stream_push(&s, token, strlen(token)), ERR_OK);
            check_taken(&s, &rows[r], rows[r].out[i]);
        }
        if (stream_stopped(&s) != rows[r].stopped)
            fail_msg("%s: stopped: %d", rows[r].what, stream_stopped(&s));
        stream_end(&s);
        check_taken(&s, &rows[r], rows[r].rest);
        stream_fini(&s);
    }
}

static void check_ends(const struct stream_piece *piece, const size_t *sizes)
{
    for (size_t i = 0, at = 0; i < piece->n_tokens; i++) {
        at += sizes[i];
        assert_int_equal(piece->ends[i], at);
    }
}

/* Whether a character ends before text[at]: in valid UTF-8 the next byte then begins one. */
static bool is_border(const char *text, size_t at)
{
    return ((uint8_t)text[at] & 0xC0) != 0x80;
}

static bool is_utf8(const char *text, size_t size)
{
    uint32_t code;

    for (size_t at = 0, n; at < size; at += n)
        if ((n = utf8_decode(text + at, size - at, &code)) == 0)
            return false;
    return true;
}

/* Every way to cut the row's text into tokens gives the same text, whatever was taken when. */
static void text_does_not_depend_on_token_borders(void **state)
{
    uint32_t n_valid = 0; /* with a character to split */

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        char text[64] = "", whole[64] = "";
        size_t whole_size = 0;
        for (size_t i = 0; i < TOKENS_MAX && rows[r].tokens[i] != NULL; i++)
            strcat(text, rows[r].tokens[i]);
        size_t size = strlen(text);
        const bool is_valid = is_utf8(text, size);
        n_valid += is_valid && strpbrk(text, "\xE2\xF0") != NULL;
        assert_in_range(size, 1, 12);
        for (unsigned cuts = 0; cuts < 1u << (size - 1); cuts++) {
            struct stream s = open_stream(&rows[r]);
            struct stream_piece piece;
            char got[64];
            size_t sizes[64], got_size = 0, start = 0;
            uint32_t tokens = 0, pushed = 0;
            for (size_t i = 0; i < size && !stream_stopped(&s); i++) {
                if (i + 1 < size && (cuts >> i & 1) == 0)
                    continue;
                assert_int_equal(stream_push(&s, text + start, i + 1 - start), ERR_OK);
                sizes[pushed] = i + 1 - start;
                start = i + 1;
                pushed++;
                while (stream_take(&s, &piece)) {
                    assert_int_equal(piece.first, tokens);
                    check_ends(&piece, sizes + tokens);
                    memcpy(got + got_size, piece.text, piece.text_size);
                    got_size += piece.text_size;
                    tokens += piece.n_tokens;
                    if (is_valid && !is_border(text, got_size))
                        fail_msg("%s: cut %x splits a character behind %zu bytes", rows[r].what,
                                 cuts, got_size);
                }
            }
            assert_int_equal(stream_stopped(&s), rows[r].stopped);
            stream_end(&s);
            while (stream_take(&s, &piece)) {
                check_ends(&piece, sizes + tokens);
                memcpy(got + got_size, piece.text, piece.text_size);
                got_size += piece.text_size;
                tokens += piece.n_tokens;
            }
            assert_int_equal(tokens, pushed);
            if (cuts == 0) {
                memcpy(whole, got, got_size);
                whole_size = got_size;
            }
            if (got_size != whole_size || memcmp(got, whole, got_size) != 0)
                fail_msg("%s: cut %x gives '%.*s', not '%s'", rows[r].what, cuts, (int)got_size,
                         got, whole);
            stream_fini(&s);
        }
    }
    assert_true(n_valid >= 3);
}

/* A second stream that is told the delivered tokens of the first goes on as the first does. */
static void replay_gives_the_same_state(void **state)
{
    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct stream first = open_stream(&rows[r]);
        uint32_t delivered = 0;
        for (size_t i = 0; i < TOKENS_MAX && rows[r].tokens[i] != NULL; i++) {
            struct stream_piece a, b;
            struct stream second = open_stream(&rows[r]);
            for (size_t k = 0; k < delivered; k++)
                assert_int_equal(stream_push(&second, rows[r].tokens[k], strlen(rows[r].tokens[k])),
                                 ERR_OK);
            stream_drop(&second);
            assert_int_equal(second.taken, delivered);
            for (size_t k = delivered; k <= i; k++)
                assert_int_equal(stream_push(&second, rows[r].tokens[k], strlen(rows[r].tokens[k])),
                                 ERR_OK);
            assert_int_equal(stream_push(&first, rows[r].tokens[i], strlen(rows[r].tokens[i])),
                             ERR_OK);
            bool any = stream_take(&first, &a);
            assert_int_equal(stream_take(&second, &b), any);
            if (any) {
                assert_int_equal(a.first, b.first);
                assert_int_equal(a.n_tokens, b.n_tokens);
                assert_int_equal(a.text_size, b.text_size);
                assert_memory_equal(a.text, b.text, a.text_size);
                delivered += a.n_tokens;
            }
            stream_fini(&second);
        }
        stream_fini(&first);
    }
}

static void the_last_piece_names_every_token(void **state)
{
    const struct row row = {.stops = {"END"}};
    struct stream s = open_stream(&row);
    struct stream_piece piece;

    (void)state;
    assert_int_equal(stream_push(&s, "hello", 5), ERR_OK);
    assert_true(stream_take(&s, &piece));
    assert_int_equal(stream_push(&s, " E", 2), ERR_OK);
    assert_int_equal(stream_push(&s, "N", 1), ERR_OK);
    assert_false(stream_take(&s, &piece));
    assert_int_equal(stream_push(&s, "D.", 2), ERR_OK);
    assert_true(stream_take(&s, &piece));
    assert_int_equal(piece.first, 1);
    assert_int_equal(piece.n_tokens, 3);
    assert_int_equal(piece.text_size, 1);
    stream_fini(&s);
}

/* Text that an earlier attempt gave out cannot be cut any more. */
static void a_stop_that_began_in_dropped_text_ends_without_more(void **state)
{
    const struct row row = {.stops = {"END"}};
    struct stream s = open_stream(&row);
    struct stream_piece piece;

    (void)state;
    assert_int_equal(stream_push(&s, "xEN", 3), ERR_OK);
    stream_drop(&s);
    assert_int_equal(stream_push(&s, "D", 1), ERR_OK);
    assert_true(stream_stopped(&s));
    assert_true(stream_take(&s, &piece));
    assert_int_equal(piece.text_size, 0);
    assert_int_equal(piece.first, 1);
    stream_fini(&s);
}

static void what_is_put_back_is_taken_again(void **state)
{
    static const struct sampling_stop stop = {"END", 3};
    struct stream_piece piece;
    struct stream s;

    (void)state;
    assert_int_equal(stream_init(&s, &stop, 1, NULL), ERR_OK);
    assert_int_equal(stream_push(&s, "ab", 2), ERR_OK);
    assert_true(stream_take(&s, &piece));
    assert_int_equal(stream_push(&s, "cd", 2), ERR_OK);
    assert_true(stream_take(&s, &piece));
    stream_put_back(&s);
    assert_int_equal(s.taken, 1);
    assert_int_equal(stream_push(&s, "eEND", 4), ERR_OK);
    assert_true(stream_take(&s, &piece));
    assert_int_equal(piece.first, 1);
    assert_int_equal(piece.n_tokens, 2);
    assert_int_equal(piece.text_size, 3);
    assert_memory_equal(piece.text, "cde", 3);
    stream_put_back(&s);
    assert_int_equal(s.taken, 1);
    stream_fini(&s);
}

static void stop_strings_out_of_bounds_are_refused(void **state)
{
    static char long_stop[LIMIT_STOP_BYTES + 1];
    struct sampling_stop many[LIMIT_STOP_STRINGS + 1];
    struct sampling_stop one = {"", 0};
    struct stream s;
    struct errbuf eb = {{0}};

    (void)state;
    memset(long_stop, 'x', sizeof long_stop);
    assert_int_equal(stream_init(&s, &one, 1, &eb), ERR_INVALID);
    one = (struct sampling_stop){long_stop, sizeof long_stop};
    assert_int_equal(stream_init(&s, &one, 1, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "257 bytes"));
    for (size_t i = 0; i <= LIMIT_STOP_STRINGS; i++)
        many[i] = (struct sampling_stop){long_stop, LIMIT_STOP_BYTES};
    assert_int_equal(stream_init(&s, many, LIMIT_STOP_STRINGS + 1, &eb), ERR_TOO_LARGE);
    assert_int_equal(stream_init(&s, many, LIMIT_STOP_STRINGS, &eb), ERR_OK);
    for (size_t i = 0; i < LIMIT_STOP_BYTES; i++)
        assert_int_equal(stream_push(&s, "x", 1), ERR_OK);
    assert_true(stream_stopped(&s));
    stream_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_hand_out_what_they_say),
        cmocka_unit_test(text_does_not_depend_on_token_borders),
        cmocka_unit_test(replay_gives_the_same_state),
        cmocka_unit_test(the_last_piece_names_every_token),
        cmocka_unit_test(a_stop_that_began_in_dropped_text_ends_without_more),
        cmocka_unit_test(what_is_put_back_is_taken_again),
        cmocka_unit_test(stop_strings_out_of_bounds_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
