/*
 * Whose fault it is that a turn could not be stored: who is answered for good, which job ends, and
 * when the program does.
 */
#include "coordinator/loop_failures.h"
#include "tests/unit/store/store_test.h"

#define JOB_A                                                                                      \
    {                                                                                              \
        {                                                                                          \
            1                                                                                      \
        }                                                                                          \
    }
#define JOB_B                                                                                      \
    {                                                                                              \
        {                                                                                          \
            2                                                                                      \
        }                                                                                          \
    }

static const struct wire_lease_progress lease_of_a[] = {{.job_id = JOB_A}};
static const struct wire_request submit_a = {.kind = WIRE_REQUEST_SUBMIT,
                                             .submit = {.job_id = JOB_A}};
static const struct wire_request cancel_a = {.kind = WIRE_REQUEST_CANCEL,
                                             .cancel = {.job_id = JOB_A}};
static const struct wire_request report_a = {.kind = WIRE_REQUEST_REPORT,
                                             .report = {.leases = lease_of_a, .n_leases = 1}};
static const struct wire_request pull = {.kind = WIRE_REQUEST_PULL};

static void one_turn(void **state)
{
    static const struct {
        enum err cause;
        struct failures_turn turn;
        enum failures_answer answer;
        uint8_t lost;
        bool alone; /* from then on */
    } table[] = {
        {ERR_NO_SPACE, {1, &submit_a, JOB_A}, FAILURES_FREEZE, 0, false},
        {ERR_IO, {1, &submit_a, JOB_A}, FAILURES_REOPEN, 0, false},
        {ERR_NO_MEMORY, {1, &submit_a, JOB_A}, FAILURES_REOPEN, 0, false},
        /* Of several events one cannot know. */
        {ERR_INVALID, {2, &submit_a, JOB_A}, FAILURES_REOPEN, 0, true},
        {ERR_INVALID, {2, NULL, JOB_A}, FAILURES_REOPEN, 0, true},
        /* The request's own job; losing one that is not there yet does nothing. */
        {ERR_INVALID, {1, &submit_a, JOB_A}, FAILURES_BLAME, 1, true},
        {ERR_TOO_LARGE, {1, &cancel_a, JOB_A}, FAILURES_BLAME, 1, true},
        {ERR_CORRUPT, {1, &report_a, JOB_A}, FAILURES_BLAME, 1, true},
        /* Another one, whose turn it was. */
        {ERR_INVALID, {1, &submit_a, JOB_B}, FAILURES_REOPEN, 2, true},
        {ERR_INVALID, {1, &report_a, JOB_B}, FAILURES_REOPEN, 2, true},
        {ERR_INVALID, {1, &pull, JOB_A}, FAILURES_REOPEN, 1, true},
        /* No job's: a worker would say it again, as long as it has the job. */
        {ERR_INVALID, {1, &submit_a, {{0}}}, FAILURES_BLAME, 0, true},
        {ERR_INVALID, {1, &pull, {{0}}}, FAILURES_BLAME, 0, true},
        {ERR_INVALID, {1, &report_a, {{0}}}, FAILURES_BLAME, 1, true},
        /* Time's. */
        {ERR_INVALID, {1, NULL, JOB_B}, FAILURES_REOPEN, 2, true},
        {ERR_INVALID, {1, NULL, {{0}}}, FAILURES_REOPEN, 0, true},
        {ERR_INVALID, {0, NULL, {{0}}}, FAILURES_REOPEN, 0, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct failures f = {0};
        struct id lost;
        if (failures_judge(&f, table[i].cause, &table[i].turn, 1000, &lost) != table[i].answer ||
            lost.bytes[0] != table[i].lost || failures_alone(&f, 1000) != table[i].alone)
            fail_msg("row %zu", i);
        assert_false(failures_alone(&f, 1000 + FAILURES_ALONE_MS));
    }
}

/* Turns one after another: what the last one comes to. */
static void turns_in_a_row(void **state)
{
    static const struct failures_turn of_time = {1, NULL, JOB_B}, of_submit = {1, &submit_a, JOB_A},
                                      of_other = {1, &pull, JOB_B};
    static const struct {
        enum err cause;
        const struct failures_turn *turn;
        unsigned times;
        /* stored before the last of them: 0 nothing, 1 a request, 2 what was none */
        int stored;
        enum failures_answer answer;
    } table[] = {
        {ERR_IO, &of_time, FAILURES_DISK_MAX - 1, 0, FAILURES_REOPEN},
        {ERR_IO, &of_time, FAILURES_DISK_MAX, 0, FAILURES_END_DISK},
        {ERR_IO, &of_submit, FAILURES_DISK_MAX, 0, FAILURES_END_DISK},
        {ERR_IO, &of_submit, FAILURES_DISK_MAX, 1, FAILURES_REOPEN},
        {ERR_NO_SPACE, &of_time, 1000, 0, FAILURES_FREEZE},
        {ERR_INVALID, &of_time, FAILURES_INTERNAL_MAX - 1, 0, FAILURES_REOPEN},
        {ERR_INVALID, &of_time, FAILURES_INTERNAL_MAX, 0, FAILURES_END},
        {ERR_INVALID, &of_time, FAILURES_INTERNAL_MAX, 1, FAILURES_END},
        {ERR_INVALID, &of_time, FAILURES_INTERNAL_MAX, 2, FAILURES_REOPEN},
        {ERR_INVALID, &of_other, FAILURES_INTERNAL_MAX, 0, FAILURES_END},
        {ERR_INVALID, &of_other, FAILURES_INTERNAL_MAX, 2, FAILURES_REOPEN},
        /* Its sender is told each time, and goes. */
        {ERR_INVALID, &of_submit, 1000, 0, FAILURES_BLAME},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct failures f = {0};
        struct id lost;
        enum failures_answer answer = FAILURES_REOPEN;
        for (unsigned n = 0; n < table[i].times; n++) {
            if (table[i].stored != 0 && n + 1 == table[i].times)
                failures_stored(&f, table[i].stored == 1);
            answer = failures_judge(&f, table[i].cause, table[i].turn, n, &lost);
        }
        if (answer != table[i].answer)
            fail_msg("row %zu", i);
    }
}

/* Each turn is one event. What there always is more of does not keep the other out. */
static void time_and_requests_take_turns(void **state)
{
    static const struct {
        bool is_due, is_asked;
        const char *turns; /* from the first one on: time's, a request's, none */
    } table[] = {
        {true, true, "rtrtrtrt"},
        {true, false, "tttttttt"},
        {false, true, "rrrrrrrr"},
        {false, false, "--------"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct failures f = {.alone_until_ms = 1000};
        char turns[9] = "";
        for (unsigned n = 0; n < 8; n++) {
            bool first = failures_time_first(&f, n) && table[i].is_due;
            bool asked = table[i].is_asked && !first;
            bool passed = table[i].is_due && !asked;
            if (passed)
                failures_time_passed(&f);
            turns[n] = passed ? 't' : asked ? 'r' : '-';
        }
        assert_string_equal(turns, table[i].turns);
        assert_false(failures_time_first(&f, 1000)); /* a turn is more than one event again */
    }
}

/* Who is refused for good again and again is not heard for a while. */
static void keys_that_are_blamed(void **state)
{
    static const struct {
        uint64_t now_ms;
        uint64_t wait_ms; /* when it was blamed at that time */
    } table[] = {
        {1000, 0},
        {1000, 0},
        {2000, FAILURES_KEY_MS_MIN},
        {40000, 2 * FAILURES_KEY_MS_MIN},
        {110000, 4 * FAILURES_KEY_MS_MIN},
        {240000, 8 * FAILURES_KEY_MS_MIN},
        {500000, FAILURES_KEY_MS_MAX},
        {1000000, FAILURES_KEY_MS_MAX},
        /* It was good for long. */
        {1000000 + 2 * FAILURES_KEY_MS_MAX, 0},
        {1000001 + 2 * FAILURES_KEY_MS_MAX, 0},
        {1000002 + 2 * FAILURES_KEY_MS_MAX, FAILURES_KEY_MS_MIN},
    };
    static const uint8_t bad[32] = {1}, other[32] = {2};
    struct failures f = {0};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        uint64_t now_ms = table[i].now_ms;
        failures_blame(&f, bad, now_ms);
        if (failures_key_wait_ms(&f, bad, now_ms) != table[i].wait_ms ||
            failures_key_wait_ms(&f, bad, now_ms + table[i].wait_ms) != 0)
            fail_msg("row %zu: %llu ms", i,
                     (unsigned long long)failures_key_wait_ms(&f, bad, now_ms));
        assert_int_equal(failures_key_wait_ms(&f, other, now_ms), 0);
    }
}

/* Others that come and go do not make it forgotten while it waits. */
static void keys_are_many(void **state)
{
    static const uint8_t bad[32] = {1};
    struct failures f = {0};
    (void)state;
    for (unsigned n = 0; n <= FAILURES_KEY_FREE; n++)
        failures_blame(&f, bad, 1000);
    for (unsigned n = 0; n < 10 * FAILURES_KEYS_MAX; n++) {
        const uint8_t other[32] = {2, (uint8_t)n, (uint8_t)(n >> 8)};
        failures_blame(&f, other, 1000 + n);
        assert_int_equal(failures_key_wait_ms(&f, other, 1000 + n), 0);
    }
    assert_int_equal(failures_key_wait_ms(&f, bad, 1000), FAILURES_KEY_MS_MIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_turn),
        cmocka_unit_test(turns_in_a_row),
        cmocka_unit_test(time_and_requests_take_turns),
        cmocka_unit_test(keys_that_are_blamed),
        cmocka_unit_test(keys_are_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
