/* A cursor goes through a tree as tree_above and tree_below do, however deep the tree is. */
#include "coordinator/core/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct thing {
    struct tree_node node;
    uint32_t key;
};

static int thing_compare(const struct tree_node *a, const struct tree_node *b)
{
    uint32_t x = tree_entry(a, const struct thing, node)->key;
    uint32_t y = tree_entry(b, const struct thing, node)->key;
    return x < y ? -1 : x > y;
}

static void expect_same_way(const struct tree *t, struct tree_node *start)
{
    for (int down = 0; down < 2; down++) {
        struct tree_cursor at;
        struct tree_node *n = start;
        tree_cursor_begin(&at, t, start, down == 1);
        for (; n != NULL; n = down == 1 ? tree_below(t, n) : tree_above(t, n)) {
            assert_ptr_equal(tree_cursor_node(&at), n);
            tree_cursor_next(&at);
        }
        assert_null(tree_cursor_node(&at));
    }
}

static void cursor_visits_all_from_anywhere(void **state)
{
    enum { THINGS = 300 };
    static struct thing things[THINGS];
    struct tree t;
    (void)state;
    tree_init(&t, thing_compare);
    expect_same_way(&t, NULL);
    for (uint32_t i = 0; i < THINGS; i++) {
        things[i].key = i * 2654435761u;
        tree_insert(&t, &things[i].node);
    }
    for (uint32_t i = 0; i < THINGS; i++)
        expect_same_way(&t, &things[i].node);
}

static int priority_compare(const void *a, const void *b)
{
    uint32_t x = (*(struct thing *const *)a)->node.priority;
    uint32_t y = (*(struct thing *const *)b)->node.priority;
    return x < y ? -1 : x > y;
}

/* Keys in the order in which priorities are drawn without a seed: the tree becomes a list. */
static void things_for_a_list(struct thing *things, struct thing **order, uint32_t n)
{
    struct tree t;
    tree_init(&t, thing_compare);
    for (uint32_t i = 0; i < n; i++) {
        things[i] = (struct thing){.key = i};
        tree_insert(&t, &things[i].node);
        order[i] = &things[i];
    }
    for (uint32_t i = 0; i < n; i++)
        tree_remove(&t, &things[i].node);
    qsort(order, n, sizeof(struct thing *), priority_compare);
    for (uint32_t i = 0; i < n; i++)
        order[i]->key = i;
}

static uint32_t depth_of(const struct tree_node *n)
{
    if (n == NULL)
        return 0;
    uint32_t left = depth_of(n->left), right = depth_of(n->right);
    return 1 + (left > right ? left : right);
}

enum { LIST_THINGS = 10 * TREE_CURSOR_DEPTH };

static void cursor_goes_through_a_tree_that_is_deeper_than_it(void **state)
{
    static struct thing things[LIST_THINGS], *order[LIST_THINGS];
    struct tree t;
    (void)state;
    things_for_a_list(things, order, LIST_THINGS);
    tree_init(&t, thing_compare);
    for (uint32_t i = 0; i < LIST_THINGS; i++)
        tree_insert(&t, &things[i].node);
    assert_int_equal(depth_of(t.root), LIST_THINGS);
    for (uint32_t i = 0; i < LIST_THINGS; i += 7)
        expect_same_way(&t, &things[i].node);
}

/* Who does not know the seed cannot choose such keys. */
static void a_seed_keeps_the_tree_shallow(void **state)
{
    static struct thing things[LIST_THINGS], *order[LIST_THINGS];
    (void)state;
    for (uint32_t seed = 0x9e3779b9u; seed != 0; seed <<= 1) {
        struct tree t;
        things_for_a_list(things, order, LIST_THINGS);
        tree_init(&t, thing_compare);
        tree_seed(&t, seed);
        for (uint32_t i = 0; i < LIST_THINGS; i++)
            tree_insert(&t, &things[i].node);
        assert_in_range(depth_of(t.root), 10, 50);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cursor_visits_all_from_anywhere),
        cmocka_unit_test(cursor_goes_through_a_tree_that_is_deeper_than_it),
        cmocka_unit_test(a_seed_keeps_the_tree_shallow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
