#include "common/arena.h"
#include "common/buf.h"
#include "common/limits.h"
#include "proto/record.h"
#include "proto/record_tables.h"
#include "tests/unit/proto/samples.h"
#include "tests/unit/proto/walk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* All six kinds through one door. */
union record {
    struct record_job job;
    struct record_chunk chunk;
    struct record_usage usage;
    struct record_balance balance;
    struct record_learned learned;
    struct record_ledger ledger;
};

#define DOORS(kind)                                                                                \
    static enum err kind##_encode(const union record *record, struct buf *out, struct errbuf *eb)  \
    {                                                                                              \
        return record_##kind##_encode(&record->kind, out, eb);                                     \
    }                                                                                              \
    static enum err kind##_decode(const void *bytes, size_t size, struct arena *arena,             \
                                  union record *ret_record, struct errbuf *eb)                     \
    {                                                                                              \
        return record_##kind##_decode(bytes, size, arena, &ret_record->kind, eb);                  \
    }

DOORS(job)
DOORS(chunk)
DOORS(usage)
DOORS(balance)
DOORS(learned)
DOORS(ledger)

static const struct {
    const char *name;
    const struct convert_message *table;
    const void *sample;
    enum err (*encode)(const union record *record, struct buf *out, struct errbuf *eb);
    enum err (*decode)(const void *bytes, size_t size, struct arena *arena,
                       union record *ret_record, struct errbuf *eb);
} kinds[] = {
    {"record_job", &record_job_table, &sample_record_job, job_encode, job_decode},
    {"record_chunk", &record_chunk_table, &sample_record_chunk, chunk_encode, chunk_decode},
    {"record_usage", &record_usage_table, &sample_record_usage, usage_encode, usage_decode},
    {"record_balance", &record_balance_table, &sample_record_balance, balance_encode,
     balance_decode},
    {"record_learned", &record_learned_table, &sample_record_learned, learned_encode,
     learned_decode},
    {"record_ledger", &record_ledger_table, &sample_record_ledger, ledger_encode, ledger_decode},
};
#define N_KINDS (sizeof kinds / sizeof kinds[0])

static void tables_name_every_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_KINDS; i++)
        assert_null(walk_missing(kinds[i].table));
}

static void golden_records(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_KINDS; i++) {
        union record sample = {0}, back;
        struct errbuf eb = {{0}};
        struct buf golden, packed;
        struct arena arena;

        memcpy(&sample, kinds[i].sample, kinds[i].table->size);
        arena_init(&arena, LIMIT_DECODE_BYTES);
        buf_init(&golden);
        buf_init(&packed);
        golden_read(kinds[i].name, &golden);
        if (kinds[i].encode(&sample, &packed, &eb) != ERR_OK ||
            kinds[i].decode(golden.data, golden.size, &arena, &back, &eb) != ERR_OK)
            fail_msg("%s: %s", kinds[i].name, eb.text);
        assert_int_equal(packed.size, golden.size);
        assert_memory_equal(packed.data, golden.data, golden.size);
        const char *differs = walk_difference(kinds[i].table, &sample, &back);
        if (differs != NULL)
            fail_msg("%s: %s differs", kinds[i].name, differs);
        buf_fini(&packed);
        buf_fini(&golden);
        arena_fini(&arena);
    }
}

static void random_records_survive_the_round_trip(void **state)
{
    struct arena arena;
    struct buf packed;
    (void)state;

    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&packed);
    for (uint64_t seed = 1; seed <= 5000; seed++) {
        for (size_t i = 0; i < N_KINDS; i++) {
            struct walk_random r = {.state = seed, .arena = &arena};
            union record record = {0}, back;
            struct errbuf eb = {{0}};
            arena_reset(&arena);
            walk_fill(&r, kinds[i].table, &record);
            if (kinds[i].table == &record_chunk_table)
                record.chunk.n_text_sizes = record.chunk.n_logprobs = 0;
            buf_clear(&packed);
            if (kinds[i].encode(&record, &packed, &eb) != ERR_OK ||
                kinds[i].decode(packed.data, packed.size, &arena, &back, &eb) != ERR_OK)
                fail_msg("%s, seed %u: %s", kinds[i].name, (unsigned)seed, eb.text);
            assert_null(walk_difference(kinds[i].table, &record, &back));
        }
    }
    buf_fini(&packed);
    arena_fini(&arena);
}

/* Damage is refused as such, or is another record. Of ledger records it is the one that has these
 * very bytes. */
static void damaged_records(void **state)
{
    struct arena arena;
    struct buf golden, out;
    (void)state;

    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&golden);
    buf_init(&out);
    for (size_t i = 0; i < N_KINDS; i++) {
        golden_read(kinds[i].name, &golden);
        for (size_t step = 0; step < 9 * golden.size; step++) {
            bool flip = step >= golden.size; /* else a truncation */
            size_t bit = step - golden.size;
            size_t size = flip ? golden.size : step;
            union record record;
            struct errbuf eb = {{0}};

            if (flip)
                golden.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            arena_reset(&arena);
            buf_clear(&out);
            enum err err = kinds[i].decode(golden.data, size, &arena, &record, &eb);
            if (err == ERR_OK) {
                assert_int_equal(kinds[i].encode(&record, &out, &eb), ERR_OK);
                if (kinds[i].table == &record_ledger_table) {
                    assert_int_equal(out.size, size);
                    assert_memory_equal(out.data, golden.data, size);
                }
            } else {
                assert_int_equal(err, ERR_CORRUPT);
                assert_true(eb.text[0] != '\0');
            }
            if (flip)
                golden.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    buf_fini(&out);
    buf_fini(&golden);
    arena_fini(&arena);
}

/* Spellings of one ledger record that are not the canonical one. */
static void ledger_records_have_one_spelling(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        enum err err;
    } rows[] = {
        {"\x08\x01\x10\x01", 4, ERR_OK},                  /* schema 1, kind RESERVE */
        {"\x10\x01\x08\x01", 4, ERR_CORRUPT},             /* another order */
        {"\x08\x01\x10\x01\x18\x00", 6, ERR_CORRUPT},     /* a default value written out */
        {"\x08\x01\x08\x01\x10\x01", 6, ERR_CORRUPT},     /* a field twice */
        {"\x08\x81\x00\x10\x01", 5, ERR_CORRUPT},         /* a longer varint */
        {"\x08\x01\x10\x01\xf8\x07\x01", 7, ERR_CORRUPT}, /* an unknown field */
        {"\x08\x01\x10\x01\x22\x00", 6, ERR_CORRUPT},     /* an empty string */
        {"\x08\x01", 2, ERR_CORRUPT},                     /* no kind */
        {"\x08\x01\x10\x07", 4, ERR_CORRUPT},             /* no such kind */
        {"", 0, ERR_CORRUPT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct record_ledger record = {.seq = 77};
        struct errbuf eb = {{0}};
        struct arena arena;
        arena_init(&arena, LIMIT_DECODE_BYTES);
        enum err err = record_ledger_decode(rows[i].bytes, rows[i].size, &arena, &record, &eb);
        if (err != rows[i].err)
            fail_msg("row %zu: %s", i, eb.text);
        assert_true(err == ERR_OK || record.seq == 77);
        arena_fini(&arena);
    }
}

static void refusals_name_the_field(void **state)
{
    struct record_job job = sample_record_job;
    struct record_ledger ledger = sample_record_ledger;
    struct errbuf eb = {{0}};
    struct buf out;
    (void)state;

    buf_init(&out);
    job.state = 9;
    assert_int_equal(record_job_encode(&job, &out, &eb), ERR_INVALID);
    assert_string_equal(eb.text, "job record.state: 9 is not one of its values");
    job.state = 0;
    assert_int_equal(record_job_encode(&job, &out, &eb), ERR_INVALID);
    ledger.tenant = "a\nb";
    assert_int_equal(record_ledger_encode(&ledger, &out, &eb), ERR_INVALID);
    assert_string_equal(eb.text, "ledger record.tenant: not UTF-8 without control characters");
    assert_int_equal(out.size, 0);
    buf_fini(&out);
}

static void kinds_have_names(void **state)
{
    (void)state;
    assert_string_equal(record_ledger_kind_name(RECORD_LEDGER_RESERVE), "RESERVE");
    assert_string_equal(record_ledger_kind_name(RECORD_LEDGER_SETTLE), "SETTLE");
    assert_string_equal(record_ledger_kind_name(RECORD_LEDGER_VOID), "VOID");
    assert_string_equal(record_ledger_kind_name(RECORD_LEDGER_EXPIRE), "EXPIRE");
    assert_string_equal(record_ledger_kind_name(RECORD_LEDGER_KEY), "KEY");
    assert_string_equal(record_ledger_kind_name(RECORD_LEDGER_METER), "METER");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_name_every_field),
        cmocka_unit_test(golden_records),
        cmocka_unit_test(random_records_survive_the_round_trip),
        cmocka_unit_test(damaged_records),
        cmocka_unit_test(ledger_records_have_one_spelling),
        cmocka_unit_test(refusals_name_the_field),
        cmocka_unit_test(kinds_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
