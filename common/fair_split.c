#include "common/fair_split.h"

#include "common/check.h"

#include <stddef.h>

__extension__ typedef unsigned __int128 wide;

/* Parts of one by which sums of squares / weight are told apart. */
#define SQUARE_FRACTION 65536u

/* cost / weight; no weight: larger than any. */
struct ratio {
    uint64_t cost, weight;
};

static bool ratio_less(struct ratio a, struct ratio b)
{
    return (wide)a.cost * b.weight < (wide)b.cost * a.weight;
}

uint64_t fair_cost(const struct fair_units *units, uint32_t first, uint32_t end)
{
    uint64_t cost = units->sum[end] - units->sum[first];
    uint32_t per = units->shared_units;

    if (per > 0 && end > first)
        cost += units->shared_cost * ((end + per - 1) / per - first / per);
    return cost;
}

/* Behind `holder`, where units from `at` on are left for those after it: where its run may end. */
static uint32_t last_end(const struct fair_units *u, const struct fair_holders *h, uint32_t holder)
{
    return u->count - u->least * (h->count - 1 - holder);
}

/* The smallest largest ratio. best[p] is that of the holders from `holder` on over the units from p
 * on; a holder's values replace the next one's from the left, since each looks only to the right.
 */
static struct ratio smallest_largest(const struct fair_units *u, const struct fair_holders *h)
{
    const struct ratio none = {1, 0}, zero = {0, 1};
    struct ratio best[FAIR_SPLIT_UNITS_MAX + 1];

    for (uint32_t p = 0; p < u->count; p++)
        best[p] = none;
    best[u->count] = zero;
    for (uint32_t i = h->count; i-- > 0;) {
        for (uint32_t p = 0; p <= u->count; p++) {
            struct ratio found = none;
            for (uint32_t end = p + u->least; end <= last_end(u, h, i); end++) {
                uint64_t cost = fair_cost(u, p, end);
                struct ratio r = cost > 0 ? (struct ratio){cost, h->weight[i]} : zero;
                if (!ratio_less(r, found))
                    break; /* what is longer costs no less */
                if (ratio_less(r, best[end]))
                    r = best[end];
                if (ratio_less(r, found))
                    found = r;
            }
            best[p] = found;
        }
    }
    CHECK(best[0].weight > 0);
    return best[0];
}

static wide square(const struct fair_holders *h, uint32_t i, uint64_t cost)
{
    wide all = (wide)cost + (h->had == NULL ? 0 : h->had[i]);

    return h->weight[i] == 0 ? 0 : all * all * SQUARE_FRACTION / h->weight[i];
}

static void split_among(const struct fair_units *units, const struct fair_holders *holders,
                        uint32_t *ret_border)
{
    const wide none = ~(wide)0;
    const struct ratio most = smallest_largest(units, holders);
    wide best[FAIR_SPLIT_UNITS_MAX + 1]; /* sums of squares; otherwise as above */
    uint16_t next[FAIR_SPLIT_HOLDERS_MAX][FAIR_SPLIT_UNITS_MAX + 1]; /* the end that gives it */

    for (uint32_t p = 0; p < units->count; p++)
        best[p] = none;
    best[units->count] = 0;
    for (uint32_t i = holders->count; i-- > 0;) {
        for (uint32_t p = 0; p <= units->count; p++) {
            wide found = none;
            for (uint32_t end = p + units->least; end <= last_end(units, holders, i); end++) {
                uint64_t cost = fair_cost(units, p, end);
                if (cost > 0 && ratio_less(most, (struct ratio){cost, holders->weight[i]}))
                    break;
                if (best[end] == none)
                    continue;
                wide sum = square(holders, i, cost) + best[end];
                if (sum < found) {
                    found = sum;
                    next[i][p] = (uint16_t)end;
                }
            }
            best[p] = found;
        }
    }
    ret_border[0] = 0;
    for (uint32_t i = 0; i < holders->count; i++)
        ret_border[i + 1] = next[i][ret_border[i]];
}

void fair_split(const struct fair_units *units, const struct fair_holders *holders,
                uint32_t *ret_border)
{
    ret_border[0] = 0;
    ret_border[1] = units->count;
    if (holders->count > 1)
        split_among(units, holders, ret_border);
}

void fair_split_alike(uint32_t n_units, const struct fair_holders *holders, uint32_t *ret_border)
{
    uint32_t n[FAIR_SPLIT_HOLDERS_MAX], left = n_units;
    wide weights = 0;

    for (uint32_t i = 0; i < holders->count; i++)
        weights += holders->weight[i];
    CHECK(weights > 0);
    /* The rule gives nobody less than its whole part. */
    for (uint32_t i = 0; i < holders->count; i++) {
        n[i] = (uint32_t)((wide)n_units * holders->weight[i] / weights);
        left -= n[i];
    }
    for (; left > 0; left--) {
        uint32_t to = 0;
        for (uint32_t i = 1; i < holders->count; i++) {
            if (!ratio_less((struct ratio){n[to] + 1, holders->weight[to]},
                            (struct ratio){n[i] + 1, holders->weight[i]}))
                to = i;
        }
        n[to]++;
    }
    ret_border[0] = 0;
    for (uint32_t i = 0; i < holders->count; i++)
        ret_border[i + 1] = ret_border[i] + n[i];
}
