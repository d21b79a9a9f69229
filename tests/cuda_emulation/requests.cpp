#include "tests/cuda_emulation/requests.h"

#include "tests/cuda_emulation/counters.h"
#include "tests/cuda_emulation/fault.h"
#include "tests/cuda_emulation/shared.h"

#include <algorithm>
#include <vector>

#define SECTOR          32u
#define BANKS           32u
#define BANK_BYTES      4u
#define WAVEFRONT_BYTES (BANKS * BANK_BYTES)

struct request {
    uint32_t lanes; /* who is in it */
    uint32_t size;  /* bytes of a lane */
    enum emu_access access;
    uintptr_t at[EMU_WARP]; /* by lane */
};

/* One instruction: `done[lane]` counts the lane's accesses since the last common point. */
struct instruction {
    const void *code;
    uint64_t launch; /* in which it was put here; of another one: the slot is free */
    uint32_t done[EMU_WARP];
    std::vector<struct request> requests;
};

/* The instructions of a warp that touch memory, hashed by their address; a kernel has some tens. */
#define SLOTS 4096u
static struct instruction *slots[EMU_BLOCK_WARPS_MAX];
static std::vector<uint32_t> in_use[EMU_BLOCK_WARPS_MAX]; /* slots with requests */
static uint64_t launch;

void emu_requests_launch_begin(void)
{
    launch++;
}

static struct instruction *instruction_of(uint32_t warp, const void *code)
{
    if (slots[warp] == NULL)
        slots[warp] = new instruction[SLOTS]();
    uint32_t slot = (uint32_t)((uintptr_t)code * 0x9e3779b97f4a7c15u >> 52) % SLOTS;
    for (uint32_t tries = 0; tries < SLOTS; tries++, slot = (slot + 1) % SLOTS) {
        struct instruction *in = &slots[warp][slot];
        if (in->launch != launch) {
            in->launch = launch;
            in->code = code;
        }
        if (in->code != code)
            continue;
        if (in->requests.empty())
            in_use[warp].push_back(slot);
        return in;
    }
    emu_raise(EMU_FAULT_TRAP, code, "more than %u instructions of the kernel touch memory", SLOTS);
}

/* --- What a request costs --- */

static void count_global(uintptr_t *at, uint32_t n, uint32_t size, enum emu_access access)
{
    std::sort(at, at + n);
    uint64_t sectors = 0;
    uint64_t bytes = 0;
    uintptr_t next_sector = 0; /* sectors below are counted */
    uintptr_t next_byte = 0;
    for (uint32_t i = 0; i < n; i++) {
        uintptr_t end = at[i] + size;
        uintptr_t first = std::max(at[i] / SECTOR, next_sector);
        uintptr_t last = (end - 1) / SECTOR;
        if (last + 1 > first) {
            sectors += last + 1 - first;
            next_sector = last + 1;
        }
        uintptr_t from = std::max(at[i], next_byte);
        if (end > from) {
            bytes += end - from;
            next_byte = end;
        }
    }
    struct emu_counters *c = emu_counters_now();
    if (access == EMU_ACCESS_READ) {
        c->load_requests++;
        c->load_sectors += sectors;
        c->load_bytes_useful += bytes;
    } else {
        c->store_requests++;
        c->store_sectors += sectors;
        c->store_bytes_useful += bytes;
    }
}

/* The bank with the most different words decides. */
static uint32_t wavefronts(const uintptr_t *at, uint32_t n, uint32_t size)
{
    uintptr_t words[EMU_WARP * 4];
    uint32_t n_words = 0;
    uint32_t in_bank[BANKS] = {0};
    for (uint32_t i = 0; i < n; i++)
        for (uintptr_t w = at[i] / BANK_BYTES; w <= (at[i] + size - 1) / BANK_BYTES; w++)
            words[n_words++] = w;
    std::sort(words, words + n_words);
    n_words = (uint32_t)(std::unique(words, words + n_words) - words);
    uint32_t most = 0;
    for (uint32_t i = 0; i < n_words; i++)
        most = std::max(most, ++in_bank[words[i] % BANKS]);
    return most;
}

/* Wide accesses are served by half or quarter of the warp at a time (lanes in order). */
static void count_shared(const uintptr_t *at, uint32_t n, uint32_t size)
{
    uint32_t lanes = size <= BANK_BYTES ? EMU_WARP : WAVEFRONT_BYTES / size;
    struct emu_counters *c = emu_counters_now();
    c->shared_requests++;
    for (uint32_t i = 0; i < n; i += lanes) {
        uint32_t w = wavefronts(at + i, std::min(lanes, n - i), size);
        c->shared_wavefronts += w;
        c->shared_conflicts += w - 1;
    }
}

static void count(const struct request *r)
{
    uintptr_t at[EMU_WARP];
    uint32_t n = 0;
    for (uint32_t l = 0; l < EMU_WARP; l++)
        if ((r->lanes >> l & 1u) != 0)
            at[n++] = r->at[l];
    if (r->access == EMU_ACCESS_ATOMIC)
        emu_counters_now()->atomics += n;
    if (emu_shared_is(reinterpret_cast<const void *>(at[0])))
        count_shared(at, n, r->size);
    else
        count_global(at, n, r->size, r->access);
}

/* --- Collecting --- */

void emu_requests_add(const struct emu_lane *lane, const void *at, uint32_t size,
                      enum emu_access access, const void *code)
{
    struct instruction *in = instruction_of(lane->warp->index, code);
    uint32_t nth = in->done[lane->lane]++;
    if (nth == in->requests.size())
        in->requests.push_back(request{0, size, access, {}});
    struct request *r = &in->requests[nth];
    r->lanes |= 1u << lane->lane;
    r->at[lane->lane] = (uintptr_t)at;
}

void emu_requests_flush(const struct emu_warp *warp)
{
    for (uint32_t slot : in_use[warp->index]) {
        struct instruction *in = &slots[warp->index][slot];
        for (const struct request &r : in->requests)
            count(&r);
        in->requests.clear();
        std::fill(in->done, in->done + EMU_WARP, 0u);
    }
    in_use[warp->index].clear();
}

void emu_requests_count_matrices(const struct emu_warp *warp)
{
    for (uint32_t m = 0; m < EMU_WARP / 8; m++) {
        uintptr_t at[8];
        for (uint32_t row = 0; row < 8; row++)
            at[row] = (uintptr_t)warp->lanes[8 * m + row].in_address;
        count_shared(at, 8, 16);
    }
}
