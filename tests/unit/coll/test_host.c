/* What shared memory takes of a host: its processors for spinning, its memory or its cgroup's. */
#include "tests/unit/common/fake_groups.h"
#include "worker/coll/shm.h"
#include "worker/coll/shm_segment.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A rank that was given some of the machine's processors counts these, not the machine's. */
static void test_processors_are_those_that_a_rank_may_use(void **state)
{
    cpu_set_t before, one;
    size_t first = 0;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(shm_processors(), CPU_COUNT(&before));
    while (!CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(shm_processors(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static int has_64_mib_left(void)
{
    const struct {
        size_t bytes_max;
        enum err want;
    } rows[] = {{1 << 20, ERR_OK}, {40 << 20, ERR_NO_MEMORY}, {1 << 20, ERR_OK}};
    for (int i = 0; i < 3; i++) {
        struct errbuf eb = {{0}};
        int fd = -1;
        if (shm_segment_make(rows[i].bytes_max, &fd, &eb) != rows[i].want)
            return 1 + i;
        if (rows[i].want == ERR_OK ? close(fd) != 0
                                   : strstr(eb.text, ": 67108864 are available") == NULL)
            return 10 + i;
    }
    return 0;
}

/* It would not be refused: the kernel would end some process of the cgroup. */
static void test_what_a_cgroup_has_not_is_not_taken(void **state)
{
    const int said = fake_groups_run(96 << 20, 32 << 20, 0, has_64_mib_left);
    (void)state;
    if (said < 0)
        skip();
    assert_int_equal(said, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_processors_are_those_that_a_rank_may_use),
        cmocka_unit_test(test_what_a_cgroup_has_not_is_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
