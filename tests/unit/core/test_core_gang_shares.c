/* By what shares workers compute a model together: bandwidth, room, or even ones; and who is taken
 * for it because they read faster. */
#include "tests/unit/core/gang_test.h"

#include "common/buf.h"
#include "common/limits.h"
#include "coordinator/core/gang.h"
#include "tests/sim/even_shape.h"

#include <stdio.h>
#include <string.h>

#define GB   CORE_TEST_GB
#define GB_S 1000000000ull

/* ---- weights ---- */

static void bandwidths_are_small_numbers(void **state)
{
    static const struct {
        const char *what;
        uint32_t n;
        uint64_t bytes_per_s[4];
        enum gang_speeds speeds;
        uint64_t weight[4];
    } table[] = {
        {"not known", 2, {0, 0}, GANG_SPEEDS_UNKNOWN, {1, 1}},
        {"of one not", 3, {30 * GB_S, 10 * GB_S, 0}, GANG_SPEEDS_UNKNOWN, {1, 1, 1}},
        {"the same", 2, {20 * GB_S, 20 * GB_S}, GANG_SPEEDS_ALIKE, {1, 1}},
        {"an eighth more", 2, {9 * GB_S, 8 * GB_S}, GANG_SPEEDS_ALIKE, {1, 1}},
        {"and a little", 2, {9 * GB_S + 1, 8 * GB_S}, GANG_SPEEDS_DIFFER, {9, 8}},
        {"three times", 2, {30 * GB_S, 10 * GB_S}, GANG_SPEEDS_DIFFER, {24, 8}},
        {"measured again", 2, {29500000000, 9900000000}, GANG_SPEEDS_DIFFER, {24, 8}},
        {"and again", 2, {30100000000, 10150000000}, GANG_SPEEDS_DIFFER, {24, 8}},
        {"the slowest first",
         4,
         {10 * GB_S, 15 * GB_S, 20 * GB_S, 40 * GB_S},
         GANG_SPEEDS_DIFFER,
         {8, 12, 16, 32}},
        {"two alike of three",
         3,
         {31 * GB_S, 30 * GB_S, 10 * GB_S},
         GANG_SPEEDS_DIFFER,
         {25, 24, 8}},
        {"a byte a second", 2, {1, 10 * GB_S}, GANG_SPEEDS_DIFFER, {8, 512}},
        {"bytes a second", 3, {1, 2, 1}, GANG_SPEEDS_DIFFER, {8, 16, 8}},
        {"the most that may be said",
         2,
         {LIMIT_READ_BYTES_PER_S, LIMIT_READ_BYTES_PER_S / 2},
         GANG_SPEEDS_DIFFER,
         {16, 8}},
        {"and the least", 2, {LIMIT_READ_BYTES_PER_S, 1}, GANG_SPEEDS_DIFFER, {512, 8}},
        {"one that says next to nothing",
         3,
         {1, 10 * GB_S, 32 * GB_S},
         GANG_SPEEDS_DIFFER,
         {8, 160, 512}},
        {"and one that says far too much",
         3,
         {10 * GB_S, 20 * GB_S, LIMIT_READ_BYTES_PER_S},
         GANG_SPEEDS_DIFFER,
         {8, 8, 512}},
        {"64 times", 2, {64 * GB_S, GB_S}, GANG_SPEEDS_DIFFER, {512, 8}},
        {"and half of it", 2, {32 * GB_S, GB_S}, GANG_SPEEDS_DIFFER, {256, 8}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        uint64_t weight[SHARD_RANKS_MAX] = {0};
        if (gang_speeds_of(table[i].bytes_per_s, table[i].n, weight) != table[i].speeds)
            fail_msg("%s", table[i].what);
        for (uint32_t r = 0; r < table[i].n; r++) {
            if (weight[r] != table[i].weight[r])
                fail_msg("%s: weight %u is %llu", table[i].what, r, (unsigned long long)weight[r]);
        }
    }
}

static uint64_t random_of(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

/* Nobody has more than there is room for; all is shared out; and who is not full has at least as
 * much for its bandwidth as anybody else: nothing can be moved to make the largest smaller. */
static void rooms_are_filled_by_bandwidth(void **state)
{
    uint64_t x = 88172645463325252u;
    (void)state;
    for (uint32_t i = 0; i < 20000; i++) {
        const uint32_t n = 1 + (uint32_t)(random_of(&x) % SHARD_RANKS_MAX);
        uint64_t wanted[SHARD_RANKS_MAX], room[SHARD_RANKS_MAX], got[SHARD_RANKS_MAX];
        uint64_t all = 0, sum = 0;
        for (uint32_t r = 0; r < n; r++) {
            wanted[r] = 1 + random_of(&x) % 512;
            room[r] = random_of(&x) % ((uint64_t)1 << (30 + random_of(&x) % 12));
            all += room[r];
        }
        const uint64_t bytes = random_of(&x) % (all + all / 4 + 1);
        const bool fits = gang_share_fill(wanted, room, n, bytes, got);
        assert_int_equal(fits, bytes <= all);
        for (uint32_t r = 0; r < n && fits; r++) {
            sum += got[r];
            assert_true(got[r] <= room[r]);
            for (uint32_t q = 0; q < n; q++) {
                if (got[r] < room[r] && (got[r] + 1) * wanted[q] < got[q] * wanted[r])
                    fail_msg("round %u: %u of %u could have more", i, r, n);
            }
        }
        assert_true(!fits || (sum <= bytes && sum + n > bytes));
    }
}

static void the_largest_numbers_overflow_nothing(void **state)
{
    const uint64_t wanted[] = {512, 8, 512}, most[] = {UINT64_MAX, UINT64_MAX, UINT64_MAX};
    const uint64_t none[] = {0, 0, 0}, one[] = {0, UINT64_MAX, 0};
    uint64_t got[3];
    (void)state;
    assert_true(gang_share_fill(wanted, most, 3, UINT64_MAX, got));
    assert_true(got[0] == got[2] && got[0] / 64 == got[1]);
    assert_false(gang_share_fill(wanted, none, 3, UINT64_MAX, got));
    assert_true(gang_share_fill(wanted, none, 3, 0, got));
    assert_true(gang_share_fill(wanted, one, 3, UINT64_MAX, got));
    assert_true(got[0] == 0 && got[1] == UINT64_MAX && got[2] == 0);
}

/* ---- gangs ---- */

struct reader {
    const char *name;
    double gb, gb_s; /* all of it free; 0: its bandwidth is not known */
    uint8_t host;    /* 0: 1 */
};

static uint64_t reader(struct core_test *t, const struct reader *r)
{
    const struct gang_member m = {.name = r->name,
                                  .gb = r->gb,
                                  .host = r->host != 0 ? r->host : 1,
                                  .transports = GANG_SHM | GANG_UCX};
    struct core_test_worker w = gang_member_hello(&m);
    w.read_bytes_per_s = (uint64_t)(r->gb_s * (double)GB_S);
    return core_test_worker(t, &w);
}

static void how_it_is_shared_out(void **state)
{
    static const struct {
        const char *what;
        struct reader readers[4];
        enum core_gang_split split;
        const char *order; /* by rank */
        double gb[4];      /* of each rank, within 0.05 */
        const char *says;
    } table[] = {
        {"nobody says how fast it is",
         {{"a", 4, 0, 0}, {"b", 4, 0, 0}},
         CORE_GANG_SPLIT_AUTO,
         "ab",
         {3.0, 3.0},
         "; even shares, the bandwidth of a is not known: a 3231.8 MB, b 3231.8 MB"},
        {"one does not, as workers of before",
         {{"a", 4, 30, 0}, {"b", 4, 0, 0}},
         CORE_GANG_SPLIT_AUTO,
         "ab",
         {3.0, 3.0},
         "; even shares, the bandwidth of b is not known: a 3231.8 MB, b 3231.8 MB"},
        {"alike",
         {{"a", 4, 20.1, 0}, {"b", 4, 21, 0}},
         CORE_GANG_SPLIT_AUTO,
         "ab",
         {3.0, 3.0},
         "; even shares: a 3231.8 MB at 20.1 GB/s, b 3231.8 MB at 21.0 GB/s"},
        {"three to one",
         {{"a", 5, 10, 0}, {"b", 5, 30, 0}},
         CORE_GANG_SPLIT_AUTO,
         "ab",
         {1.5, 4.5},
         "; shares by bandwidth: a 1621.3 MB at 10.0 GB/s, b 4842.4 MB at 30.0 GB/s"},
        {"as stages",
         {{"a", 5, 10, 0}, {"b", 5, 30, 0}},
         CORE_GANG_SPLIT_STAGES,
         "ab",
         {1.5, 4.5},
         "2 stages over shm"},
        {"two to one to one",
         {{"a", 3.5, 20, 0}, {"b", 3.4, 10, 0}, {"c", 2.4, 10, 0}},
         CORE_GANG_SPLIT_AUTO,
         "ab",
         {3.0, 3.0},
         "; shares by bandwidth as far as each has room: a"},
        {"no room for so much: as much as there is room for",
         {{"a", 4, 30, 0}, {"b", 5, 10, 0}},
         CORE_GANG_SPLIT_AUTO,
         "ba",
         {2.25, 3.75},
         "; shares by bandwidth as far as each has room: b"},
        {"little room, and fast",
         {{"a", 2, 30, 0}, {"b", 5, 10, 0}},
         CORE_GANG_SPLIT_AUTO,
         "ba",
         {4.5, 1.5},
         "; shares by bandwidth as far as each has room: b"},
        {"alike, and little room",
         {{"a", 2, 10, 0}, {"b", 5, 10, 0}},
         CORE_GANG_SPLIT_AUTO,
         "ba",
         {4.5, 1.5},
         "; even shares as far as each has room: b 4840.3 MB at 10.0 GB/s, a 1623.4 MB at 10.0"},
        {"by room where nothing is known",
         {{"a", 2, 0, 0}, {"b", 5, 0, 0}},
         CORE_GANG_SPLIT_AUTO,
         "ba",
         {4.5, 1.5},
         "; shares by room: b 4"},
        {"a byte a second",
         {{"a", 5, 1e-9, 0}, {"b", 5, 30, 0}},
         CORE_GANG_SPLIT_AUTO,
         "ab",
         {1.5, 4.5},
         "; shares by bandwidth as far as each has room: a"},
        {"more than there is in the world",
         {{"a", 4, 1.8e10, 0}, {"b", 4, 1.8e10, 0}},
         CORE_GANG_SPLIT_AUTO,
         "ab",
         {3.0, 3.0},
         "; even shares: a 3231.8 MB at 1000000.0 GB/s, b 3231.8 MB at 1000000.0 GB/s"},
        {"of several hosts",
         {{"a", 5, 10, 1}, {"b", 5, 30, 2}},
         CORE_GANG_SPLIT_AUTO,
         "ab",
         {1.5, 4.5},
         "over ucx: "},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct core_test t;
        uint64_t session[4] = {0};
        char got[8] = "";
        core_test_init(&t);
        t.config.gang_split = table[i].split;
        core_test_open(&t);
        for (uint32_t k = 0; k < 4 && table[i].readers[k].name != NULL; k++)
            session[k] = reader(&t, &table[i].readers[k]);
        const uint64_t client = core_test_client(&t, "c", "", 2);
        assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
        const struct wire_request ask = {
            .kind = WIRE_REQUEST_LIST_WORKERS, .session = client, .list_workers = {.after = ""}};
        for (uint32_t k = 0; k < 4 && session[k] != 0; k++) {
            const struct wire_pull_reply pull = core_test_pull(&t, session[k], 0);
            if (pull.n_commands == 0)
                continue;
            const uint32_t rank = pull.commands[0].load.place.rank;
            struct wire_request request = ask;
            got[rank] = table[i].readers[k].name[0];
            const struct wire_list_workers_reply *r = &core_test_ask(&t, &request)->list_workers;
            const double gb = (double)r->workers[k].claimed_bytes / (double)GB - 0.01;
            if (gb < table[i].gb[rank] - 0.05 || gb > table[i].gb[rank] + 0.05)
                fail_msg("%s: %.3f GB for rank %u: %s", table[i].what, gb, rank,
                         core_test_explain(&t, client, 1)->gang);
            assert_true(r->workers[k].claimed_bytes <= r->workers[k].memory.total_bytes);
        }
        if (strcmp(got, table[i].order) != 0)
            fail_msg("%s: %s", table[i].what, got);
        const char *gang = core_test_explain(&t, client, 1)->gang;
        if (strstr(gang, table[i].says) == NULL)
            fail_msg("%s: %s", table[i].what, gang);
        core_test_fini(&t);
    }
}

/* Layers in two stages. By bandwidth b would have the more of them, and at the borders there are
 * more than what it is offered. */
static void what_comes_to_more_is_offered_less(void **state)
{
    static const struct {
        uint32_t n_layers;
        double gb, gb_s; /* b's; a has 4.5 and 10 */
        const char *says;
    } table[] = {
        {3, 4.1, 12, "; shares by bandwidth: a 2"},
        {3, 3.78, 12, "; shares by bandwidth as far as each has room: a 4"},
        {4, 4.4, 22, "; even shares, no room for those by bandwidth: a 3"},
    };
    struct shard_shape shape;
    struct buf packed;
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct core_test t;
        even_shape_make(&shape);
        shape.n_layers = table[i].n_layers;
        buf_init(&packed);
        assert_int_equal(shard_shape_pack(&shape, LIMIT_SHAPE_BYTES, &packed, NULL), ERR_OK);
        core_test_init(&t);
        t.config.gang_split = CORE_GANG_SPLIT_STAGES;
        core_test_open(&t);
        for (uint32_t k = 0; k < 2; k++) {
            const struct gang_member m = {
                k == 0 ? "a" : "b", k == 0 ? 4.5 : table[i].gb, 1, GANG_SHM, NULL, false};
            struct core_test_worker w = gang_member_hello(&m);
            w.shape = (struct wire_bytes){packed.data, packed.size};
            w.read_bytes_per_s = (uint64_t)(k == 0 ? 10 : table[i].gb_s) * GB_S;
            (void)core_test_worker(&t, &w);
        }
        const uint64_t client = core_test_client(&t, "c", "", 2);
        assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
        const char *gang = core_test_explain(&t, client, 1)->gang;
        if (strstr(gang, table[i].says) == NULL)
            fail_msg("%.2f GB: %s", table[i].gb, gang);
        core_test_fini(&t);
        buf_fini(&packed);
        shard_shape_fini(&shape);
    }
}

static void a_worker_says_how_fast_it_is(void **state)
{
    static const struct reader readers[] = {{"a", 4, 20.5, 0}, {"b", 4, 0, 0}, {"c", 4, 1.8e10, 0}};
    const uint64_t want[] = {20500000000, 0, LIMIT_READ_BYTES_PER_S};
    struct core_test t;
    (void)state;
    core_test_start(&t);
    for (size_t i = 0; i < 3; i++)
        (void)reader(&t, &readers[i]);
    struct wire_request ask = {.kind = WIRE_REQUEST_LIST_WORKERS,
                               .session = core_test_client(&t, "c", "", 2),
                               .list_workers = {.after = ""}};
    const struct wire_list_workers_reply *r = &core_test_ask(&t, &ask)->list_workers;
    assert_int_equal(r->n_workers, 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(r->workers[i].read_bytes_per_s == want[i]);
    /* The next Hello replaces it. */
    (void)reader(&t, &(struct reader){"a", 4, 0, 0});
    assert_true(core_test_ask(&t, &ask)->list_workers.workers[0].read_bytes_per_s == 0);
    core_test_fini(&t);
}

/* What c has to do: a job of model "x", or a part of it as rank 1 of a gang of before. */
enum work { NONE, JOB, PART };

static uint64_t reader_at_work(struct core_test *t, const struct reader *r, enum work work)
{
    const struct gang_member m = {r->name, r->gb, r->host != 0 ? r->host : 1, GANG_SHM | GANG_UCX,
                                  NULL,    false};
    struct wire_model_status has[2] = {
        gang_status_of(WIRE_MODEL_STATE_AVAILABLE, (struct gang_share){0, 0, 0}, ""),
        gang_status_of(WIRE_MODEL_STATE_READY, (struct gang_share){3, 1, 2}, "")};
    struct core_test_worker w = gang_member_hello(&m);
    w.read_bytes_per_s = (uint64_t)r->gb_s * GB_S;
    if (work != NONE) {
        w.models[1] = has[1].name = "x";
        w.weights_bytes[1] = GB / 100;
        w.ready[1] = true;
    }
    if (work == PART) {
        has[1].weights_bytes = GB / 100;
        w.status = has;
        w.n_status = 2;
    }
    return core_test_worker(t, &w);
}

static void who_is_taken(void **state)
{
    static const struct {
        const char *what;
        struct reader readers[4];
        enum work c_has;
        const char *order;
    } table[] = {
        {"the fastest of those that have room",
         {{"a", 4.4, 10, 0}, {"b", 4.4, 10, 0}, {"c", 4, 30, 0}, {"d", 4.2, 30, 0}},
         NONE,
         "dc"},
        {"one of them",
         {{"a", 4.4, 10, 0}, {"b", 4.4, 10, 0}, {"c", 4, 10, 0}, {"d", 5, 30, 0}},
         NONE,
         "da"},
        {"not for an eighth",
         {{"a", 4.4, 10, 0}, {"b", 4.4, 10, 0}, {"c", 4, 11, 0}, {"d", 4.2, 11, 0}},
         NONE,
         "ab"},
        {"not where their shares have no room",
         {{"a", 4.4, 10, 0}, {"b", 4.4, 10, 0}, {"c", 2.9, 30, 0}, {"d", 2.9, 30, 0}},
         NONE,
         "ab"},
        {"not those that say nothing",
         {{"a", 4.4, 10, 0}, {"b", 4.4, 10, 0}, {"c", 4, 0, 0}, {"d", 4.2, 0, 0}},
         NONE,
         "ab"},
        {"nor instead of such",
         {{"a", 4.4, 10, 0}, {"b", 4.4, 0, 0}, {"c", 4, 30, 0}, {"d", 4.2, 30, 0}},
         NONE,
         "ab"},
        {"not one that has jobs",
         {{"a", 4.8, 10, 0}, {"b", 4.7, 10, 0}, {"c", 4.3, 30, 0}, {"d", 4.6, 30, 0}},
         JOB,
         "ad"},
        {"nor one that has a part of another model",
         {{"a", 4.8, 10, 0}, {"b", 4.7, 10, 0}, {"c", 4.3, 30, 0}, {"d", 4.6, 30, 0}},
         PART,
         "ad"},
        {"not where their shares would be by room",
         {{"a", 4.4, 10, 0}, {"b", 4.4, 10, 0}, {"c", 2.5, 30, 0}, {"d", 4.2, 30, 0}},
         NONE,
         "ab"},
        {"not for more hosts",
         {{"a", 2.7, 10, 1}, {"b", 2.7, 10, 1}, {"c", 2.6, 14, 2}, {"d", 2.5, 16, 3}},
         NONE,
         "abc"},
        {"for as many",
         {{"a", 2.7, 10, 1}, {"b", 2.7, 10, 1}, {"c", 2.6, 14, 2}, {"d", 2.5, 16, 2}},
         NONE,
         "acd"},
        {"not for another host",
         {{"a", 4.4, 10, 0}, {"b", 4.4, 10, 0}, {"c", 4, 30, 2}, {"d", 4.2, 30, 3}},
         NONE,
         "ab"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct core_test t;
        uint64_t session[4] = {0}, acked[4] = {0};
        char got[8] = "";
        core_test_start(&t);
        const uint64_t client = core_test_client(&t, "c", "", 2);
        for (uint32_t k = 0; k < 4; k++) {
            const struct reader *r = &table[i].readers[k];
            session[k] = reader_at_work(&t, r, k == 2 ? table[i].c_has : NONE);
        }
        if (table[i].c_has == JOB) {
            assert_int_equal(core_test_submit_ask(&t, client, 2, "x", 20), ERR_OK);
            const struct wire_command run = gang_command(&t, session[2], 0, WIRE_COMMAND_RUN);
            acked[2] = run.seq;
        }
        assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
        for (uint32_t k = 0; k < 4; k++) {
            const struct wire_pull_reply pull = core_test_pull(&t, session[k], acked[k]);
            if (pull.n_commands > 0)
                got[pull.commands[0].load.place.rank] = table[i].readers[k].name[0];
        }
        if (strcmp(got, table[i].order) != 0)
            fail_msg("%s: %s", table[i].what, got);
        core_test_fini(&t);
    }
}

/* Each has an idle model of 3 GB: two are emptied of it, the roomiest. */
static void nothing_is_unloaded_for_speed(void **state)
{
    static const struct reader readers[] = {
        {"a", 4.4, 10, 0}, {"b", 4.4, 10, 0}, {"c", 4.2, 30, 0}, {"d", 4.2, 30, 0}};
    struct core_test t;
    uint64_t session[4];
    (void)state;
    core_test_init(&t);
    t.config.residency_ms = 0; /* what has no jobs may be unloaded at once */
    core_test_open(&t);
    for (uint32_t k = 0; k < 4; k++) {
        const struct gang_member m = {readers[k].name, readers[k].gb, 1, GANG_SHM, NULL, false};
        struct core_test_worker w = gang_member_hello(&m);
        w.models[1] = "x";
        w.weights_bytes[1] = 3 * GB;
        w.ready[1] = true;
        w.free_bytes = w.total_bytes - 3 * GB;
        w.read_bytes_per_s = (uint64_t)readers[k].gb_s * GB_S;
        session[k] = core_test_worker(&t, &w);
    }
    const uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    for (uint32_t k = 0; k < 2; k++)
        (void)gang_command(&t, session[k], 0, WIRE_COMMAND_UNLOAD);
    for (uint32_t k = 2; k < 4; k++)
        assert_int_equal(core_test_pull(&t, session[k], 0).n_commands, 0);
    core_test_fini(&t);
}

/* Shards of a model with one KV head have all of its pool each; stages have their layers'. */
static void stages_are_not_taken_for_speed(void **state)
{
    static const struct reader readers[] = {
        {"a", 9.8, 10, 0}, {"b", 9.8, 10, 0}, {"c", 6.5, 30, 0}, {"d", 6.5, 30, 0}};
    struct core_test t;
    struct shard_shape shape;
    struct buf packed;
    uint64_t session[4];
    (void)state;
    even_shape_make(&shape);
    for (uint32_t k = 0; k < shape.n_kinds; k++)
        shape.kind[k].n_kv_heads = 1;
    shape.kv_head_bytes = 4000000;
    buf_init(&packed);
    assert_int_equal(shard_shape_pack(&shape, LIMIT_SHAPE_BYTES, &packed, NULL), ERR_OK);
    core_test_start(&t);
    for (uint32_t k = 0; k < 4; k++) {
        const struct gang_member m = {readers[k].name, readers[k].gb, 1, GANG_SHM, NULL, false};
        struct core_test_worker w = gang_member_hello(&m);
        w.kv_bytes = 6 * GB;
        w.shape = (struct wire_bytes){packed.data, packed.size};
        w.read_bytes_per_s = (uint64_t)readers[k].gb_s * GB_S;
        session[k] = core_test_worker(&t, &w);
    }
    const uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    for (uint32_t k = 0; k < 4; k++) {
        const struct wire_pull_reply pull = core_test_pull(&t, session[k], 0);
        assert_int_equal(pull.n_commands, k < 2);
        if (k < 2)
            assert_int_equal(pull.commands[0].load.place.stages, 1);
    }
    core_test_fini(&t);
    buf_fini(&packed);
    shard_shape_fini(&shape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bandwidths_are_small_numbers),
        cmocka_unit_test(rooms_are_filled_by_bandwidth),
        cmocka_unit_test(the_largest_numbers_overflow_nothing),
        cmocka_unit_test(how_it_is_shared_out),
        cmocka_unit_test(a_worker_says_how_fast_it_is),
        cmocka_unit_test(who_is_taken),
        cmocka_unit_test(stages_are_not_taken_for_speed),
        cmocka_unit_test(what_comes_to_more_is_offered_less),
        cmocka_unit_test(nothing_is_unloaded_for_speed),
    };
    return cmocka_run_group_tests(tests, gang_test_setup, gang_test_teardown);
}
