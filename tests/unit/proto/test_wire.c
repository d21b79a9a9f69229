/* What wire.h has beside messages: names of states, and what is signed. */
#include "common/buf.h"
#include "proto/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void names_go_both_ways(void **state)
{
    (void)state;
    for (int i = WIRE_JOB_STATE_QUEUED; i <= WIRE_JOB_STATE_EXPIRED; i++) {
        enum wire_job_state job_state = WIRE_JOB_STATE_UNSPECIFIED;
        assert_true(wire_job_state_parse(wire_job_state_name((enum wire_job_state)i), &job_state));
        assert_int_equal(job_state, i);
        assert_int_equal(wire_job_state_is_end(job_state), i >= WIRE_JOB_STATE_DONE);
    }
    for (int i = WIRE_JOB_CLASS_INTERACTIVE; i <= WIRE_JOB_CLASS_BATCH; i++) {
        enum wire_job_class job_class = WIRE_JOB_CLASS_UNSPECIFIED;
        assert_true(wire_job_class_parse(wire_job_class_name((enum wire_job_class)i), &job_class));
        assert_int_equal(job_class, i);
    }
    enum wire_job_state untouched = WIRE_JOB_STATE_DONE;
    assert_false(wire_job_state_parse("unspecified", &untouched));
    assert_false(wire_job_state_parse("Queued", &untouched));
    assert_int_equal(untouched, WIRE_JOB_STATE_DONE);
    assert_false(wire_job_state_is_end(WIRE_JOB_STATE_UNSPECIFIED));
    assert_string_equal(wire_job_state_name((enum wire_job_state)9), "unknown");
    assert_string_equal(wire_job_state_name((enum wire_job_state) - 1), "unknown");
    assert_string_equal(wire_finish_name(WIRE_FINISH_LENGTH), "length");
    assert_string_equal(wire_model_state_name(WIRE_MODEL_STATE_READY), "ready");
    assert_string_equal(wire_worker_state_name(WIRE_WORKER_STATE_GONE), "gone");
}

/* Whatever differs between two Hellos makes what is signed differ; moving a byte from one name to
 * the next does, too. */
static void no_signature_means_two_things(void **state)
{
    enum { VARIANTS = 8 };
    struct buf bytes[VARIANTS];
    struct wire_hello hello = {.role = WIRE_ROLE_WORKER, .node = "ab", .tenant = "c"};
    struct wire_hello_reply reply = {.coordinator = "ab"};
    uint8_t challenge[32] = {1};
    (void)state;

    for (size_t i = 0; i < VARIANTS; i++) {
        struct wire_hello one = hello;
        uint8_t nonce[32];
        buf_init(&bytes[i]);
        memcpy(nonce, challenge, sizeof nonce);
        if (i == 1)
            one.role = WIRE_ROLE_CLIENT;
        if (i == 2) {
            one.node = "a";
            one.tenant = "bc";
        }
        if (i == 3)
            one.public_key[31] = 1;
        if (i == 4)
            nonce[31] = 1;
        if (i == 5)
            one.tenant = "";
        if (i == 7)
            wire_hello_reply_signed_bytes(nonce, 7, &reply, &bytes[i]);
        else
            wire_hello_signed_bytes(nonce, i == 6 ? 8 : 7, &one, &bytes[i]);
        for (size_t k = 0; k < i; k++)
            assert_false(bytes[k].size == bytes[i].size &&
                         memcmp(bytes[k].data, bytes[i].data, bytes[i].size) == 0);
    }
    for (size_t i = 0; i < VARIANTS; i++)
        buf_fini(&bytes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_go_both_ways),
        cmocka_unit_test(no_signature_means_two_things),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
