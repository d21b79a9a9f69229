/* Exported records that break a rule, well signed: each is named by line and seq. */
#include "tests/unit/ledger/export_file.h"

#include "proto/wire.h"

#include <string.h>

struct rule_case {
    const char *name;
    /* Changes the record of line 4, seq 2: the SETTLE of job 1 in file_small. */
    void (*bend)(struct record_ledger *r);
    const char *reason;
};

#define BEND(name, statement)                                                                      \
    static void bend_##name(struct record_ledger *r)                                               \
    {                                                                                              \
        statement;                                                                                 \
    }
BEND(no_reservation, r->reserve_seq = 0)
BEND(future, r->reserve_seq = 4)
BEND(itself, r->reserve_seq = 3)
BEND(job, r->job_id.bytes[3] ^= 1)
BEND(tenant, r->tenant = "another")
BEND(model, r->model = "another")
BEND(reserved, r->reserved_tokens += 1)
BEND(source, r->count_source = RECORD_COUNT_SOURCE_UNSPECIFIED)
BEND(cached, r->prompt_cached = r->prompt_tokens + 1)
BEND(delivered, r->completion_delivered = r->completion_computed + 1)
BEND(billable, r->completion_billable = r->completion_computed + 1)
BEND(billable_max, (r->completion_computed = 101, r->completion_billable = 101))
BEND(prompt, (r->prompt_tokens = 95))
BEND(prompt_huge, (r->prompt_tokens = INT64_MAX))
BEND(void_bills, r->kind = RECORD_LEDGER_VOID)
BEND(expire_bills, r->kind = RECORD_LEDGER_EXPIRE)
BEND(failed_bills, r->outcome = WIRE_JOB_STATE_FAILED)
BEND(policy, r->policy_id = 2)
BEND(schema, r->schema = 2)
BEND(late, r->seq = 3)
BEND(early, r->seq = 1)
BEND(second_reserve, (r->kind = RECORD_LEDGER_RESERVE))
BEND(key_empty, (r->kind = RECORD_LEDGER_KEY))
BEND(meters_too, r->energy_mj = 1)
BEND(device_too, r->device = "GPU-1")
BEND(meter_of_job,
     (*r = ledger_test_meter("GPU-1", 1), r->seq = 2, r->schema = 1, r->job_id.bytes[0] = 1))
BEND(meter_counts,
     (*r = ledger_test_meter("GPU-1", 1), r->seq = 2, r->schema = 1, r->completion_computed = 1))
BEND(meter_of_nothing, (*r = ledger_test_meter("", 1), r->seq = 2, r->schema = 1))
BEND(meter_of_nobody,
     (*r = ledger_test_meter("GPU-1", 1), r->seq = 2, r->schema = 1, r->worker = ""))

static void broken_rules_are_named_by_line_and_seq(void **state)
{
    (void)state;
    static const struct rule_case cases[] = {
        {"settle without reserve", bend_no_reservation,
         "line 4, seq 2: SETTLE without a reservation"},
        {"reserve that comes later", bend_future,
         "line 4, seq 2: SETTLE of seq 3, which is no RESERVE"},
        {"its own reserve", bend_itself, "line 4, seq 2: SETTLE of seq 2, which is no RESERVE"},
        {"another job", bend_job, "another job, tenant or model than its RESERVE, seq 1"},
        {"another tenant", bend_tenant, "another job, tenant or model"},
        {"another model", bend_model, "another job, tenant or model"},
        {"another reserved amount", bend_reserved,
         "says 152 tokens were reserved, seq 1 reserved 151"},
        {"not counted by the engine", bend_source, "not counted by the engine"},
        {"more cached than there are", bend_cached, "42 cached of 41 prompt tokens"},
        {"more delivered than computed", bend_delivered, "62 tokens delivered, 61 computed"},
        {"more billable than computed", bend_billable, "62 tokens billable, 61 computed"},
        {"more billable than max_tokens", bend_billable_max,
         "101 billable tokens of max_tokens 100"},
        {"more owed than reserved", bend_prompt,
         "95 prompt and 60 billable tokens, but seq 1 reserved 151"},
        {"sum beyond 64 bits", bend_prompt_huge, "but seq 1 reserved 151"},
        {"void that bills", bend_void_bills, "VOID with 60 billable tokens"},
        {"expire that bills", bend_expire_bills, "EXPIRE with 60 billable tokens"},
        {"failure that bills", bend_failed_bills, "60 billable tokens of a job that failed"},
        {"policy of the future", bend_policy, "decided by policy 2, this program knows 1"},
        {"schema of the future", bend_schema, "a record of schema 2"},
        {"gap", bend_late, "line 4, seq 3: 1 records are missing before it, from seq 2 on"},
        {"number used before", bend_early,
         "line 4, seq 1: comes a second time or out of order, seq 2"},
        {"reserve that names one", bend_second_reserve, "RESERVE that names a reservation (1)"},
        {"key record without a key", bend_key_empty, "KEY without a public key"},
        {"energy of a job", bend_meters_too, "line 4, seq 2: SETTLE that meters a device"},
        {"device of a job", bend_device_too, "SETTLE that meters a device"},
        {"meter that names a job", bend_meter_of_job, "METER that names a job or tenant"},
        {"meter that counts tokens", bend_meter_counts, "METER that names a job or tenant"},
        {"meter without device", bend_meter_of_nothing, "METER without worker or device"},
        {"meter without worker", bend_meter_of_nobody, "METER without worker or device"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct export_file f;
        struct record_ledger r = ledger_test_settle(1, 1);
        export_file_open(&f);
        export_file_append(&f, ledger_test_reserve(0));
        export_file_append(&f, ledger_test_reserve(1));
        r.seq = 2;
        r.schema = RECORD_LEDGER_SCHEMA;
        cases[i].bend(&r);
        export_file_record(&f, &r);
        export_file_append(&f, ledger_test_settle(0, 0));
        export_file_checkpoint(&f);
        export_assert_refused(cases[i].name, &f.text, NULL, 4, cases[i].reason);
        export_file_close(&f);
    }
}

static void reservation_is_ended_once(void **state)
{
    (void)state;
    struct export_file f;
    export_file_open(&f);
    export_file_append(&f, ledger_test_reserve(0));
    export_file_append(&f, ledger_test_settle(0, 0));
    struct record_ledger again = ledger_test_settle(0, 0);
    again.kind = RECORD_LEDGER_VOID;
    again.completion_billable = 0;
    export_file_append(&f, again);
    export_file_checkpoint(&f);
    export_assert_refused("double end", &f.text, NULL, 4,
                          "line 4, seq 2: VOID of seq 0, which was ended before");
    export_file_close(&f);
}

static void reserve_must_make_sense(void **state)
{
    (void)state;
    static const char *const reasons[] = {"without job, tenant or model", "of 99 tokens for",
                                          "counts tokens"};
    for (int i = 0; i < 3; i++) {
        struct export_file f;
        struct record_ledger r = ledger_test_reserve(0);
        if (i == 0)
            r.tenant = "";
        if (i == 1)
            r.reserved_tokens = 99;
        if (i == 2)
            r.completion_computed = 1;
        export_file_open(&f);
        export_file_append(&f, r);
        export_file_checkpoint(&f);
        export_assert_refused(reasons[i], &f.text, NULL, 2, reasons[i]);
        export_file_close(&f);
    }
}

static void key_record_must_name_the_signer(void **state)
{
    (void)state;
    uint8_t other[ED25519_PUBLIC_BYTES];
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    struct export_file f;

    memset(other, 7, sizeof other);
    export_file_open(&f);
    export_file_append(&f, ledger_test_key(other)); /* a key of the past */
    export_file_append(&f, ledger_test_key(f.public_key));
    export_file_append(&f, ledger_test_reserve(0));
    export_file_checkpoint(&f);
    assert_err(export_verify(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
    assert_int_equal(report.verified.keys, 2);
    export_file_close(&f);

    export_file_open(&f);
    export_file_append(&f, ledger_test_key(f.public_key));
    export_file_append(&f, ledger_test_key(other));
    export_file_append(&f, ledger_test_reserve(0));
    export_file_checkpoint(&f);
    export_assert_refused("key of another", &f.text, NULL, 3,
                          "line 3, seq 1: names another key than the one that signed");
    export_file_close(&f);
}

/* Devices are read in turns; one's driver is loaded anew in between. */
static void energy_is_what_lies_between_readings(void **state)
{
    static const struct {
        const char *device;
        uint64_t energy_mj, sum_mj;
    } rows[] = {{"GPU-1", 1000, 0},    {"GPU-2", 7, 0},      {"GPU-1", 1500, 500},
                {"GPU-2", 7, 500},     {"GPU-1", 20, 520},   {"GPU-1", 21, 521},
                {"GPU-3", 99999, 521}, {"GPU-2", 1007, 1521}};
    (void)state;
    for (size_t n = 1; n <= sizeof rows / sizeof rows[0]; n++) {
        struct ledger_verify_report report;
        struct errbuf eb = {{0}};
        struct export_file f;
        export_file_open(&f);
        for (size_t i = 0; i < n; i++)
            export_file_append(&f, ledger_test_meter(rows[i].device, rows[i].energy_mj));
        export_file_checkpoint(&f);
        assert_err(export_verify(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
        assert_int_equal(report.verified.meters, n);
        assert_int_equal(report.verified.energy_mj, rows[n - 1].sum_mj);
        export_file_close(&f);
    }
}

/* Only METER lines have what only they say: a file of before METER verifies as it did. */
static void other_lines_are_as_they_were(void **state)
{
    struct export_file f;
    (void)state;
    export_file_open(&f);
    export_file_append(&f, ledger_test_reserve(0));
    export_file_append(&f, ledger_test_settle(0, 0));
    assert_null(strstr(buf_str(&f.text), "energy_mj"));
    assert_null(strstr(buf_str(&f.text), "\"device\""));
    export_file_append(&f, ledger_test_meter("GPU-1", 5));
    assert_non_null(strstr(buf_str(&f.text), "\"device\":\"GPU-1\",\"energy_mj\":5,\"raw\""));
    export_file_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_rules_are_named_by_line_and_seq),
        cmocka_unit_test(reservation_is_ended_once),
        cmocka_unit_test(reserve_must_make_sense),
        cmocka_unit_test(key_record_must_name_the_signer),
        cmocka_unit_test(energy_is_what_lies_between_readings),
        cmocka_unit_test(other_lines_are_as_they_were),
    };
    return cmocka_run_group_tests_name("ledger export, rules", tests, NULL, NULL);
}
