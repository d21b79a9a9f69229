/* What a worker offers to gangs: the words in which ranks must agree, over what it can talk, and
 * how much a share of any cut takes of it at most.
 */
#include "common/shard_cut.h"
#include "tests/unit/worker/resident.h"
#include "worker/gang_offer.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Whatever ranks must agree in shows in the words, and nothing else does. */
static void words_are_equal_where_ranks_agree(void **state)
{
    static const struct {
        struct catalogue_source source;
        struct engine_config engine;
        const char *build;
        bool same;
    } rows[] = {
        {{.context_tokens = 128, .slots = 2}, {.step_tokens = 64, .sequences = 8}, "b", true},
        {{.context_tokens = 128, .slots = 2},
         {.step_tokens = 64, .sequences = 8, .threads = 2, .chunk_tokens = 8, .beside_tokens = 4},
         "b",
         true},
        {{.context_tokens = 127, .slots = 2}, {.step_tokens = 64, .sequences = 8}, "b", false},
        {{.context_tokens = 128, .slots = 3}, {.step_tokens = 64, .sequences = 8}, "b", false},
        {{.context_tokens = 128, .slots = 2, .kv_type = KV_TYPE_Q8_0},
         {.step_tokens = 64, .sequences = 8},
         "b",
         false},
        {{.context_tokens = 128, .slots = 2}, {.step_tokens = 63, .sequences = 8}, "b", false},
        {{.context_tokens = 128, .slots = 2}, {.step_tokens = 64, .sequences = 9}, "b", false},
        {{.context_tokens = 128, .slots = 2}, {.step_tokens = 64, .sequences = 8}, "c", false},
    };
    struct resident r;
    char first[256] = "";
    (void)state;

    resident_open(&r);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct catalogue_digests digests = {.folder = r.folder};
        struct catalogue_source source = rows[i].source;
        struct catalogue c;
        source.name = "tiny";
        source.path = r.path;
        assert_int_equal(catalogue_open(&c, &source, 1, &rows[i].engine, &digests, NULL), ERR_OK);
        assert_int_equal(
            gang_offer_models(&c, &resident_offer, &rows[i].engine, rows[i].build, NULL), ERR_OK);
        const char *words = c.models[0].offer.gang_settings;
        if (i == 0) {
            (void)snprintf(first, sizeof first, "%s", words);
            assert_string_equal(words, "CPUs, context 128, slots 2, KV f16, steps of 64, "
                                       "8 sequences, build b");
        }
        if ((strcmp(words, first) == 0) != rows[i].same)
            fail_msg("row %zu: %s", i, words);
        catalogue_close(&c);
    }
    resident_close(&r);
}

/* Of a worker that offers all: over NCCL, too, with what it takes itself counted by the groups. */
static void whatever_carries_it_no_more_was_reckoned(void **state)
{
    enum { BOTH = 1u << WIRE_GANG_TRANSPORT_SHM | 1u << WIRE_GANG_TRANSPORT_UCX };
    static const struct gang_offer all = {.transports = BOTH | 1u << WIRE_GANG_TRANSPORT_NCCL,
                                          .controls = BOTH};
    static const struct gang_config ways[] = {
        {.coll.transport = COLL_TRANSPORT_SHM},
        {.coll.transport = COLL_TRANSPORT_UCX},
        {.coll = {.transport = COLL_TRANSPORT_NCCL, .control = COLL_TRANSPORT_SHM},
         .nccl_bytes = 1 << 20},
        {.coll = {.transport = COLL_TRANSPORT_NCCL, .control = COLL_TRANSPORT_UCX},
         .nccl_bytes = 1 << 20},
    };
    struct shard_shape shape;
    struct resident r;
    (void)state;

    resident_open(&r);
    assert_int_equal(gang_offer_models(&r.catalogue, &all, &resident_config, "test", NULL), ERR_OK);
    const struct wire_model_offer *offer = &r.m->offer;
    assert_int_equal(shard_shape_unpack(&shape, offer->shape.data, offer->shape.size, NULL),
                     ERR_OK);
    for (uint32_t way = 0; way < sizeof ways / sizeof ways[0]; way++) {
        for (uint32_t rank = 0; rank < 4; rank++) {
            struct engine_model_config model = r.m->config;
            struct engine_estimate e;
            struct shard_cut *cut;
            model.shard = (struct shard_request){.shards = 2, .stages = 2};
            model.rank = rank;
            model.gang = &ways[way];
            assert_int_equal(engine_estimate_file(&resident_config, &model, &e, NULL), ERR_OK);
            assert_int_equal(shard_cut_new(&cut, &shape, &model.shard, NULL), ERR_OK);
            const uint64_t reckoned =
                shard_in_proportion(offer->weights_bytes, shard_cut_weights(&shape, cut, rank),
                                    shard_shape_weights(&shape)) +
                shard_in_proportion(offer->kv_bytes, shard_cut_kv(&shape, cut, rank),
                                    shard_shape_kv(&shape)) +
                offer->rank_bytes + shard_rank_groups(2, 2, rank) * ways[way].nccl_bytes;
            assert_true(engine_estimate_total(&e) <= reckoned);
            shard_cut_free(cut);
        }
    }
    shard_shape_fini(&shape);
    resident_close(&r);
}

/* Shares as bandwidth makes them, of up to 16 ranks. */
static void uneven_shares_take_no_more(void **state)
{
    static const struct gang_offer all = {.transports = 1u << WIRE_GANG_TRANSPORT_SHM |
                                                        1u << WIRE_GANG_TRANSPORT_UCX};
    static const struct gang_config ways[] = {{.coll.transport = COLL_TRANSPORT_SHM},
                                              {.coll.transport = COLL_TRANSPORT_UCX}};
    struct shard_shape shape;
    struct resident r;
    uint64_t x = 88172645463325252u;
    (void)state;

    resident_open(&r);
    assert_int_equal(gang_offer_models(&r.catalogue, &all, &resident_config, "test", NULL), ERR_OK);
    const struct wire_model_offer *offer = &r.m->offer;
    assert_int_equal(shard_shape_unpack(&shape, offer->shape.data, offer->shape.size, NULL),
                     ERR_OK);
    for (uint32_t i = 0; i < 600; i++) {
        struct engine_model_config model = r.m->config;
        struct shard_cut *cut;
        const uint32_t n = 2 + i % (SHARD_RANKS_MAX - 1);
        model.shard = (struct shard_request){.shards = n, .stages = 1, .n_weights = n};
        if (n % 2 == 0 && i % 3 == 0) {
            model.shard.stages = 2;
            model.shard.shards = n / 2;
        }
        for (uint32_t k = 0; k < n; k++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            model.shard.weights[k] = 8 + (x >> 11) % (1u << (i % 10));
        }
        model.gang = &ways[i / 7 % 2];
        assert_int_equal(shard_cut_new(&cut, &shape, &model.shard, NULL), ERR_OK);
        for (model.rank = 0; model.rank < n; model.rank++) {
            struct engine_estimate e;
            assert_int_equal(engine_estimate_file(&resident_config, &model, &e, NULL), ERR_OK);
            const uint64_t part =
                shard_in_proportion(offer->weights_bytes,
                                    shard_cut_weights(&shape, cut, model.rank),
                                    shard_shape_weights(&shape)) +
                shard_in_proportion(offer->kv_bytes, shard_cut_kv(&shape, cut, model.rank),
                                    shard_shape_kv(&shape));
            if (engine_estimate_total(&e) > part + offer->rank_bytes)
                fail_msg("round %u: rank %u of %u in %u stages", i, model.rank, n,
                         model.shard.stages);
        }
        shard_cut_free(cut);
    }
    shard_shape_fini(&shape);
    resident_close(&r);
}

static void transports_are_those_that_are_allowed_and_there(void **state)
{
    static const uint8_t nowhere[COLL_HOST_BYTES];
    const bool has_ucx = coll_transport_available(COLL_TRANSPORT_UCX, NULL) == ERR_OK;
    const uint32_t shm = 1u << WIRE_GANG_TRANSPORT_SHM;
    const uint32_t ucx = has_ucx ? 1u << WIRE_GANG_TRANSPORT_UCX : 0;
    struct gang_offer o, again;
    (void)state;

    assert_int_equal(gang_offer_read(GANG_CHOICE_AUTO, ENGINE_BACKEND_CPU, 0, &o, NULL), ERR_OK);
    assert_int_equal(o.transports, shm | ucx);
    assert_memory_not_equal(o.host, nowhere, sizeof nowhere);
    assert_int_equal(gang_offer_read(GANG_CHOICE_SHM, ENGINE_BACKEND_CPU, 0, &again, NULL), ERR_OK);
    assert_int_equal(again.transports, shm);
    assert_memory_equal(again.host, o.host, sizeof o.host);
    const enum err e = gang_offer_read(GANG_CHOICE_UCX, ENGINE_BACKEND_CPU, 0, &again, NULL);
    assert_int_equal(e, has_ucx ? ERR_OK : ERR_UNSUPPORTED);
    if (has_ucx) {
        assert_int_equal(again.transports, ucx);
        assert_memory_equal(again.host, nowhere, sizeof nowhere);
    }
    assert_int_equal(o.controls, 0);
}

/* A worker on a GPU, which opens no GPU for it. */
static void nccl_is_offered_where_it_is_there(void **state)
{
    const uint32_t shm = 1u << WIRE_GANG_TRANSPORT_SHM, nccl = 1u << WIRE_GANG_TRANSPORT_NCCL;
    char version[COLL_NCCL_VERSION_BYTES] = "";
    struct gang_offer cpu, o;
    struct errbuf eb = {{0}};
    (void)state;

    assert_int_equal(gang_offer_read(GANG_CHOICE_AUTO, ENGINE_BACKEND_CPU, 0, &cpu, NULL), ERR_OK);
    const bool has_nccl = coll_nccl_version(version, NULL) == ERR_OK;
    assert_int_equal(gang_offer_read(GANG_CHOICE_AUTO, ENGINE_BACKEND_CUDA, 5, &o, NULL), ERR_OK);
    assert_int_equal(o.transports, cpu.transports | (has_nccl ? nccl : 0));
    assert_int_equal(o.controls, has_nccl ? cpu.transports : 0);
    assert_int_equal(o.nccl_bytes, has_nccl ? 5 : 0);
    assert_string_equal(o.nccl_version, version);
    /* Nothing else, but for what it stands on. */
    const enum err e = gang_offer_read(GANG_CHOICE_NCCL, ENGINE_BACKEND_CUDA, 5, &o, &eb);
    assert_int_equal(e, has_nccl ? ERR_OK : ERR_UNSUPPORTED);
    if (has_nccl) {
        assert_int_equal(o.transports, nccl);
        assert_int_equal(o.controls, cpu.transports);
        assert_memory_equal(o.host, cpu.host, sizeof o.host);
    } else {
        assert_non_null(strstr(eb.text, "NCCL"));
    }
    /* Who is to stay off the network is not brought there by NCCL. */
    assert_int_equal(gang_offer_read(GANG_CHOICE_SHM, ENGINE_BACKEND_CUDA, 5, &o, NULL), ERR_OK);
    assert_int_equal(o.transports, shm);
    assert_int_equal(o.controls, 0);
    assert_int_equal(gang_offer_read(GANG_CHOICE_NCCL, ENGINE_BACKEND_CPU, 5, &o, &eb),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(eb.text, "this worker computes on a CPU"));
}

/* In another network namespace the ranks' socket is not found. */
static void another_network_namespace_is_another_host(void **state)
{
    struct gang_offer here, there;
    int status, fds[2];
    (void)state;

    assert_int_equal(gang_offer_read(GANG_CHOICE_SHM, ENGINE_BACKEND_CPU, 0, &here, NULL), ERR_OK);
    assert_int_equal(pipe(fds), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
            _exit(77);
        if (gang_offer_read(GANG_CHOICE_SHM, ENGINE_BACKEND_CPU, 0, &there, NULL) != ERR_OK ||
            write(fds[1], &there, sizeof there) != (ssize_t)sizeof there)
            _exit(1);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("skipped: no network namespaces\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(read(fds[0], &there, sizeof there), (ssize_t)sizeof there);
    assert_memory_not_equal(here.host, there.host, sizeof here.host);
    assert_int_equal(close(fds[0]), 0);
    assert_int_equal(close(fds[1]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_equal_where_ranks_agree),
        cmocka_unit_test(whatever_carries_it_no_more_was_reckoned),
        cmocka_unit_test(uneven_shares_take_no_more),
        cmocka_unit_test(transports_are_those_that_are_allowed_and_there),
        cmocka_unit_test(nccl_is_offered_where_it_is_there),
        cmocka_unit_test(another_network_namespace_is_another_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
