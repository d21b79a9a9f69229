/* spaces: who may share pages of the KV cache with whom. */
#include "worker/spaces.h"

#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void each_tenant_has_its_own_number(void **state)
{
    struct spaces s;

    (void)state;
    spaces_init(&s, PREFIX_CACHE_TENANT);
    uint64_t a = spaces_of(&s, "a"), b = spaces_of(&s, "b");
    assert_true(a != 0 && b != 0 && a != b);
    assert_int_equal(spaces_of(&s, "a"), a);
    assert_int_equal(spaces_of(&s, "b"), b);
    spaces_fini(&s);
}

static void who_has_no_name_shares_with_nobody(void **state)
{
    struct spaces s;

    (void)state;
    spaces_init(&s, PREFIX_CACHE_TENANT);
    assert_int_equal(spaces_of(&s, ""), 0);
    assert_int_equal(spaces_of(&s, NULL), 0);
    spaces_fini(&s);
}

static void modes_share_all_or_nothing(void **state)
{
    struct spaces s;

    (void)state;
    spaces_init(&s, PREFIX_CACHE_SHARED);
    assert_true(spaces_of(&s, "a") != 0);
    assert_int_equal(spaces_of(&s, "a"), spaces_of(&s, "b"));
    spaces_fini(&s);
    spaces_init(&s, PREFIX_CACHE_OFF);
    assert_int_equal(spaces_of(&s, "a"), 0);
    spaces_fini(&s);
}

static void hundreds_of_tenants_keep_their_numbers(void **state)
{
    struct spaces s;
    char name[16];

    (void)state;
    spaces_init(&s, PREFIX_CACHE_TENANT);
    for (uint32_t i = 0; i < 300; i++) {
        (void)snprintf(name, sizeof name, "t%u", i);
        assert_int_equal(spaces_of(&s, name), i + 1);
    }
    assert_int_equal(spaces_of(&s, "t7"), 8);
    spaces_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_tenant_has_its_own_number),
        cmocka_unit_test(who_has_no_name_shares_with_nobody),
        cmocka_unit_test(modes_share_all_or_nothing),
        cmocka_unit_test(hundreds_of_tenants_keep_their_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
