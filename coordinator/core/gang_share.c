/*
 * gang_share.c - in what proportion a model is shared out among the ranks of a gang.
 *
 * A rank's time is that of reading its share, and all wait for the slowest: the best cut has the
 * smallest largest share / bandwidth. So shares are in proportion to bandwidth. Where some have no
 * room for theirs, these have what there is room for, and the others share out the rest in
 * proportion: if a model could be cut anywhere, nothing that has room would be faster.
 *
 * Bandwidth is measured, anew at each start of a worker. What lies within an eighth of the slowest
 * is the same, and the rest is rounded to eighths of the slowest, lest what is in a measurement by
 * chance cuts a model in another way each time. Nobody counts as less than a TIMES_MAXth of the
 * fastest, whatever a worker says: one that says next to nothing leaves the others' ratios alone.
 */
#include "coordinator/core/gang.h"

#define EIGHTHS   8u
#define TIMES_MAX 64u

_Static_assert(LIMIT_READ_BYTES_PER_S <= UINT64_MAX / (2 * EIGHTHS), "eighths do not overflow");

enum gang_speeds gang_speeds_of(const uint64_t *bytes_per_s, uint32_t n, uint64_t *ret_weight)
{
    uint64_t least = UINT64_MAX, most = 0;
    for (uint32_t r = 0; r < n; r++) {
        least = bytes_per_s[r] < least ? bytes_per_s[r] : least;
        most = bytes_per_s[r] > most ? bytes_per_s[r] : most;
        ret_weight[r] = 1;
    }
    CHECK(most <= LIMIT_READ_BYTES_PER_S);
    if (least == 0)
        return GANG_SPEEDS_UNKNOWN;
    if (most - least <= least / EIGHTHS)
        return GANG_SPEEDS_ALIKE;
    const uint64_t floor = (most + TIMES_MAX - 1) / TIMES_MAX;
    least = least > floor ? least : floor;
    for (uint32_t r = 0; r < n; r++) {
        const uint64_t it = bytes_per_s[r] > least ? bytes_per_s[r] : least;
        ret_weight[r] = (it * EIGHTHS + least / 2) / least;
    }
    return GANG_SPEEDS_DIFFER;
}

/* Who has no room for a part in proportion is full; what the others have left, and so their parts,
 * only grows by that: after n rounds nobody new is. */
bool gang_share_fill(const uint64_t *wanted, const uint64_t *room, uint32_t n, uint64_t bytes,
                     uint64_t *ret_bytes)
{
    bool is_full[SHARD_RANKS_MAX] = {false}, again = true;
    uint64_t left = bytes, sum = 0;
    for (uint32_t r = 0; r < n; r++)
        sum += wanted[r];
    while (again) {
        const uint64_t of = left, among = sum;
        again = false;
        for (uint32_t r = 0; r < n; r++) {
            if (is_full[r] || room[r] >= shard_in_proportion(of, wanted[r], among))
                continue;
            is_full[r] = again = true;
            left -= room[r];
            sum -= wanted[r];
        }
    }
    for (uint32_t r = 0; r < n; r++)
        ret_bytes[r] = is_full[r] ? room[r] : shard_in_proportion(left, wanted[r], sum);
    return sum > 0 || left == 0;
}

/* ---- what is said of it ---- */

static bool is_known(const struct gang_choice *choice)
{
    for (uint32_t r = 0; r < choice->n_ranks; r++) {
        if (choice->rank[r]->worker->read_bytes_per_s == 0)
            return false;
    }
    return true;
}

static const char *unknown_name(const struct gang_choice *choice)
{
    uint32_t r = 0;
    while (choice->rank[r]->worker->read_bytes_per_s != 0)
        r++;
    return choice->rank[r]->worker->name;
}

static const char *shares_name(const struct gang_choice *choice, struct core_effects *fx)
{
    uint64_t bytes_per_s[SHARD_RANKS_MAX], weight[SHARD_RANKS_MAX];
    for (uint32_t r = 0; r < choice->n_ranks; r++)
        bytes_per_s[r] = choice->rank[r]->worker->read_bytes_per_s;
    const enum gang_speeds speeds = gang_speeds_of(bytes_per_s, choice->n_ranks, weight);
    switch (choice->shares) {
    case GANG_SHARES_BANDWIDTH:
        return "shares by bandwidth";
    case GANG_SHARES_FILLED:
        return speeds == GANG_SPEEDS_ALIKE ? "even shares as far as each has room"
                                           : "shares by bandwidth as far as each has room";
    case GANG_SHARES_ROOM:
        return "shares by room";
    case GANG_SHARES_EVEN:
        break;
    }
    if (speeds == GANG_SPEEDS_UNKNOWN)
        return effect_printf(fx, "even shares, the bandwidth of %.60s is not known",
                             unknown_name(choice));
    return speeds == GANG_SPEEDS_ALIKE ? "even shares"
                                       : "even shares, no room for those by bandwidth";
}

const char *gang_shares_text(const struct gang_choice *choice, struct core_effects *fx)
{
    const bool has_bandwidth = is_known(choice);
    const char *text = "";
    for (uint32_t r = 0; r < choice->n_ranks; r++) {
        const struct core_worker *w = choice->rank[r]->worker;
        const char *at = "";
        if (choice->shares == GANG_SHARES_ROOM)
            at = effect_printf(fx, " of %.1f", (double)choice->room_bytes[r] / 1e6);
        else if (has_bandwidth)
            at = effect_printf(fx, " at %.1f GB/s", (double)w->read_bytes_per_s / 1e9);
        text = effect_printf(fx, "%s%s%s %.1f MB%s", text, r > 0 ? ", " : "", w->name,
                             (double)choice->need_bytes[r] / 1e6, at);
    }
    return effect_printf(fx, "%s: %s", shares_name(choice, fx), text);
}
