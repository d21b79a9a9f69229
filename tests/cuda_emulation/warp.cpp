/*
 * warp.cpp - what the lanes of a warp do together and without memory: __syncwarp, shuffles, votes;
 * and __trap. Semantics: CUDA C++ Programming Guide, "Warp Shuffle Functions", "Warp Vote
 * Functions"; PTX ISA, shfl.sync.
 */
#include "tests/cuda_emulation/block.h"
#include "tests/cuda_emulation/fault.h"
#include "tests/cuda_emulation/races.h"

static void finish_sync(struct emu_warp *warp, uint32_t mask)
{
    emu_races_warp_sync(warp, mask);
}

void emu_warp_sync(uint32_t mask, emu_place place)
{
    emu_warp_meet(emu_lane_here("__syncwarp"), "__syncwarp", mask, finish_sync, place);
}

void emu_trap(emu_place place)
{
    emu_raise(EMU_FAULT_TRAP, NULL, "__trap() of %s:%d", place.file, place.line);
}

/* --- Shuffles --- */

/* The lane whose value `l` gets; its own where the one asked for is outside its segment of `width`.
 */
static uint32_t shuffle_source(enum emu_shuffle_kind kind, uint32_t l, int by, int width)
{
    int segment = (int)l & ~(width - 1);
    int source = (int)l;
    switch (kind) {
    case EMU_SHUFFLE_INDEX:
        return (uint32_t)(segment | (by & (width - 1)));
    case EMU_SHUFFLE_UP:
        source = (int)l - by;
        break;
    case EMU_SHUFFLE_DOWN:
        source = (int)l + by;
        break;
    case EMU_SHUFFLE_XOR:
        /* Segments below may be read, those above not. */
        source = (int)l ^ by;
        return (uint32_t)(source >= segment + width ? (int)l : source);
    }
    return (uint32_t)(source < segment || source >= segment + width ? (int)l : source);
}

static void finish_shuffle(struct emu_warp *warp, uint32_t mask)
{
    for (uint32_t l = 0; l < EMU_WARP; l++) {
        struct emu_lane *lane = &warp->lanes[l];
        if ((mask >> l & 1u) == 0)
            continue;
        uint32_t source = shuffle_source((enum emu_shuffle_kind)(lane->parameter >> 8), l,
                                         (int)lane->parameter2, (int)(lane->parameter & 0xffu));
        if ((mask >> source & 1u) == 0)
            emu_raise_for(EMU_FAULT_LANE_MISSING, lane, NULL,
                          "%s of %s:%d reads lane %u, which the mask 0x%08x does not name",
                          lane->function, lane->place.file, lane->place.line, source, mask);
        lane->out[0] = warp->lanes[source].in[0];
        lane->out[1] = warp->lanes[source].in[1];
    }
}

uint64_t emu_shuffle(enum emu_shuffle_kind kind, uint32_t mask, uint64_t value, int by, int width,
                     emu_place place)
{
    struct emu_lane *self = emu_lane_here("a shuffle");
    static const char *const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
                                        "__shfl_xor_sync"};
    if (width < 1 || width > 32 || (width & (width - 1)) != 0)
        emu_raise(EMU_FAULT_TRAP, NULL, "%s of %s:%d: width %d is no power of two up to 32",
                  names[kind], place.file, place.line, width);
    self->in[0] = (uint32_t)value;
    self->in[1] = (uint32_t)(value >> 32);
    self->parameter = (uint32_t)kind << 8 | (uint32_t)width;
    self->parameter2 = (uint32_t)by;
    emu_warp_meet(self, names[kind], mask, finish_shuffle, place);
    return (uint64_t)self->out[1] << 32 | self->out[0];
}

/* --- Votes --- */

static void finish_vote(struct emu_warp *warp, uint32_t mask)
{
    uint32_t ballot = 0;
    for (uint32_t l = 0; l < EMU_WARP; l++)
        if ((mask >> l & 1u) != 0 && warp->lanes[l].in[0] != 0)
            ballot |= 1u << l;
    for (uint32_t l = 0; l < EMU_WARP; l++) {
        struct emu_lane *lane = &warp->lanes[l];
        if ((mask >> l & 1u) == 0)
            continue;
        uint32_t same = 0;
        switch ((enum emu_vote_kind)lane->parameter) {
        case EMU_VOTE_BALLOT:
            lane->out[0] = ballot;
            break;
        case EMU_VOTE_ALL:
            lane->out[0] = ballot == mask;
            break;
        case EMU_VOTE_ANY:
            lane->out[0] = ballot != 0;
            break;
        case EMU_VOTE_MATCH_ANY:
            for (uint32_t m = 0; m < EMU_WARP; m++)
                if ((mask >> m & 1u) != 0 && warp->lanes[m].in[0] == lane->in[0])
                    same |= 1u << m;
            lane->out[0] = same;
            break;
        }
    }
}

uint32_t emu_vote(enum emu_vote_kind kind, uint32_t mask, uint32_t value, emu_place place)
{
    struct emu_lane *self = emu_lane_here("a vote");
    static const char *const names[] = {"__ballot_sync", "__all_sync", "__any_sync",
                                        "__match_any_sync"};
    self->in[0] = value;
    self->parameter = kind;
    emu_warp_meet(self, names[kind], mask, finish_vote, place);
    return self->out[0];
}
