/* Workers that hold a model together: what each says of its share, how a gang comes about over
 * either transport, and what is left of it when it ends. The workers are engines of this process.
 */
#include "common/check.h"
#include "common/clock.h"
#include "common/shard_cut.h"
#include "tests/unit/engine/tiny_model.h"
#include "tests/unit/worker/resident.h"
#include "worker/gang_offer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define RANKS_MAX 4u

struct cluster {
    uint32_t n;
    struct resident worker[RANKS_MAX];
};

static uint64_t next_gang = 7ull << 32;

static void cluster_open(struct cluster *c, uint32_t n)
{
    struct errbuf eb = {{0}};
    c->n = n;
    for (uint32_t k = 0; k < n; k++) {
        resident_open(&c->worker[k]);
        if (gang_offer_models(&c->worker[k].catalogue, &resident_offer, &resident_config, "test",
                              &eb) != ERR_OK)
            fail_msg("%s", eb.text);
    }
}

static void cluster_close(struct cluster *c)
{
    for (uint32_t k = 0; k < c->n; k++)
        resident_close(&c->worker[k]);
}

static uint8_t coordinator = 1; /* whose gangs they are */
static uint32_t stages = 1;     /* that they are cut into */

static struct gang_place place_of(uint64_t gang, uint32_t rank, uint32_t n_ranks,
                                  enum wire_gang_transport transport)
{
    static const struct wire_gang_member members[RANKS_MAX] = {
        {"w1", 3}, {"w2", 2}, {"w3", 2}, {"w4", 1}};
    struct wire_gang_place from = {.gang = gang,
                                   .rank = rank,
                                   .stages = stages,
                                   .transport = transport,
                                   .members = members,
                                   .n_members = n_ranks};
    const pid_t pid = getpid();
    struct gang_place place;
    memcpy(from.group, &pid, sizeof pid);
    memcpy(from.group + 8, &gang, sizeof gang);
    from.group[7] = coordinator;
    gang_place_of(&from, &place);
    return place;
}

/* Everyone is told his place in a new gang. */
static uint64_t form(struct cluster *c, enum wire_gang_transport transport)
{
    const uint64_t gang = ++next_gang;
    for (uint32_t k = 0; k < c->n; k++) {
        const struct gang_place place = place_of(gang, k, c->n, transport);
        residency_load(&c->worker[k].residency, c->worker[k].m, &place);
    }
    return gang;
}

/* Whoever leaves one gang for the next comes to it only when his agent looks: all of them do. */
static void all_until(struct cluster *c, enum wire_model_state state)
{
    const uint64_t limit = clock_mono_ms() + 60000;
    for (bool done = false; !done;) {
        done = true;
        for (uint32_t k = 0; k < c->n; k++) {
            const struct catalogue_model *m = c->worker[k].m;
            resident_poll(&c->worker[k]);
            done = done && m->state == state && !m->unloading;
            if (clock_mono_ms() > limit)
                fail_msg("worker %u: the model is %d after a minute (%s), not %d", k, m->state,
                         m->error, state);
        }
        CHECK(usleep(200) == 0);
    }
}

static void assert_free(const struct catalogue_model *m)
{
    assert_int_equal(m->place.gang, 0);
    assert_int_equal(m->place.n_ranks, 0);
    assert_int_equal(m->weights_bytes + m->kv_bytes + m->scratch_bytes + m->exchange_bytes, 0);
    assert_null(m->rendezvous);
}

static void what_is_said_of_shares(const struct gang_place *place)
{
    static const struct {
        uint32_t n_ranks;
        uint64_t weights[4];
        const char *says;
    } rows[] = {
        {2, {1, 1}, "even shares"},
        {3, {7, 7, 7}, "even shares"},
        {2, {24, 8}, "shares 75 %, 25 %"},
        {2, {8, 512}, "shares 2 %, 98 %"},
        {3, {4194304, 4194304, 0}, "shares 50 %, 50 %, 0 %"},
        {4, {UINT64_MAX, UINT64_MAX, UINT64_MAX, 1}, "shares 33 %, 33 %, 33 %, 0 %"},
    };
    struct gang_place p = *place;
    char text[GANG_SHARES_TEXT_BYTES];

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        p.n_ranks = rows[i].n_ranks;
        memcpy(p.weights, rows[i].weights, sizeof rows[i].weights);
        assert_string_equal(gang_shares_text(&p, text), rows[i].says);
    }
    p.n_ranks = SHARD_RANKS_MAX;
    memset(p.weights, 0, sizeof p.weights);
    p.weights[15] = 1;
    assert_int_equal(strlen(gang_shares_text(&p, text)), 7 + 15 * 5 + 5);
}

static void a_place_is_what_the_command_says(void **state)
{
    static const struct gang_offer offer = {.host = {1, 2, 3}, .nccl_bytes = 77};
    const struct gang_place p = place_of(5ull << 32 | 17, 1, 3, WIRE_GANG_TRANSPORT_SHM);
    struct engine_model_config model = {.path = "x"};
    struct gang_config gang;
    char text[GANG_TEXT_BYTES];
    (void)state;

    assert_string_equal(p.with, "w1, w2, w3");
    assert_string_equal(p.leader, "w1");
    assert_string_equal(gang_text(p.gang, text), "5.17");
    what_is_said_of_shares(&p);
    gang_place_apply(&p, "build", &offer, &model, &gang);
    assert_memory_equal(gang.coll.host, offer.host, sizeof offer.host);
    assert_int_equal(gang.nccl_bytes, 0);
    assert_int_equal(model.shard.shards, 3);
    assert_int_equal(model.shard.n_weights, 3);
    assert_int_equal(model.shard.weights[0], 3);
    assert_int_equal(model.shard.weights[2], 2);
    assert_int_equal(model.rank, 1);
    assert_ptr_equal(model.gang, &gang);
    assert_int_equal(gang.coll.epoch, p.gang);
    assert_int_equal(gang.coll.n_ranks, 3);
    assert_int_equal(gang_config_check(&gang, NULL), ERR_OK);

    /* Names as long as names may be do not run over. */
    struct wire_gang_member members[SHARD_RANKS_MAX];
    char name[129];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    for (size_t i = 0; i < SHARD_RANKS_MAX; i++)
        members[i] = (struct wire_gang_member){name, 1};
    struct wire_gang_place from = {.gang = 1,
                                   .stages = 1,
                                   .transport = WIRE_GANG_TRANSPORT_UCX,
                                   .members = members,
                                   .n_members = SHARD_RANKS_MAX};
    struct gang_place place;
    gang_place_of(&from, &place);
    assert_int_equal(strlen(place.with), sizeof place.with - 1);
    assert_int_equal(place.transport, COLL_TRANSPORT_UCX);
    assert_int_equal(gang_place_meets_over(&place), COLL_TRANSPORT_UCX);

    /* Over NCCL, what it stands on is where its ranks meet. */
    for (int on_ucx = 0; on_ucx < 2; on_ucx++) {
        from.transport = WIRE_GANG_TRANSPORT_NCCL;
        from.control = on_ucx ? WIRE_GANG_TRANSPORT_UCX : WIRE_GANG_TRANSPORT_SHM;
        gang_place_of(&from, &place);
        gang_place_apply(&place, "build", &offer, &model, &gang);
        assert_int_equal(gang.coll.transport, COLL_TRANSPORT_NCCL);
        assert_int_equal(gang.coll.control, on_ucx ? COLL_TRANSPORT_UCX : COLL_TRANSPORT_SHM);
        assert_int_equal(gang_place_meets_over(&place), gang.coll.control);
        assert_int_equal(gang.nccl_bytes, 77);
        assert_int_equal(gang_config_check(&gang, NULL), ERR_OK);
    }
}

static void each_rank_says_which_it_is_and_what_it_holds(void **state)
{
    struct cluster c;
    (void)state;

    cluster_open(&c, 3);
    const uint64_t gang = form(&c, WIRE_GANG_TRANSPORT_SHM);
    all_until(&c, WIRE_MODEL_STATE_READY);
    for (uint32_t k = 0; k < 3; k++) {
        const struct catalogue_model *m = c.worker[k].m;
        assert_int_equal(m->place.gang, gang);
        assert_int_equal(m->place.rank, k);
        assert_int_equal(m->place.n_ranks, 3);
        assert_true(m->exchange_bytes > 0);
        assert_true(m->weights_bytes < m->offer.weights_bytes);
        assert_string_equal(m->error, "");
    }
    /* The same once more changes nothing. */
    for (uint32_t k = 0; k < 3; k++) {
        const struct gang_place place = place_of(gang, k, 3, WIRE_GANG_TRANSPORT_SHM);
        residency_load(&c.worker[k].residency, c.worker[k].m, &place);
        assert_int_equal(c.worker[k].m->state, WIRE_MODEL_STATE_READY);
        assert_false(c.worker[k].m->unloading);
    }
    cluster_close(&c);
}

/* Whoever leaves, the others hear of it, and nothing is wrong with them. */
static void a_gang_that_another_rank_ended_is_no_failure(void **state)
{
    struct cluster c;
    (void)state;

    cluster_open(&c, 3);
    for (uint32_t leaves = 0; leaves < 3; leaves++) {
        const uint64_t gang = form(&c, WIRE_GANG_TRANSPORT_SHM);
        all_until(&c, WIRE_MODEL_STATE_READY);
        residency_unload(&c.worker[leaves].residency, c.worker[leaves].m);
        all_until(&c, WIRE_MODEL_STATE_AVAILABLE);
        for (uint32_t k = 0; k < 3; k++) {
            struct catalogue_model *m = c.worker[k].m;
            char who[16];
            (void)snprintf(who, sizeof who, "rank %u", leaves);
            assert_free(m);
            assert_int_equal(m->failures, 0);
            assert_true(residency_place(m)->gang == gang);
            assert_int_equal(residency_place(m)->rank, k);
            if (k == leaves)
                assert_string_equal(m->error, "");
            else if (strstr(m->error, who) == NULL)
                fail_msg("rank %u left, rank %u heard: %s", leaves, k, m->error);
            /* It is over: who is told of it again does not wait for the others. */
            const struct gang_place place = place_of(gang, k, 3, WIRE_GANG_TRANSPORT_SHM);
            residency_load(&c.worker[k].residency, m, &place);
            assert_int_equal(m->state, WIRE_MODEL_STATE_AVAILABLE);
            /* What is left to say of it goes with the coordinator's UNLOAD. */
            residency_unload(&c.worker[k].residency, m);
            assert_string_equal(m->error, "");
        }
    }
    cluster_close(&c);
}

static void what_is_wrong_here_is_a_failure_here_only(void **state)
{
    struct cluster c;
    struct tiny_model tiny = tiny_model_default();
    (void)state;

    cluster_open(&c, 3);
    for (uint32_t bad = 0; bad < 3; bad++) {
        struct catalogue_model *m = c.worker[bad].m;
        assert_int_equal(truncate(c.worker[bad].path, 1000), 0);
        const uint64_t gang = form(&c, WIRE_GANG_TRANSPORT_SHM);
        while (m->state != WIRE_MODEL_STATE_FAILED) {
            for (uint32_t k = 0; k < 3; k++)
                resident_poll(&c.worker[k]);
            CHECK(usleep(200) == 0);
        }
        for (uint32_t k = 0; k < 3; k++)
            resident_until(&c.worker[k],
                           k == bad ? WIRE_MODEL_STATE_FAILED : WIRE_MODEL_STATE_AVAILABLE);
        assert_int_equal(m->failures, 1);
        assert_int_equal(m->place.gang, gang);
        assert_int_equal(m->place.rank, bad);
        for (uint32_t k = 0; k < 3; k++) {
            if (k == bad)
                continue;
            assert_free(c.worker[k].m);
            assert_int_equal(c.worker[k].m->failures, 0);
            assert_true(strlen(c.worker[k].m->error) > 0);
        }
        residency_unload(&c.worker[bad].residency, m);
        assert_int_equal(m->state, WIRE_MODEL_STATE_AVAILABLE);
        assert_string_equal(m->error, "");
        assert_free(m);
        assert_int_equal(m->failures, 1);
        assert_int_equal(unlink(c.worker[bad].path), 0);
        char path[64];
        tiny_model_write(&tiny, path);
        assert_int_equal(rename(path, c.worker[bad].path), 0);
        form(&c, WIRE_GANG_TRANSPORT_SHM);
        all_until(&c, WIRE_MODEL_STATE_READY);
        assert_int_equal(m->failures, 0);
    }
    cluster_close(&c);
}

/* A coordinator that lost its store counts from the beginning: what it says is not what was said.
 */
static void the_same_number_of_another_coordinator_is_another_gang(void **state)
{
    struct cluster c;
    (void)state;

    cluster_open(&c, 2);
    for (int ended = 0; ended < 2; ended++) {
        const uint64_t gang = form(&c, WIRE_GANG_TRANSPORT_SHM);
        all_until(&c, WIRE_MODEL_STATE_READY);
        if (ended) {
            residency_unload(&c.worker[0].residency, c.worker[0].m);
            all_until(&c, WIRE_MODEL_STATE_AVAILABLE);
        }
        next_gang = gang - 1;
        coordinator++;
        assert_int_equal(form(&c, WIRE_GANG_TRANSPORT_SHM), gang);
        assert_true(ended ? c.worker[0].m->state == WIRE_MODEL_STATE_LOADING
                          : c.worker[0].m->unloading);
        all_until(&c, WIRE_MODEL_STATE_READY);
        assert_int_equal(c.worker[0].m->place.group[7], coordinator);
    }
    cluster_close(&c);
}

/* W: the whole model; G: a place in a new gang; u: unloaded; e: events are taken. */
static void the_last_word_counts_for_gangs_too(void **state)
{
    static const char *const words[] = {"WG",   "GW",   "GG",   "WeG",  "GeW",  "GeG",
                                        "GuG",  "GuW",  "WuG",  "GWG",  "WGW",  "GeWG",
                                        "GeGW", "WeGW", "WeGu", "GeWu", "GuGu", "GeGuG"};
    struct cluster c;
    (void)state;

    cluster_open(&c, 2);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        uint64_t gang = 0;
        char last = 'u';
        for (const char *w = words[i]; *w != '\0'; w++) {
            if (*w == 'G')
                gang = form(&c, WIRE_GANG_TRANSPORT_SHM);
            for (uint32_t k = 0; k < c.n; k++) {
                if (*w == 'W')
                    residency_load(&c.worker[k].residency, c.worker[k].m, &resident_whole);
                else if (*w == 'u')
                    residency_unload(&c.worker[k].residency, c.worker[k].m);
            }
            if (*w == 'e')
                all_until(&c, WIRE_MODEL_STATE_READY);
            else
                last = *w;
        }
        all_until(&c, last == 'u' ? WIRE_MODEL_STATE_AVAILABLE : WIRE_MODEL_STATE_READY);
        for (uint32_t k = 0; k < c.n; k++) {
            struct catalogue_model *m = c.worker[k].m;
            if (m->place.gang != (last == 'G' ? gang : 0) || m->failures != 0 ||
                (m->exchange_bytes > 0) != (last == 'G'))
                fail_msg("%s: worker %u is in gang %llu, %u failures", words[i], k,
                         (unsigned long long)m->place.gang, m->failures);
            residency_unload(&c.worker[k].residency, m);
        }
        all_until(&c, WIRE_MODEL_STATE_AVAILABLE);
        assert_free(c.worker[0].m);
    }
    cluster_close(&c);
}

/* What the coordinator does: it hands everybody's address to all. */
static bool carry(struct cluster *c, uint64_t gang, struct wire_bytes *ret_all)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < c->n; k++) {
        struct wire_gang_address said[1];
        if (residency_addresses(&c->worker[k].residency, said) == 0)
            continue;
        assert_int_equal(said[0].gang, gang);
        assert_int_equal(said[0].rank, k);
        ret_all[k] = said[0].address;
        n++;
    }
    return n == c->n;
}

static void addresses_are_said_until_all_have_met(void **state)
{
    struct cluster c;
    struct wire_bytes all[RANKS_MAX] = {{0}};
    struct errbuf eb = {{0}};
    (void)state;

    if (coll_transport_available(COLL_TRANSPORT_UCX, &eb) != ERR_OK) {
        print_message("skipped: %s\n", eb.text);
        skip();
    }
    cluster_open(&c, 2);
    for (int round = 0; round < 2; round++) {
        const uint64_t gang = form(&c, WIRE_GANG_TRANSPORT_UCX);
        const uint64_t limit = clock_mono_ms() + 60000;
        while (!carry(&c, gang, all)) {
            assert_true(clock_mono_ms() < limit);
            CHECK(usleep(1000) == 0);
        }
        for (uint32_t k = 0; k < c.n; k++) {
            struct wire_command_meet meet = {.gang = gang + 1, .addresses = all, .n_addresses = 2};
            struct wire_gang_address said[1];
            assert_true(residency_has_news(&c.worker[k].residency));
            assert_false(residency_has_news(&c.worker[k].residency));
            residency_meet(c.worker[k].m, &meet); /* of another gang */
            meet.gang = gang;
            meet.n_addresses = 1;
            residency_meet(c.worker[k].m, &meet); /* of another number */
            assert_int_equal(residency_addresses(&c.worker[k].residency, said), 1);
            if (round == 1)
                continue;
            meet.n_addresses = 2;
            residency_meet(c.worker[k].m, &meet);
            residency_meet(c.worker[k].m, &meet); /* said again */
        }
        if (round == 1) { /* nobody comes: being told to go ends the wait */
            const uint64_t since = clock_mono_ms();
            for (uint32_t k = 0; k < c.n; k++)
                residency_unload(&c.worker[k].residency, c.worker[k].m);
            all_until(&c, WIRE_MODEL_STATE_AVAILABLE);
            assert_true(clock_mono_ms() - since < 10000);
        } else {
            all_until(&c, WIRE_MODEL_STATE_READY);
            for (uint32_t k = 0; k < c.n; k++) {
                struct wire_gang_address said[1];
                assert_int_equal(residency_addresses(&c.worker[k].residency, said), 0);
                assert_null(c.worker[k].m->rendezvous);
            }
            residency_unload(&c.worker[1].residency, c.worker[1].m);
            all_until(&c, WIRE_MODEL_STATE_AVAILABLE);
            assert_non_null(strstr(c.worker[0].m->error, "rank 1"));
            assert_int_equal(c.worker[0].m->failures, 0);
        }
        assert_free(c.worker[0].m);
    }
    cluster_close(&c);
}

static void a_worker_that_joins_no_gangs_says_so(void **state)
{
    struct resident r;
    (void)state;

    resident_open(&r);
    assert_string_equal(r.m->offer.gang_settings, "");
    const struct gang_place place = place_of(++next_gang, 0, 2, WIRE_GANG_TRANSPORT_SHM);
    residency_load(&r.residency, r.m, &place);
    assert_int_equal(r.m->state, WIRE_MODEL_STATE_FAILED);
    assert_non_null(strstr(r.m->error, "whole models only"));
    assert_int_equal(r.m->place.gang, place.gang);
    residency_load(&r.residency, r.m, &resident_whole);
    resident_until(&r, WIRE_MODEL_STATE_READY);
    resident_close(&r);
}

static void a_place_that_was_not_offered_is_refused_by_name(void **state)
{
    enum { SHM = 1u << WIRE_GANG_TRANSPORT_SHM, UCX = 1u << WIRE_GANG_TRANSPORT_UCX };
    enum { NCCL = 1u << WIRE_GANG_TRANSPORT_NCCL };
    static const struct {
        struct gang_offer offer;
        enum wire_gang_transport transport, control;
        const char *says;
    } rows[] = {
        {{.transports = SHM}, WIRE_GANG_TRANSPORT_UCX, 0, "this worker joins no gangs over ucx"},
        {{.transports = UCX}, WIRE_GANG_TRANSPORT_SHM, 0, "this worker joins no gangs over shm"},
        {{.transports = SHM | UCX},
         WIRE_GANG_TRANSPORT_NCCL,
         WIRE_GANG_TRANSPORT_SHM,
         "this worker joins no gangs over nccl"},
        {{.transports = NCCL, .controls = SHM},
         WIRE_GANG_TRANSPORT_NCCL,
         WIRE_GANG_TRANSPORT_UCX,
         "this worker's nccl does not stand on ucx"},
        {{.transports = NCCL, .controls = SHM | UCX},
         WIRE_GANG_TRANSPORT_SHM,
         0,
         "this worker joins no gangs over shm"},
    };
    struct cluster c;
    (void)state;

    cluster_open(&c, 1);
    struct resident *r = &c.worker[0];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct gang_place place = place_of(++next_gang, 0, 2, rows[i].transport);
        if (rows[i].transport == WIRE_GANG_TRANSPORT_NCCL)
            place.control = rows[i].control == WIRE_GANG_TRANSPORT_UCX ? COLL_TRANSPORT_UCX
                                                                       : COLL_TRANSPORT_SHM;
        r->residency.gangs = &rows[i].offer;
        residency_load(&r->residency, r->m, &place);
        assert_int_equal(r->m->state, WIRE_MODEL_STATE_FAILED);
        assert_string_equal(r->m->error, rows[i].says);
        assert_null(r->m->rendezvous);
    }
    cluster_close(&c);
}

/* What a rank holds is never more than its proportion and rank_bytes, by which it was placed. */
static void holds_what_was_reckoned(uint32_t n)
{
    struct cluster c;
    struct shard_shape shape;
    struct shard_cut *cut;
    cluster_open(&c, n);
    form(&c, WIRE_GANG_TRANSPORT_SHM);
    all_until(&c, WIRE_MODEL_STATE_READY);
    const struct wire_model_offer *offer = &c.worker[0].m->offer;
    const struct gang_place p = place_of(1, 0, n, WIRE_GANG_TRANSPORT_SHM);
    struct shard_request request = {.shards = n / stages, .stages = stages, .n_weights = n};
    memcpy(request.weights, p.weights, sizeof request.weights);
    assert_int_equal(shard_shape_unpack(&shape, offer->shape.data, offer->shape.size, NULL),
                     ERR_OK);
    assert_int_equal(shard_cut_new(&cut, &shape, &request, NULL), ERR_OK);
    for (uint32_t k = 0; k < n; k++) {
        const struct catalogue_model *m = c.worker[k].m;
        const uint64_t held = m->weights_bytes + m->kv_bytes + m->scratch_bytes + m->exchange_bytes;
        const uint64_t reckoned =
            shard_in_proportion(offer->weights_bytes, shard_cut_weights(&shape, cut, k),
                                shard_shape_weights(&shape)) +
            shard_in_proportion(offer->kv_bytes, shard_cut_kv(&shape, cut, k),
                                shard_shape_kv(&shape)) +
            offer->rank_bytes;
        if (held > reckoned)
            fail_msg("rank %u of %u in %u stages holds %llu bytes, %llu were reckoned", k, n,
                     stages, (unsigned long long)held, (unsigned long long)reckoned);
    }
    shard_cut_free(cut);
    shard_shape_fini(&shape);
    cluster_close(&c);
}

static void no_rank_holds_more_than_was_reckoned(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= RANKS_MAX; n++) {
        for (stages = 1; stages <= n && stages <= tiny_model_default().n_layers; stages++) {
            if (n % stages == 0)
                holds_what_was_reckoned(n);
        }
    }
    stages = 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_is_what_the_command_says),
        cmocka_unit_test(each_rank_says_which_it_is_and_what_it_holds),
        cmocka_unit_test(a_gang_that_another_rank_ended_is_no_failure),
        cmocka_unit_test(what_is_wrong_here_is_a_failure_here_only),
        cmocka_unit_test(the_same_number_of_another_coordinator_is_another_gang),
        cmocka_unit_test(the_last_word_counts_for_gangs_too),
        cmocka_unit_test(addresses_are_said_until_all_have_met),
        cmocka_unit_test(a_worker_that_joins_no_gangs_says_so),
        cmocka_unit_test(a_place_that_was_not_offered_is_refused_by_name),
        cmocka_unit_test(no_rank_holds_more_than_was_reckoned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
