/* What rows of logits are drawn by. */
#include "worker/kernels/ref/ref.h"

#include "worker/kernels/sample_math.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static float tame(float logit)
{
    return logit > FLT_MAX ? FLT_MAX : logit;
}

/* The lowest id among those of the greatest logit, which has to be above -infinity. */
static uint32_t pick_best(const float *row, uint32_t cols)
{
    float greatest = -INFINITY;
    uint32_t best = 0;

    for (uint32_t id = 0; id < cols; id++)
        if (tame(row[id]) > greatest) {
            greatest = tame(row[id]);
            best = id;
        }
    return best;
}

static uint32_t pick_draw(const struct pick *pick, const float *row, uint32_t cols, float greatest)
{
    float best_sum = -INFINITY;
    uint32_t best = 0;

    for (uint32_t id = 0; id < cols; id++) {
        const float z = sample_z(row[id], greatest, pick->temperature);
        if (!(z > -INFINITY) || (pick->min_p > 0.0f && nm_exp(z) < pick->min_p))
            continue;
        const float sum = z + nm_token_gumbel(pick->seed, pick->position, id);
        if (sum > best_sum) {
            best_sum = sum;
            best = id;
        }
    }
    return best;
}

static int listed_compare(const void *a, const void *z)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)z;

    return x < y ? -1 : x > y;
}

/* The list is kept in the order of (z descending, id ascending) while the row is gone through, and
 * put by id at its end. */
static void pick_list(const struct pick *pick, const float *row, uint32_t cols, float greatest,
                      struct picked *to)
{
    to->n = 0;
    to->mass = 0;
    for (uint32_t id = 0; id < cols; id++) {
        const float z = sample_z(row[id], greatest, pick->temperature);
        if (!(z > -INFINITY))
            continue;
        to->mass += sample_mass(z);
        uint32_t at = to->n;
        while (at > 0 && z > to->z[at - 1])
            at--;
        if (at == pick->count)
            continue;
        to->n += to->n < pick->count ? 1 : 0;
        for (uint32_t i = to->n - 1; i > at; i--) {
            to->ids[i] = to->ids[i - 1];
            to->z[i] = to->z[i - 1];
        }
        to->ids[at] = id;
        to->z[at] = z;
    }
    qsort(to->ids, to->n, sizeof to->ids[0], listed_compare);
    for (uint32_t i = 0; i < to->n; i++)
        to->z[i] = sample_z(row[to->ids[i]], greatest, pick->temperature);
}

void ref_pick(struct backend *b, const float *x, uint32_t n, uint32_t cols,
              const struct pick *picks, float *ret_picked)
{
    struct picked *picked = (struct picked *)(void *)ret_picked;

    (void)b;
    for (uint32_t i = 0; i < n; i++) {
        const float *row = x + (size_t)i * cols;
        if (picks[i].kind == PICK_ROW)
            continue;
        const uint32_t best = pick_best(row, cols);
        const float greatest = tame(row[best]);
        picked[i].id = best;
        picked[i].n = 0;
        if (!(greatest > -INFINITY))
            continue;
        if (picks[i].kind == PICK_DRAW)
            picked[i].id = pick_draw(&picks[i], row, cols, greatest);
        if (picks[i].kind == PICK_LIST)
            pick_list(&picks[i], row, cols, greatest, &picked[i]);
    }
}
