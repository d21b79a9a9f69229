/* A gang's thread waits in the exchange until the agent has everybody's addresses, its time is up
 * or it is told to stop. */
#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"
#include "worker/rendezvous.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define RANKS 3u
#define OWN   1u

struct meeting {
    struct rendezvous *rendezvous;
    sem_t news;
    pthread_t thread;
    atomic_bool stop;
    size_t size;
    uint64_t wait_ms;
    /* The thread's, until it is joined. */
    enum err e;
    struct errbuf eb;
    struct coll_bytes got[RANKS];
    uint64_t took_ms;
};

static uint8_t bytes_of[RANKS][LIMIT_GANG_ADDRESS_BYTES + 1];

static void notify(void *arg)
{
    struct meeting *m = arg;
    CHECK(sem_post(&m->news) == 0);
}

static void *thread_main(void *arg)
{
    struct meeting *m = arg;
    const struct coll_rendezvous r = rendezvous_of(m->rendezvous);
    const uint64_t begin = clock_mono_ms();
    m->e = r.exchange(r.ctx, bytes_of[OWN], m->size, clock_mono_ns() + m->wait_ms * 1000000u,
                      &m->stop, m->got, &m->eb);
    m->took_ms = clock_mono_ms() - begin;
    return NULL;
}

static void meeting_begin(struct meeting *m, size_t size, uint64_t wait_ms)
{
    *m = (struct meeting){.size = size, .wait_ms = wait_ms};
    for (size_t k = 0; k < RANKS; k++)
        memset(bytes_of[k], (int)('a' + k), sizeof bytes_of[k]);
    CHECK(sem_init(&m->news, 0, 0) == 0);
    assert_int_equal(rendezvous_open(&m->rendezvous, OWN, RANKS, notify, m, NULL), ERR_OK);
    CHECK(pthread_create(&m->thread, NULL, thread_main, m) == 0);
}

static void meeting_await(struct meeting *m)
{
    struct timespec limit;
    CHECK(clock_gettime(CLOCK_REALTIME, &limit) == 0);
    limit.tv_sec += 60;
    if (sem_timedwait(&m->news, &limit) != 0)
        fail_msg("no address was put up within a minute");
}

static void meeting_end(struct meeting *m)
{
    CHECK(pthread_join(m->thread, NULL) == 0);
}

static void meeting_close(struct meeting *m)
{
    rendezvous_close(m->rendezvous);
    CHECK(sem_destroy(&m->news) == 0);
}

static void what_is_put_up_is_said_until_all_have_met(void **state)
{
    static const size_t sizes[] = {1, 300, LIMIT_GANG_ADDRESS_BYTES};
    (void)state;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct meeting m;
        struct wire_bytes mine, all[RANKS];
        meeting_begin(&m, sizes[i], 60000);
        meeting_await(&m);
        assert_true(rendezvous_has_news(m.rendezvous));
        assert_false(rendezvous_has_news(m.rendezvous));
        for (int again = 0; again < 2; again++) {
            assert_true(rendezvous_says(m.rendezvous, &mine));
            assert_int_equal(mine.size, sizes[i]);
            assert_memory_equal(mine.data, bytes_of[OWN], mine.size);
        }
        for (size_t k = 0; k < RANKS; k++)
            all[k] = (struct wire_bytes){.data = bytes_of[k], .size = k == OWN ? sizes[i] : k + 5};
        assert_int_equal(rendezvous_meet(m.rendezvous, all, RANKS, NULL), ERR_OK);
        /* They were copied. */
        memset(bytes_of, 'x', sizeof bytes_of);
        meeting_end(&m);
        assert_int_equal(m.e, ERR_OK);
        for (size_t k = 0; k < RANKS; k++) {
            assert_int_equal(m.got[k].size, all[k].size);
            for (size_t b = 0; b < m.got[k].size; b++)
                assert_int_equal(m.got[k].data[b], 'a' + k);
        }
        assert_false(rendezvous_says(m.rendezvous, &mine));
        assert_int_equal(rendezvous_meet(m.rendezvous, all, RANKS, NULL), ERR_STALE);
        meeting_close(&m);
    }
}

static void other_addresses_change_nothing(void **state)
{
    struct meeting m;
    struct wire_bytes all[RANKS + 1], mine;
    struct errbuf eb = {{0}};
    (void)state;

    meeting_begin(&m, 7, 60000);
    meeting_await(&m);
    for (size_t k = 0; k <= RANKS; k++)
        all[k] = (struct wire_bytes){.data = bytes_of[k % RANKS], .size = 7};
    const size_t wrong[] = {0, 1, RANKS - 1, RANKS + 1};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(rendezvous_meet(m.rendezvous, all, wrong[i], &eb), ERR_CONFLICT);
    all[OWN].size = 6;
    assert_int_equal(rendezvous_meet(m.rendezvous, all, RANKS, &eb), ERR_CONFLICT);
    all[OWN] = all[0];
    assert_int_equal(rendezvous_meet(m.rendezvous, all, RANKS, &eb), ERR_CONFLICT);
    assert_non_null(strstr(eb.text, "rank 1"));
    assert_true(rendezvous_says(m.rendezvous, &mine));
    all[OWN].data = bytes_of[OWN];
    assert_int_equal(rendezvous_meet(m.rendezvous, all, RANKS, &eb), ERR_OK);
    assert_int_equal(rendezvous_meet(m.rendezvous, all, RANKS, &eb), ERR_STALE);
    meeting_end(&m);
    assert_int_equal(m.e, ERR_OK);
    meeting_close(&m);
}

static void nobody_waits_for_ever(void **state)
{
    struct meeting m;
    struct wire_bytes mine;
    (void)state;

    meeting_begin(&m, 7, 120);
    meeting_end(&m);
    assert_int_equal(m.e, ERR_TIMEOUT);
    assert_true(m.took_ms >= 119);
    assert_false(rendezvous_says(m.rendezvous, &mine));
    assert_false(rendezvous_has_news(m.rendezvous));
    meeting_close(&m);

    meeting_begin(&m, 7, 600000);
    meeting_await(&m);
    atomic_store(&m.stop, true);
    meeting_end(&m);
    assert_int_equal(m.e, ERR_CANCELLED);
    assert_non_null(strstr(m.eb.text, "rank 1 was told to stop"));
    assert_true(m.took_ms < 60000);
    meeting_close(&m);
}

static void an_address_that_no_message_carries_is_refused(void **state)
{
    struct meeting m;
    struct wire_bytes mine;
    (void)state;

    meeting_begin(&m, LIMIT_GANG_ADDRESS_BYTES + 1, 60000);
    meeting_end(&m);
    assert_int_equal(m.e, ERR_TOO_LARGE);
    assert_non_null(strstr(m.eb.text, "UCX_NET_DEVICES"));
    assert_false(rendezvous_says(m.rendezvous, &mine));
    meeting_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_up_is_said_until_all_have_met),
        cmocka_unit_test(other_addresses_change_nothing),
        cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(an_address_that_no_message_carries_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
