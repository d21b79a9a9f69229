#include "tests/cuda_emulation/counters.h"

#include <map>
#include <stdio.h>
#include <string>

static std::map<std::string, struct emu_counters> kernels;
static struct emu_counters nothing; /* of no kernel */
static struct emu_counters *now = &nothing;

void emu_counters_begin(const char *kernel)
{
    now = &kernels[kernel];
}

void emu_counters_end(uint64_t blocks, uint32_t threads_per_block, uint32_t shared_bytes)
{
    now->launches++;
    now->blocks += blocks;
    now->threads += blocks * threads_per_block;
    if (shared_bytes > now->shared_bytes)
        now->shared_bytes = shared_bytes;
    now = &nothing;
}

struct emu_counters *emu_counters_now(void)
{
    return now;
}

static void add(struct emu_counters *sum, const struct emu_counters *c)
{
    sum->launches += c->launches;
    sum->blocks += c->blocks;
    sum->threads += c->threads;
    sum->load_requests += c->load_requests;
    sum->load_sectors += c->load_sectors;
    sum->load_bytes_useful += c->load_bytes_useful;
    sum->store_requests += c->store_requests;
    sum->store_sectors += c->store_sectors;
    sum->store_bytes_useful += c->store_bytes_useful;
    sum->atomics += c->atomics;
    sum->shared_requests += c->shared_requests;
    sum->shared_wavefronts += c->shared_wavefronts;
    sum->shared_conflicts += c->shared_conflicts;
    sum->mma += c->mma;
    sum->ldmatrix += c->ldmatrix;
    sum->async_copies += c->async_copies;
    sum->barriers += c->barriers;
    sum->warp_functions += c->warp_functions;
    if (c->shared_bytes > sum->shared_bytes)
        sum->shared_bytes = c->shared_bytes;
}

bool emu_counters_get(const char *kernel, struct emu_counters *ret_counters)
{
    *ret_counters = emu_counters{};
    bool found = false;
    for (const auto &entry : kernels) {
        if (kernel == NULL || entry.first == kernel) {
            add(ret_counters, &entry.second);
            found = true;
        }
    }
    return found;
}

static double efficiency(uint64_t useful, uint64_t sectors)
{
    return sectors == 0 ? 1.0 : (double)useful / (32.0 * (double)sectors);
}

double emu_load_efficiency(const struct emu_counters *c)
{
    return efficiency(c->load_bytes_useful, c->load_sectors);
}

double emu_store_efficiency(const struct emu_counters *c)
{
    return efficiency(c->store_bytes_useful, c->store_sectors);
}

void emu_counters_reset(void)
{
    kernels.clear();
}

void emu_counters_print(void)
{
    printf("%-32s %8s %9s %12s %5s %12s %5s %10s %9s %9s\n", "kernel", "launches", "blocks",
           "load B", "eff", "store B", "eff", "conflicts", "mma", "shared B");
    for (const auto &entry : kernels) {
        const struct emu_counters *c = &entry.second;
        printf("%-32s %8llu %9llu %12llu %4.0f%% %12llu %4.0f%% %10llu %9llu %9llu\n",
               entry.first.c_str(), (unsigned long long)c->launches, (unsigned long long)c->blocks,
               (unsigned long long)c->load_sectors * 32, 100 * emu_load_efficiency(c),
               (unsigned long long)c->store_sectors * 32, 100 * emu_store_efficiency(c),
               (unsigned long long)c->shared_conflicts, (unsigned long long)c->mma,
               (unsigned long long)c->shared_bytes);
    }
}
