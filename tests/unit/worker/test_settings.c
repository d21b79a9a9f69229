/* What the configuration allows, the engine takes: a number that the file may hold is not refused
 * later, in words that blame a model. */
#include "common/limits.h"
#include "worker/bandwidth.h"
#include "worker/engine/runtime.h"
#include "worker/gang_offer.h"
#include "worker/kernels/pool.h"
#include "worker/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static enum err read_text(struct settings *c, const char *text, struct errbuf *eb)
{
    char path[] = "/tmp/worker-config-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(close(fd), 0);
    enum err e = settings_read(c, path, eb);
    assert_int_equal(unlink(path), 0);
    return e;
}

static void the_file_and_the_engine_have_one_range(void **state)
{
    static const struct {
        const char *key;
        long low, high;
    } rows[] = {
        {"threads", 0, LIMIT_WORKER_THREADS},
        {"step_tokens", ENGINE_STEP_TOKENS_MIN, ENGINE_STEP_TOKENS_MAX},
        {"sequences", 1, LIMIT_LEASES_PER_WORKER},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const long values[] = {rows[i].low - 1, rows[i].low, rows[i].high, rows[i].high + 1};
        for (size_t k = 0; k < 4; k++) {
            struct settings c;
            struct errbuf eb = {{0}};
            char text[128];
            (void)snprintf(text, sizeof text, "engine = { %s = %ld; };", rows[i].key, values[k]);
            enum err e = read_text(&c, text, &eb);
            if (k == 0 || k == 3) {
                assert_int_equal(e, ERR_INVALID);
                assert_non_null(strstr(eb.text, rows[i].key));
                continue;
            }
            assert_int_equal(e, ERR_OK);
            struct engine_config asked = {.threads = (uint32_t)c.engine.threads,
                                          .step_tokens = (uint32_t)c.engine.step_tokens,
                                          .sequences = (uint32_t)c.engine.sequences};
            struct engine_config complete;
            if (runtime_config_complete(&asked, &complete, &eb) != ERR_OK)
                fail_msg("%s: %s", text, eb.text);
            settings_fini(&c);
        }
    }
}

static void gangs_talk_over_what_is_named(void **state)
{
    static const struct {
        const char *text;
        enum gang_choice choice;
        uint64_t nccl_bytes;
        const char *refused; /* NULL: it is not */
    } rows[] = {
        {"", GANG_CHOICE_AUTO, COLL_NCCL_BYTES, NULL},
        {"gang_transport = \"auto\";", GANG_CHOICE_AUTO, COLL_NCCL_BYTES, NULL},
        {"gang_transport = \"shm\";", GANG_CHOICE_SHM, COLL_NCCL_BYTES, NULL},
        {"gang_transport = \"ucx\";", GANG_CHOICE_UCX, COLL_NCCL_BYTES, NULL},
        {"gang_transport = \"nccl\";", GANG_CHOICE_NCCL, COLL_NCCL_BYTES, NULL},
        {"gang_transport = \"tcp\";", 0, 0, "gang_transport"},
        {"nccl_memory = \"1GiB\";", GANG_CHOICE_AUTO, (uint64_t)1 << 30, NULL},
        {"nccl_memory = \"0\";", GANG_CHOICE_AUTO, 0, NULL},
        {"nccl_memory = \"much\";", 0, 0, "nccl_memory"},
        {"nccl_memory = -1;", 0, 0, "nccl_memory"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct settings c;
        struct errbuf eb = {{0}};
        char text[128];
        (void)snprintf(text, sizeof text, "engine = { %s };", rows[i].text);
        enum err e = read_text(&c, text, &eb);
        if (rows[i].refused != NULL) {
            assert_int_equal(e, ERR_INVALID);
            assert_non_null(strstr(eb.text, rows[i].refused));
            continue;
        }
        if (e != ERR_OK)
            fail_msg("%s: %s", text, eb.text);
        assert_int_equal(c.engine.gang_transport, (int)rows[i].choice);
        assert_int_equal(c.engine.nccl_bytes, rows[i].nccl_bytes);
        settings_fini(&c);
    }
}

static void bandwidth_is_measured_or_said(void **state)
{
    static const struct {
        const char *text;
        bool is_measured;
        uint64_t bytes_per_s;
        bool is_refused;
    } rows[] = {
        {"", true, 0, false},
        {"bandwidth = \"measure\";", true, 0, false},
        {"bandwidth = \"off\";", false, 0, false},
        {"bandwidth = \"450GB/s\";", false, 450000000000, false},
        {"bandwidth = \"20500MB/s\";", false, 20500000000, false},
        {"bandwidth = \"4TiB/s\";", false, (uint64_t)4 << 40, false},
        {"bandwidth = \"1B/s\";", false, 1, false},
        {"bandwidth = \"1000TB/s\";", false, LIMIT_READ_BYTES_PER_S, false},
        {"bandwidth = \"1001TB/s\";", false, 0, true},
        {"bandwidth = \"99999999999999999999TB/s\";", false, 0, true},
        {"bandwidth = \"99999999999999999999999999999999999999999B/s\";", false, 0, true},
        {"bandwidth = \"0GB/s\";", false, 0, true},
        {"bandwidth = \"0/s\";", false, 0, true},
        {"bandwidth = \"-1GB/s\";", false, 0, true},
        {"bandwidth = \"20.5GB/s\";", false, 0, true},
        {"bandwidth = \"450GB\";", false, 0, true},
        {"bandwidth = \"450\";", false, 0, true},
        {"bandwidth = \"450 GB/s\";", false, 0, true},
        {"bandwidth = \"/s\";", false, 0, true},
        {"bandwidth = \"\";", false, 0, true},
        {"bandwidth = \"Measure\";", false, 0, true},
        {"bandwidth = \"on\";", false, 0, true},
        {"bandwidth = 450;", false, 0, true},
        {"bandwidth = true;", false, 0, true},
    };
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bandwidth_choice choice = {.bytes_per_s = 99};
        struct settings c;
        struct errbuf eb = {{0}};
        char text[128];
        (void)snprintf(text, sizeof text, "engine = { %s };", rows[i].text);
        enum err e = read_text(&c, text, &eb);
        if (rows[i].is_refused) {
            if (e != ERR_INVALID || strstr(eb.text, ":1: engine.bandwidth: ") == NULL)
                fail_msg("%s: %s", text, eb.text);
            continue;
        }
        if (e != ERR_OK)
            fail_msg("%s: %s", text, eb.text);
        assert_int_equal(bandwidth_parse(c.engine.bandwidth, &choice, &eb), ERR_OK);
        assert_int_equal(choice.is_measured, rows[i].is_measured);
        assert_true(choice.bytes_per_s == rows[i].bytes_per_s);
        settings_fini(&c);
    }
}

static void more_threads_than_the_limit_are_refused_before_a_model_loads(void **state)
{
    struct engine_config asked = {.threads = LIMIT_WORKER_THREADS + 1}, complete;
    struct pool *pool;
    struct errbuf eb = {{0}};
    (void)state;

    assert_int_equal(runtime_config_complete(&asked, &complete, &eb), ERR_INVALID);
    assert_int_equal(pool_new(LIMIT_WORKER_THREADS + 1, &pool, &eb), ERR_INVALID);
    assert_in_range(backend_threads_auto(), 1, LIMIT_WORKER_THREADS);
    asked.threads = backend_threads_auto();
    assert_int_equal(runtime_config_complete(&asked, &complete, &eb), ERR_OK);
    assert_int_equal(pool_new(0, &pool, &eb), ERR_OK);
    assert_int_equal(pool_threads(pool), backend_threads_auto());
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_and_the_engine_have_one_range),
        cmocka_unit_test(gangs_talk_over_what_is_named),
        cmocka_unit_test(bandwidth_is_measured_or_said),
        cmocka_unit_test(more_threads_than_the_limit_are_refused_before_a_model_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
