#include "tests/cuda_emulation/shared.h"

#include "tests/cuda_emulation/fault.h"
#include "tests/cuda_emulation/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define ROOM             128u /* between arrays; a multiple of all alignments and of the banks */
#define PATTERN          0xc9
#define DYNAMIC_ALIGN    128u               /* as CUDA_SHARED_DYNAMIC declares it */
#define STATIC_BYTES_MAX ((size_t)48 << 10) /* of ptxas */

struct array {
    const struct emu_shared_array *is; /* NULL: the dynamic one */
    uint32_t at, size;
};

char *emu_shared_base;
unsigned char *emu_shared_bytes;
static std::vector<struct array> arrays;
static uint32_t used; /* up to and with the room behind the last array */
static uint32_t most;

static void shared_prepare(void)
{
    if (emu_shared_base != NULL)
        return;
    emu_shared_base = static_cast<char *>(aligned_alloc(4096, EMU_SHARED_BYTES));
    memset(emu_shared_base, PATTERN, ROOM);
    if (emu_is_checked())
        emu_shared_bytes = static_cast<unsigned char *>(calloc(EMU_SHARED_BYTES, 1));
}

/* ptxas would refuse the kernel, or the device the launch. */
static void check_limits(void)
{
    size_t of_kernel = 0;
    size_t all = 0;
    for (const struct array &a : arrays) {
        of_kernel += a.is != NULL ? a.size : 0;
        all += a.size;
    }
    if (of_kernel > STATIC_BYTES_MAX || all > emu_device_get().shared_bytes_max)
        emu_raise(
            EMU_FAULT_OUT_OF_BOUNDS, NULL,
            "the kernel has %zu bytes of static shared arrays and %zu in all; a device has %zu "
            "and %zu",
            of_kernel, all, STATIC_BYTES_MAX, emu_device_get().shared_bytes_max);
}

/* A device promises an array no more than its type's alignment, so no more is given. */
static void *array_add(const struct emu_shared_array *is, uint32_t size, uint32_t align)
{
    struct array a = {is, used + (align < 16 ? align : 0), size};
    char *at = emu_shared_base + a.at;
    if (a.at + size + 2 * ROOM > EMU_SHARED_BYTES)
        emu_raise(EMU_FAULT_OUT_OF_BOUNDS, NULL, "the block's shared arrays pass %zu bytes",
                  EMU_SHARED_BYTES);
    memset(emu_shared_base + used, PATTERN, a.at - used);
    memset(at, emu_schedule_poison(), size);
    emu_shared_mark(at, size, EMU_BYTE_FRESH);
    used = (a.at + size + 2 * ROOM - 1) / ROOM * ROOM;
    memset(at + size, PATTERN, used - (a.at + size));
    arrays.push_back(a);
    check_limits();
    return at;
}

void emu_shared_block_begin(const struct emu_call *call)
{
    shared_prepare();
    if (emu_shared_bytes != NULL)
        memset(emu_shared_bytes, EMU_BYTE_NONE, used);
    arrays.clear();
    used = ROOM;
    if (call->shared_bytes > 0)
        array_add(NULL, (uint32_t)call->shared_bytes, DYNAMIC_ALIGN);
}

void *emu_shared_static(const struct emu_shared_array *array)
{
    emu_lane_here("a shared array");
    for (const struct array &a : arrays)
        if (a.is == array)
            return emu_shared_base + a.at;
    return array_add(array, array->size, array->align);
}

void *emu_shared_dynamic(void)
{
    emu_lane_here("a shared array");
    if (arrays.empty() || arrays[0].is != NULL)
        emu_raise(EMU_FAULT_OUT_OF_BOUNDS, NULL,
                  "the kernel uses dynamic shared memory and was launched with none");
    return emu_shared_base + arrays[0].at;
}

void emu_shared_block_end(const struct emu_block *block)
{
    uint32_t sum = 0;
    uint32_t end = 0; /* of the array before */
    for (size_t i = 0; i <= arrays.size(); i++) {
        uint32_t next = i < arrays.size() ? arrays[i].at : used;
        for (uint32_t at = end; at < next; at++) {
            if (emu_shared_base[at] != (char)PATTERN) {
                char text[256];
                emu_shared_describe(emu_shared_base + at, text, sizeof text);
                emu_raise_for(EMU_FAULT_OUT_OF_BOUNDS, &block->lanes[0], emu_shared_base + at,
                              "some thread of the block wrote %s", text);
            }
        }
        if (i < arrays.size()) {
            end = next + arrays[i].size;
            sum += arrays[i].size;
        }
    }
    most = sum > most ? sum : most;
}

uint32_t emu_shared_most(void)
{
    uint32_t bytes = most;
    most = 0;
    return bytes;
}

void emu_shared_mark(void *at, uint32_t size, unsigned char byte)
{
    if (emu_shared_bytes != NULL)
        memset(emu_shared_bytes + (static_cast<char *>(at) - emu_shared_base), byte, size);
}

void emu_shared_describe(const void *at, char *ret_text, size_t size)
{
    uint32_t place = (uint32_t)(static_cast<const char *>(at) - emu_shared_base);
    const struct array *near = NULL;
    for (const struct array &a : arrays)
        if (a.at <= place)
            near = &a;
    if (near == NULL && !arrays.empty())
        near = &arrays[0];
    if (near == NULL) {
        snprintf(ret_text, size, "shared memory, of which the block has none");
        return;
    }
    const char *name = near->is != NULL ? near->is->name : "of the launch";
    long offset = (long)place - (long)near->at;
    if (offset < 0)
        snprintf(ret_text, size, "%ld bytes before the shared array %s of %u bytes", -offset, name,
                 near->size);
    else if (offset < (long)near->size)
        snprintf(ret_text, size, "byte %ld of the shared array %s of %u bytes", offset, name,
                 near->size);
    else
        snprintf(ret_text, size, "%ld bytes past the end of the shared array %s of %u bytes",
                 offset - (long)near->size, name, near->size);
}
