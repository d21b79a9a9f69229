/*
 * schedule.cpp - which block, warp and lane runs next. An order is chosen by tests; a kernel that
 * gives other bits under another one is wrong.
 */
#include "tests/cuda_emulation/block.h"

#include <numeric>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

static struct emu_schedule schedule;
static uint64_t state; /* of the random numbers, xorshift64*; never 0 */
static std::vector<uint32_t> shuffled;
static uint64_t n_blocks_running;

static void schedule_from_environment(void) __attribute__((constructor));

static void schedule_from_environment(void)
{
    const char *text = getenv("CUDA_EMULATION_SCHEDULE");
    struct emu_schedule s = {EMU_ORDER_FORWARD, 0};
    if (text == NULL || strcmp(text, "forward") == 0) {
        emu_schedule_set(s);
        return;
    }
    char *end = NULL;
    if (strcmp(text, "reverse") == 0) {
        s.order = EMU_ORDER_REVERSE;
    } else if (strncmp(text, "random:", 7) == 0) {
        s.order = EMU_ORDER_RANDOM;
        s.seed = strtoull(text + 7, &end, 10);
    }
    if (s.order == EMU_ORDER_FORWARD || (end != NULL && (*end != '\0' || end == text + 7))) {
        fprintf(stderr, "CUDA_EMULATION_SCHEDULE is forward, reverse or random:SEED, not \"%s\"\n",
                text);
        exit(2);
    }
    emu_schedule_set(s);
}

struct emu_schedule emu_schedule_of(int index)
{
    struct emu_schedule all[EMU_SCHEDULES] = {
        {EMU_ORDER_FORWARD, 0},
        {EMU_ORDER_REVERSE, 0},
        {EMU_ORDER_RANDOM, 1},
        {EMU_ORDER_RANDOM, 2},
    };
    return all[index];
}

void emu_schedule_set(struct emu_schedule s)
{
    schedule = s;
    state = s.seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
    if (state == 0)
        state = 1;
}

struct emu_schedule emu_schedule_get(void)
{
    return schedule;
}

const char *emu_order_name(enum emu_order order)
{
    static const char *const names[] = {"forward", "reverse", "random"};
    return names[order];
}

uint32_t emu_schedule_random(uint32_t n)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1du >> 32) * n >> 32);
}

bool emu_schedule_chance(uint32_t n)
{
    return schedule.order == EMU_ORDER_RANDOM && emu_schedule_random(n) == 0;
}

/* Patterns that differ, so that a result in which fresh memory has a part differs as well: a NaN in
 * every format, and a large number. */
unsigned char emu_schedule_poison(void)
{
    switch (schedule.order) {
    case EMU_ORDER_FORWARD:
        return 0xff;
    case EMU_ORDER_REVERSE:
        return 0x7b;
    case EMU_ORDER_RANDOM:
        break;
    }
    return (unsigned char)(0x40 + emu_schedule_random(0xc0));
}

/* --- Blocks --- */

void emu_schedule_blocks_begin(uint64_t n)
{
    n_blocks_running = n;
    shuffled.clear();
    if (schedule.order != EMU_ORDER_RANDOM)
        return;
    shuffled.resize(n);
    std::iota(shuffled.begin(), shuffled.end(), 0u);
    for (uint64_t i = n; i > 1; i--)
        std::swap(shuffled[i - 1], shuffled[emu_schedule_random((uint32_t)i)]);
}

uint64_t emu_schedule_block(uint64_t i)
{
    switch (schedule.order) {
    case EMU_ORDER_FORWARD:
        return i;
    case EMU_ORDER_REVERSE:
        return n_blocks_running - 1 - i;
    case EMU_ORDER_RANDOM:
        break;
    }
    return shuffled[i];
}

/* --- Threads --- */

static uint32_t lowest(uint32_t set)
{
    return (uint32_t)__builtin_ctz(set);
}

static uint32_t highest(uint32_t set)
{
    return 31u - (uint32_t)__builtin_clz(set);
}

/* The bit of a set that the random numbers say. */
static uint32_t any(uint32_t set)
{
    uint32_t skip = emu_schedule_random((uint32_t)__builtin_popcount(set));
    while (skip-- > 0)
        set &= set - 1;
    return lowest(set);
}

/* A warp goes on as long as one of its lanes can, which keeps its data in the cache; lanes and
 * warps in turn, around the end. */
static struct emu_lane *next_forward(struct emu_block *block, const struct emu_lane *from)
{
    uint32_t first = from != NULL ? from->warp->index : 0;
    uint32_t ready = block->warps[first].ready;
    if (from != NULL) {
        uint32_t above = from->lane == 31 ? 0 : ready >> (from->lane + 1) << (from->lane + 1);
        ready = above != 0 ? above : ready;
    }
    for (uint32_t i = 0; i < block->n_warps; i++) {
        if (ready != 0)
            return &block->warps[first].lanes[lowest(ready)];
        first = first + 1 < block->n_warps ? first + 1 : 0;
        ready = block->warps[first].ready;
    }
    return NULL;
}

static struct emu_lane *next_reverse(struct emu_block *block, const struct emu_lane *from)
{
    uint32_t first = from != NULL ? from->warp->index : block->n_warps - 1;
    uint32_t ready = block->warps[first].ready;
    if (from != NULL) {
        uint32_t below = ready & ((1u << from->lane) - 1);
        ready = below != 0 ? below : ready;
    }
    for (uint32_t i = 0; i < block->n_warps; i++) {
        if (ready != 0)
            return &block->warps[first].lanes[highest(ready)];
        first = first > 0 ? first - 1 : block->n_warps - 1;
        ready = block->warps[first].ready;
    }
    return NULL;
}

static struct emu_lane *next_random(struct emu_block *block)
{
    uint32_t first = emu_schedule_random(block->n_warps);
    for (uint32_t i = 0; i < block->n_warps; i++) {
        if (block->warps[first].ready != 0)
            return &block->warps[first].lanes[any(block->warps[first].ready)];
        first = first + 1 < block->n_warps ? first + 1 : 0;
    }
    return NULL;
}

struct emu_lane *emu_schedule_next(struct emu_block *block, const struct emu_lane *from)
{
    switch (schedule.order) {
    case EMU_ORDER_FORWARD:
        return next_forward(block, from);
    case EMU_ORDER_REVERSE:
        return next_reverse(block, from);
    case EMU_ORDER_RANDOM:
        break;
    }
    return next_random(block);
}
