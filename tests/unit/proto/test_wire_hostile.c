/* Bytes that no encoder of ours would send: damaged, cut, too long, too much, from the future. */
#include "common/arena.h"
#include "common/buf.h"
#include "common/limits.h"
#include "proto/wire.h"
#include "proto/wire_tables.h"
#include "tests/unit/proto/samples.h"
#include "tests/unit/proto/walk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Version 1 and a request id. */
#define HEAD                                                                                       \
    "\x08\x01\x1a\x10"                                                                             \
    "0123456789abcdef"

/* Damaged bytes are refused with a reason, or are another valid message: one that encoding, whose
 * checks are those of decoding, takes as well. */
static void damaged_check(bool is_request, const void *bytes, size_t size, struct arena *arena,
                          struct buf *out)
{
    struct errbuf eb = {{0}};
    struct wire_request request;
    struct wire_reply reply;

    arena_reset(arena);
    buf_clear(out);
    /* At its own size, so that a read past the end is seen. */
    uint8_t *copy = malloc(size + 1);
    assert_non_null(copy);
    memcpy(copy, bytes, size);
    uint8_t *exact = realloc(copy, size > 0 ? size : 1);
    assert_non_null(exact);
    enum err err = is_request ? wire_request_decode(exact, size, arena, &request, &eb)
                              : wire_reply_decode(exact, size, arena, &reply, &eb);
    if (err == ERR_OK)
        err = is_request ? wire_request_encode(&request, out, &eb)
                         : wire_reply_encode(&reply, out, &eb);
    else
        assert_true(eb.text[0] != '\0');
    assert_true(err == ERR_OK || out->size == 0);
    free(exact);
}

static void damaged_messages(void **state)
{
    struct walk_random r = {.state = 7};
    struct arena arena;
    struct buf golden, out;
    (void)state;

    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&golden);
    buf_init(&out);
    for (size_t i = 0; i < n_sample_requests + n_sample_replies; i++) {
        bool is_request = i < n_sample_requests;
        golden_read(is_request ? sample_requests[i].name
                               : sample_replies[i - n_sample_requests].name,
                    &golden);
        for (size_t size = 0; size < golden.size; size++)
            damaged_check(is_request, golden.data, size, &arena, &out);
        for (size_t bit = 0; bit < 8 * golden.size; bit++) {
            golden.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            damaged_check(is_request, golden.data, golden.size, &arena, &out);
            golden.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (int round = 0; round < 1000; round++) {
            struct buf many;
            buf_init(&many);
            buf_append(&many, golden.data, golden.size);
            for (int k = 0; k < 4; k++)
                many.data[walk_next(&r) % many.size] = (uint8_t)walk_next(&r);
            damaged_check(is_request, many.data, many.size, &arena, &out);
            buf_fini(&many);
        }
    }
    buf_fini(&out);
    buf_fini(&golden);
    arena_fini(&arena);
}

/* What only raw bytes can say. "submit" is field 20: a2 01 <size>; its job field 2: 12 <size>. */
static void decode_refuses_with_the_place(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        enum err err;
        const char *says;
    } rows[] = {
#define ROW(literal, code, text) {literal, sizeof(literal) - 1, code, text}
        ROW("", ERR_UNSUPPORTED,
            "version: the peer speaks version 0 of the protocol, this build 1"),
        ROW("\x08\x02", ERR_UNSUPPORTED, "version: the peer speaks version 2"),
        ROW("\x08\x02\x12\x01", ERR_INVALID, "not a well-formed message"),
        ROW("GET / HTTP/1.1\r\n", ERR_INVALID, "not a well-formed message"),
        ROW("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", ERR_INVALID, "not a well-formed"),
        ROW("\x08\x01\x1a\x0f"
            "0123456789abcde",
            ERR_INVALID, "request_id: 15 bytes, not 16"),
        ROW("\x08\x01", ERR_INVALID, "request_id: missing"),
        ROW(HEAD, ERR_INVALID, "body: missing"),
        ROW(HEAD "\xda\x06\x00", ERR_INVALID, "body: missing, or of a kind that this version"),
        ROW(HEAD "\xc2\x01\x11\x0a\x0f"
                 "0123456789abcde",
            ERR_INVALID, "get_job.job_id: 15 bytes"),
        ROW(HEAD "\x6a\x05\x0a\x03"
                 "a\0b",
            ERR_INVALID, "goodbye.reason: a NUL inside a string"),
        ROW(HEAD "\x6a\x05\x0a\x03"
                 "a\nb",
            ERR_INVALID, "goodbye.reason: not UTF-8"),
        ROW(HEAD "\x6a\x04\x0a\x03"
                 "abc",
            ERR_INVALID, "not a well-formed message"),
        ROW(HEAD "\x52\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ERR_INVALID,
            "hello.role: 4294967295 is not one of its values"),
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct wire_request request = {.session = 5};
        struct errbuf eb = {{0}};
        struct arena arena;

        arena_init(&arena, LIMIT_DECODE_BYTES);
        enum err err = wire_request_decode(rows[i].bytes, rows[i].size, &arena, &request, &eb);
        if (err != rows[i].err || strncmp(eb.text, rows[i].says, strlen(rows[i].says)) != 0)
            fail_msg("row %zu (%s): %d %s", i, rows[i].says, (int)err, eb.text);
        arena_fini(&arena);
    }
}

/* An error is answered to whom it belongs: the envelope is read though the body is refused. */
static void envelope_of_a_refused_request_is_read(void **state)
{
    struct wire_request request = {.kind = WIRE_REQUEST_PULL};
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf golden;
    (void)state;

    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&golden);
    golden_read("request_watch", &golden);
    golden.data[golden.size - 1] ^= 0x80; /* an unfinished varint in the body */
    assert_int_equal(wire_request_decode(golden.data, golden.size, &arena, &request, &eb),
                     ERR_INVALID);
    assert_true(request.session == 0x1122334455667788);
    assert_memory_equal(request.request_id.bytes, "0123456789abcdef", ID_BYTES);
    assert_int_equal(request.kind, WIRE_REQUEST_PULL);

    golden_read("request_watch", &golden);
    golden.data[1] = 3; /* another version */
    request = (struct wire_request){0};
    assert_int_equal(wire_request_decode(golden.data, golden.size, &arena, &request, &eb),
                     ERR_UNSUPPORTED);
    assert_memory_equal(request.request_id.bytes, "0123456789abcdef", ID_BYTES);
    buf_fini(&golden);
    arena_fini(&arena);
}

/* A newer peer of the same version may say more; what we do not know is passed over. */
static void unknown_fields_are_passed_over(void **state)
{
    struct wire_request request;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf golden;
    (void)state;

    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&golden);
    golden_read("request_pull", &golden);
    buf_append(&golden, "\xfa\x3f\x03new\xf8\x3f\x01", 9);
    assert_int_equal(wire_request_decode(golden.data, golden.size, &arena, &request, &eb), ERR_OK);
    assert_null(walk_difference(&wire_request_table, &sample_requests[1].request, &request));
    buf_fini(&golden);
    arena_fini(&arena);
}

/* A short message that would unfold to more than the arena allows is refused, and so is a long
 * one. */
static void memory_is_bounded(void **state)
{
    struct wire_request request;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf bytes;
    (void)state;

    buf_init(&bytes);
    buf_append(&bytes, HEAD "\x62\x80\x89\x7a", 20 + 4); /* report of a million empty leases */
    for (int i = 0; i < 1000000; i++)
        buf_append(&bytes, "\x0a\x00", 2);
    arena_init(&arena, LIMIT_DECODE_BYTES);
    assert_int_equal(wire_request_decode(bytes.data, bytes.size, &arena, &request, &eb),
                     ERR_TOO_LARGE);
    assert_true(arena.used_bytes <= LIMIT_DECODE_BYTES);
    arena_fini(&arena);

    buf_clear(&bytes);
    assert_true(buf_reserve(&bytes, LIMIT_FRAME_BYTES + 1));
    memset(bytes.data, 0, LIMIT_FRAME_BYTES + 1);
    arena_init(&arena, LIMIT_DECODE_BYTES);
    assert_int_equal(wire_request_decode(bytes.data, LIMIT_FRAME_BYTES + 1, &arena, &request, &eb),
                     ERR_TOO_LARGE);
    assert_non_null(strstr(eb.text, "LIMIT_FRAME_BYTES"));
    arena_fini(&arena);
    buf_fini(&bytes);
}

/* The greatest prompt fits; one byte more does not, in one text or in several messages. */
static void prompt_bytes_are_bounded(void **state)
{
    struct wire_request request = {
        .request_id = {{1}},
        .kind = WIRE_REQUEST_SUBMIT,
        .submit = {.job_id = {{2}},
                   .job = {.model = "m",
                           .prompt_kind = WIRE_PROMPT_KIND_TEXT,
                           .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f},
                           .job_class = WIRE_JOB_CLASS_BATCH}},
    };
    struct wire_request back;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf out;
    uint8_t *text = calloc(1, LIMIT_PROMPT_BYTES + 1);
    (void)state;

    assert_non_null(text);
    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&out);
    request.submit.job.text = (struct wire_bytes){text, LIMIT_PROMPT_BYTES};
    assert_int_equal(wire_request_encode(&request, &out, &eb), ERR_OK);
    assert_int_equal(wire_request_decode(out.data, out.size, &arena, &back, &eb), ERR_OK);
    assert_int_equal(back.submit.job.text.size, LIMIT_PROMPT_BYTES);
    request.submit.job.text.size++;
    assert_int_equal(wire_request_encode(&request, &out, &eb), ERR_TOO_LARGE);
    assert_non_null(strstr(eb.text, "submit.job.text: 8388609 is over LIMIT_PROMPT_BYTES"));

    const struct wire_chat_message halves[] = {
        {.role = "a", .content = {text, LIMIT_PROMPT_BYTES / 2}},
        {.role = "b", .content = {text, LIMIT_PROMPT_BYTES / 2 + 1}},
    };
    request.submit.job.prompt_kind = WIRE_PROMPT_KIND_CHAT;
    request.submit.job.text.size = 0;
    request.submit.job.messages = halves;
    request.submit.job.n_messages = 2;
    assert_int_equal(wire_request_encode(&request, &out, &eb), ERR_TOO_LARGE);
    assert_non_null(strstr(eb.text, "submit.job.messages: 8388609 bytes of text"));
    buf_fini(&out);
    arena_fini(&arena);
    free(text);
}

/* An error's text reaches the peer whatever is in it. */
static void text_for_people_is_made_fit(void **state)
{
    char text[LIMIT_ERROR_TEXT_BYTES + 100];
    struct wire_reply back;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf out;
    (void)state;

    memset(text, 'x', sizeof text);
    memcpy(text, "bad\n\xff\303", 6);
    memcpy(text + LIMIT_ERROR_TEXT_BYTES - 1, "\303\251", 2); /* cut in the middle */
    text[sizeof text - 1] = '\0';
    const struct wire_reply reply = {.kind = WIRE_REPLY_ERROR,
                                     .error = {.code = ERR_INVALID, .text = text}};
    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&out);
    assert_int_equal(wire_reply_encode(&reply, &out, &eb), ERR_OK);
    assert_int_equal(wire_reply_decode(out.data, out.size, &arena, &back, &eb), ERR_OK);
    assert_int_equal(strlen(back.error.text), LIMIT_ERROR_TEXT_BYTES);
    assert_memory_equal(back.error.text, "bad???xxx", 9);
    assert_int_equal(back.error.text[LIMIT_ERROR_TEXT_BYTES - 1], '?');
    buf_fini(&out);
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_messages),
        cmocka_unit_test(decode_refuses_with_the_place),
        cmocka_unit_test(envelope_of_a_refused_request_is_read),
        cmocka_unit_test(unknown_fields_are_passed_over),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(prompt_bytes_are_bounded),
        cmocka_unit_test(text_for_people_is_made_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
