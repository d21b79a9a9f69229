#include "worker/kernels/rope_table.h"

#include "common/check.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ln 2 and pi / 2 cut into parts of 33 bits, so that a part times an integer of 20 bits is exact.
 */
#define LN2_HIGH    0x1.62e42feep-1
#define LN2_LOW     0x1.a39ef35793c76p-33
#define PIO2_1      0x1.921fb544p+0
#define PIO2_2      0x1.0b4611a6p-34
#define PIO2_3      0x1.3198a2e037073p-69
#define TWO_OVER_PI 0x1.45f306dc9c883p-1

/* ln x for a positive normal x: x = 2^e m, m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m - 1) / (m
 * + 1)) by its series, whose argument is below 0.172. */
static double rope_log(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    int e = (int)(u >> 52) - 1023;
    u = (u & 0xfffffffffffffull) | 0x3ff0000000000000ull;
    double m;
    memcpy(&m, &u, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    double s = (m - 1.0) / (m + 1.0);
    double z = s * s;
    double sum = 0.0;
    for (int k = 23; k >= 3; k -= 2)
        sum = fma(sum, z, 1.0 / k);
    double series = fma(2.0 * s, sum * z, 2.0 * s);
    return fma((double)e, LN2_HIGH, fma((double)e, LN2_LOW, series));
}

/* e^x for |x| < 700 by reduction with ln 2 and the Taylor series to degree 14. */
static double rope_exp(double x)
{
    double n = rint(x * 1.4426950408889634);
    double r = fma(n, -LN2_HIGH, x);
    r = fma(n, -LN2_LOW, r);
    double sum = 1.0;
    for (int k = 14; k >= 1; k--)
        sum = fma(sum, r / k, 1.0);
    uint64_t bits = (uint64_t)(1023 + (int)n) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return sum * scale;
}

/* Taylor series on [-pi/4, pi/4]; the first term left out is below 1e-19. */
static double rope_sin_reduced(double r)
{
    double z = r * r;
    double sum = 1.0;
    for (int k = 18; k >= 2; k -= 2)
        sum = fma(sum, -z / (double)(k * (k + 1)), 1.0);
    return r * sum;
}

static double rope_cos_reduced(double r)
{
    double z = r * r;
    double sum = 1.0;
    for (int k = 19; k >= 1; k -= 2)
        sum = fma(sum, -z / (double)(k * (k + 1)), 1.0);
    return sum;
}

static void rope_cos_sin(double angle, double magnitude, float *ret_cos, float *ret_sin)
{
    double n = rint(angle * TWO_OVER_PI);
    double r = fma(n, -PIO2_1, angle);
    r = fma(n, -PIO2_2, r);
    r = fma(n, -PIO2_3, r);
    double s = rope_sin_reduced(r);
    double c = rope_cos_reduced(r);
    switch ((uint64_t)(int64_t)n & 3u) {
    case 0:
        break;
    case 1: {
        double t = c;
        c = -s;
        s = t;
        break;
    }
    case 2:
        c = -c;
        s = -s;
        break;
    default: {
        double t = c;
        c = s;
        s = -t;
        break;
    }
    }
    *ret_cos = (float)(c * magnitude);
    *ret_sin = (float)(s * magnitude);
}

static bool rope_in_range(double x, double low, double high)
{
    return x >= low && x <= high; /* false for NaN */
}

static enum err rope_params_check(const struct rope_params *params, uint32_t n_positions,
                                  struct errbuf *eb)
{
    if (!rope_in_range(params->base, 1.0, 1e12))
        return err_set(eb, ERR_INVALID, "rope base %g is not in 1 .. 1e12", params->base);
    if (params->dim < 2 || params->dim > ROPE_TABLE_DIM_MAX || params->dim % 2 != 0)
        return err_set(eb, ERR_INVALID, "rope dimension %u is not even or not in 2 .. %u",
                       params->dim, ROPE_TABLE_DIM_MAX);
    if (!rope_in_range(params->linear_scale, 1.0, 1e6))
        return err_set(eb, ERR_INVALID, "rope scaling factor %g is not in 1 .. 1e6",
                       params->linear_scale);
    if (n_positions > ROPE_TABLE_POSITIONS_MAX)
        return err_set(eb, ERR_TOO_LARGE, "%u positions, at most %u", n_positions,
                       ROPE_TABLE_POSITIONS_MAX);
    if (params->magnitude != 0.0 && !rope_in_range(params->magnitude, 1.0 / 1024, 1024.0))
        return err_set(eb, ERR_INVALID, "rope magnitude %g is not in 1/1024 .. 1024",
                       params->magnitude);
    if (params->factors == NULL)
        return ERR_OK;
    for (uint32_t i = 0; i < params->dim / 2; i++) {
        if (!rope_in_range((double)params->factors[i], 1.0 / 1024, 1e6))
            return err_set(eb, ERR_INVALID, "rope frequency factor %u is %g, not in 1/1024 .. 1e6",
                           i, (double)params->factors[i]);
    }
    return ERR_OK;
}

/* Turns over a whole context at which yarn leaves a pair alone, and below which it slows it all. */
#define YARN_TURNS_FAST 32.0
#define YARN_TURNS_SLOW 1.0

/* The (broken) index of the pair that turns so often within the original context, times two. */
static double rope_yarn_dim(const struct rope_params *params, double turns, double log_base)
{
    const double two_pi = 6.283185307179586;
    return params->dim * rope_log(params->yarn_context / (turns * two_pi)) / (2.0 * log_base);
}

/* Yarn: what the angle of a pair is multiplied by. */
static double rope_slowdown(const struct rope_params *params, uint32_t pair, double log_base)
{
    double slow = 1.0 / params->linear_scale;
    double low = floor(rope_yarn_dim(params, YARN_TURNS_FAST, log_base));
    double high = ceil(rope_yarn_dim(params, YARN_TURNS_SLOW, log_base));
    low = low > 0.0 ? low : 0.0;
    high = high < params->dim - 1.0 ? high : params->dim - 1.0;
    double width = high - low > 0.001 ? high - low : 0.001;
    double along = (pair - low) / width;
    along = along < 0.0 ? 0.0 : along > 1.0 ? 1.0 : along;
    return along * slow + (1.0 - along);
}

static double rope_magnitude(const struct rope_params *params)
{
    double magnitude = params->magnitude == 0.0 ? 1.0 : params->magnitude;
    return params->yarn_context == 0 ? magnitude
                                     : magnitude * (1.0 + 0.1 * rope_log(params->linear_scale));
}

/* What turns a position into the angle of a pair. */
static double rope_frequency(const struct rope_params *params, uint32_t pair)
{
    double log_base = rope_log(params->base);
    double frequency = rope_exp(-2.0 * pair / params->dim * log_base);
    if (params->yarn_context == 0)
        frequency /= params->linear_scale;
    else
        frequency *= rope_slowdown(params, pair, log_base);
    return params->factors == NULL ? frequency : frequency / (double)params->factors[pair];
}

/* Positions are computed so many at a time: about 0.3 ms for heads of 128. */
#define ROPE_STEP 64u

struct rope_table {
    uint32_t pairs;
    uint32_t n_positions;
    uint32_t reached;
    double magnitude;
    float *cells;
    double frequencies[]; /* [pairs] */
};

static uint64_t rope_cells_bytes(uint32_t dim, uint32_t n_positions)
{
    return (uint64_t)n_positions * dim * sizeof(float);
}

static uint64_t rope_head_bytes(uint32_t dim)
{
    return sizeof(struct rope_table) + dim / 2 * sizeof(double);
}

uint64_t rope_table_bytes(uint32_t dim, uint32_t n_positions)
{
    return rope_head_bytes(dim) + rope_cells_bytes(dim, n_positions);
}

enum err rope_table_new(const struct rope_params *params, uint32_t n_positions,
                        struct rope_table **ret_table, struct errbuf *eb)
{
    enum err err = rope_params_check(params, n_positions, eb);
    if (err != ERR_OK)
        return err;
    size_t bytes = (size_t)rope_cells_bytes(params->dim, n_positions);
    struct rope_table *table = malloc((size_t)rope_head_bytes(params->dim));
    float *cells = malloc(bytes > 0 ? bytes : 1);
    if (table == NULL || cells == NULL) {
        free(table);
        free(cells);
        return err_set(eb, ERR_NO_MEMORY, "rope table of %zu bytes", bytes);
    }
    *table = (struct rope_table){
        .pairs = params->dim / 2,
        .n_positions = n_positions,
        .magnitude = rope_magnitude(params),
        .cells = cells,
    };
    for (uint32_t i = 0; i < table->pairs; i++)
        table->frequencies[i] = rope_frequency(params, i);
    *ret_table = table;
    return ERR_OK;
}

void rope_table_free(struct rope_table *table)
{
    if (table == NULL)
        return;
    free(table->cells);
    free(table);
}

void rope_table_reach(struct rope_table *table, uint32_t n_positions)
{
    CHECK(n_positions <= table->n_positions);
    if (n_positions <= table->reached)
        return;
    uint32_t end = (n_positions + ROPE_STEP - 1) / ROPE_STEP * ROPE_STEP;
    end = end < table->n_positions ? end : table->n_positions;
    float *cell = table->cells + 2 * (size_t)table->reached * table->pairs;
    for (uint32_t p = table->reached; p < end; p++)
        for (uint32_t i = 0; i < table->pairs; i++, cell += 2)
            rope_cos_sin(p * table->frequencies[i], table->magnitude, cell, cell + 1);
    table->reached = end;
}

const float *rope_table_cells(const struct rope_table *table)
{
    return table->cells;
}
