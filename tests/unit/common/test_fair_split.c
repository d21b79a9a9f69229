/* Cuts into runs, each compared with all cuts that there are. */
#include "common/fair_split.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

__extension__ typedef unsigned __int128 wide;

#define UNITS_MAX   9u
#define HOLDERS_MAX 4u

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint32_t random_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(random_next(state) % n);
}

struct problem {
    struct fair_units units;
    struct fair_holders holders;
    uint64_t sum[UNITS_MAX + 1], weight[HOLDERS_MAX], had[HOLDERS_MAX];
};

static void problem_draw(struct problem *p, uint64_t *seed)
{
    const uint32_t least = random_below(seed, 4) == 0;
    const uint32_t n = 1 + random_below(seed, HOLDERS_MAX);
    const uint32_t even = random_below(seed, 2);
    const uint32_t alike = random_below(seed, 2);
    bool any = false;

    memset(p, 0, sizeof *p);
    p->units = (struct fair_units){.count = 1 + random_below(seed, UNITS_MAX),
                                   .sum = p->sum,
                                   .shared_units = random_below(seed, 4),
                                   .shared_cost = random_below(seed, 30),
                                   .least = least};
    if (least && p->units.count < n)
        p->units.count = n;
    for (uint32_t i = 0; i < p->units.count; i++)
        p->sum[i + 1] = p->sum[i] + (alike ? 7 : random_below(seed, 20));
    p->holders = (struct fair_holders){.count = n, .weight = p->weight};
    for (uint32_t i = 0; i < n; i++) {
        p->weight[i] = even ? 1 : least + random_below(seed, 6);
        p->had[i] = random_below(seed, 60);
        any = any || p->weight[i] > 0;
    }
    if (!any)
        p->weight[random_below(seed, n)] = 2;
    if (random_below(seed, 2))
        p->holders.had = p->had;
}

/* By the definition, unit by unit. */
static uint64_t cost_by_hand(const struct problem *p, uint32_t first, uint32_t end)
{
    uint64_t cost = 0;

    for (uint32_t i = first; i < end; i++) {
        cost += p->sum[i + 1] - p->sum[i];
        if (p->units.shared_units > 0 && (i == first || i % p->units.shared_units == 0))
            cost += p->units.shared_cost;
    }
    return cost;
}

/* The largest cost / weight as cost and weight; false: somebody without weight has a cost. */
static bool largest_share(const struct problem *p, const uint32_t *border, uint64_t *ret_cost,
                          uint64_t *ret_weight)
{
    *ret_cost = 0;
    *ret_weight = 1;
    for (uint32_t i = 0; i < p->holders.count; i++) {
        uint64_t cost = cost_by_hand(p, border[i], border[i + 1]);
        if (cost > 0 && p->weight[i] == 0)
            return false;
        if (cost * *ret_weight > *ret_cost * p->weight[i]) {
            *ret_cost = cost;
            *ret_weight = p->weight[i];
        }
    }
    return true;
}

static wide squares(const struct problem *p, const uint32_t *border)
{
    wide sum = 0;

    for (uint32_t i = 0; i < p->holders.count; i++) {
        uint64_t all =
            cost_by_hand(p, border[i], border[i + 1]) + (p->holders.had == NULL ? 0 : p->had[i]);
        if (p->weight[i] > 0)
            sum += (wide)all * all * 65536 / p->weight[i];
    }
    return sum;
}

struct best {
    uint32_t border[HOLDERS_MAX + 1];
    uint64_t cost, weight;
    wide squares;
    bool any;
};

/* Every cut, the first borders ascending, so that of equals the first one stays. */
static void try_all(const struct problem *p, uint32_t *border, uint32_t i, struct best *best)
{
    uint64_t cost, weight;

    if (i < p->holders.count) {
        for (uint32_t at = border[i - 1] + p->units.least; at <= p->units.count; at++) {
            border[i] = at;
            try_all(p, border, i + 1, best);
        }
        return;
    }
    border[i] = p->units.count;
    if (border[i] < border[i - 1] + p->units.least || !largest_share(p, border, &cost, &weight))
        return;
    wide sum = squares(p, border);
    if (!best->any || cost * best->weight < best->cost * weight ||
        (cost * best->weight == best->cost * weight && sum < best->squares)) {
        memcpy(best->border, border, sizeof best->border);
        best->cost = cost;
        best->weight = weight;
        best->squares = sum;
        best->any = true;
    }
}

static void no_cut_has_a_smaller_largest_share(void **state)
{
    uint64_t seed = 88172645463325252u;

    (void)state;
    for (uint32_t k = 0; k < 20000; k++) {
        struct problem p;
        uint32_t border[HOLDERS_MAX + 1] = {0}, got[HOLDERS_MAX + 1];
        struct best best = {.any = false};
        problem_draw(&p, &seed);
        for (uint32_t a = 0; a <= p.units.count; a++)
            for (uint32_t b = a; b <= p.units.count; b++)
                assert_int_equal(fair_cost(&p.units, a, b), cost_by_hand(&p, a, b));
        try_all(&p, border, 1, &best);
        fair_split(&p.units, &p.holders, got);
        assert_true(best.any);
        for (uint32_t i = 0; i <= p.holders.count; i++)
            if (got[i] != best.border[i])
                fail_msg("problem %u: border %u is %u, of the best cut %u", k, i, got[i],
                         best.border[i]);
    }
}

static void units_that_are_alike_are_shared_out_as_well_as_can_be(void **state)
{
    uint64_t seed = 362436069362436069u;

    (void)state;
    for (uint32_t k = 0; k < 20000; k++) {
        struct problem p;
        uint32_t border[HOLDERS_MAX + 1] = {0}, got[HOLDERS_MAX + 1];
        struct best best = {.any = false};
        uint64_t cost, weight;
        problem_draw(&p, &seed);
        p.units.least = p.units.shared_units = 0;
        for (uint32_t i = 0; i <= p.units.count; i++)
            p.sum[i] = i;
        try_all(&p, border, 1, &best);
        fair_split_alike(p.units.count, &p.holders, got);
        assert_int_equal(got[0], 0);
        assert_int_equal(got[p.holders.count], p.units.count);
        assert_true(largest_share(&p, got, &cost, &weight));
        assert_true(cost * best.weight == best.cost * weight);
    }
}

static void many_units_go_by_weight_to_one_unit(void **state)
{
    const uint64_t weight[] = {3, 0, 1, 1ull << 40};
    const uint64_t even[] = {1, 1, 1};
    const struct fair_holders first = {.count = 3, .weight = weight};
    const struct fair_holders large = {.count = 4, .weight = weight};
    const struct fair_holders alike = {.count = 3, .weight = even};
    uint32_t border[5];

    (void)state;
    fair_split_alike(4000001, &first, border);
    assert_int_equal(border[1], 3000001);
    assert_int_equal(border[2], 3000001);
    assert_int_equal(border[3], 4000001);
    fair_split_alike(65536, &large, border);
    assert_int_equal(border[3], 0);
    assert_int_equal(border[4], 65536);
    /* What is left over goes to the last ones. */
    fair_split_alike(8, &alike, border);
    assert_int_equal(border[1], 2);
    assert_int_equal(border[2], 5);
}

static void what_holders_had_decides_between_cuts_as_good(void **state)
{
    const uint64_t sum[] = {0, 10, 20, 30};
    const uint64_t weight[] = {1, 1};
    const struct fair_units units = {.count = 3, .sum = sum};
    uint64_t had[] = {100, 100};
    const struct fair_holders holders = {.count = 2, .weight = weight, .had = had};
    uint32_t border[3];

    (void)state;
    fair_split(&units, &holders, border);
    assert_int_equal(border[1], 1);
    had[1] = 101;
    fair_split(&units, &holders, border);
    assert_int_equal(border[1], 2);
    /* But they never make the largest share larger. */
    had[1] = 100000;
    fair_split(&units, &holders, border);
    assert_int_equal(border[1], 2);
}

static void costs_and_weights_at_their_bounds(void **state)
{
    const uint64_t sum[] = {0, FAIR_SPLIT_COST_MAX / 4, FAIR_SPLIT_COST_MAX / 2};
    const uint64_t had[] = {FAIR_SPLIT_COST_MAX / 4, FAIR_SPLIT_COST_MAX / 4};
    const uint64_t weight[] = {1, FAIR_SPLIT_WEIGHT_MAX};
    const struct fair_units units = {.count = 2, .sum = sum};
    const struct fair_holders holders = {.count = 2, .weight = weight, .had = had};
    uint32_t border[3];

    (void)state;
    fair_split(&units, &holders, border);
    assert_int_equal(border[1], 0);
    assert_int_equal(border[2], 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_cut_has_a_smaller_largest_share),
        cmocka_unit_test(units_that_are_alike_are_shared_out_as_well_as_can_be),
        cmocka_unit_test(many_units_go_by_weight_to_one_unit),
        cmocka_unit_test(what_holders_had_decides_between_cuts_as_good),
        cmocka_unit_test(costs_and_weights_at_their_bounds),
    };
    return cmocka_run_group_tests_name("fair split", tests, NULL, NULL);
}
