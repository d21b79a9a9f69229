#include "tests/cuda_emulation/memory.h"

#include "tests/cuda_emulation/block.h"
#include "tests/cuda_emulation/fault.h"
#include "tests/cuda_emulation/races.h"

#include <map>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE      ((size_t)4096)
#define ALIGNMENT ((size_t)256) /* cudaMalloc promises it */
#define PATTERN   0xc9

char *emu_memory_base;
unsigned char *emu_memory_bytes;

struct range {
    char *begin, *end, *next; /* `next`: where the next allocation goes */
};
static struct range ranges[2];
static std::map<const char *, struct emu_allocation> allocations; /* by base; freed ones too */

static void *reserve(size_t size, int access)
{
    void *at = mmap(NULL, size, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        emu_raise(EMU_FAULT_TRAP, NULL, "the system refuses %zu bytes of address space", size);
    return at;
}

static void memory_prepare(void)
{
    if (emu_memory_base != NULL)
        return;
    emu_memory_base = static_cast<char *>(reserve(EMU_MEMORY_BYTES, PROT_NONE));
    char *pinned = emu_memory_base + EMU_MEMORY_DEVICE_BYTES;
    ranges[EMU_SPACE_DEVICE] = {emu_memory_base, pinned, emu_memory_base};
    ranges[EMU_SPACE_PINNED] = {pinned, pinned + EMU_MEMORY_PINNED_BYTES, pinned};
    if (emu_is_checked()) {
        emu_memory_bytes =
            static_cast<unsigned char *>(reserve(EMU_MEMORY_BYTES, PROT_READ | PROT_WRITE));
        emu_races_prepare();
    }
}

static bool is_open = true;

static bool is_closed_to_host(void)
{
    /* Work that runs at every call would open and close memory thousands of times in a whole model.
     */
    return emu_is_checked() || emu_schedule_get().order == EMU_ORDER_FORWARD;
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static char *page_of(const char *at)
{
    return reinterpret_cast<char *>((uintptr_t)at & ~(PAGE - 1));
}

static unsigned char *bytes_of(const void *at)
{
    return emu_memory_bytes + ((uintptr_t)at - (uintptr_t)emu_memory_base);
}

/* The pages of an allocation, those without access not counted. */
static char *pages_begin(const struct emu_allocation *a)
{
    return page_of(a->base);
}

static char *pages_end(const struct emu_allocation *a)
{
    return page_of(a->base + a->size + PAGE - 1);
}

static void check_pattern(const char *from, const char *to)
{
    for (const char *at = from; at < to; at++) {
        if (*at != (char)PATTERN) {
            char text[256];
            emu_memory_describe(at, text, sizeof text);
            emu_raise(EMU_FAULT_OUT_OF_BOUNDS, at, "%p was written: %s", at, text);
        }
    }
}

static void check_patterns(const struct emu_allocation *a)
{
    check_pattern(pages_begin(a), a->base);
    check_pattern(a->base + a->size, pages_end(a));
}

void emu_memory_check_patterns(void)
{
    for (const auto &entry : allocations)
        if (!entry.second.freed)
            check_patterns(&entry.second);
}

void emu_memory_open(bool open)
{
    if (open == is_open || (!open && !is_closed_to_host()))
        return;
    is_open = open;
    emu_fault_catch_signals();
    for (const auto &entry : allocations) {
        const struct emu_allocation *a = &entry.second;
        if (a->space == EMU_SPACE_DEVICE && !a->freed)
            mprotect(pages_begin(a), (size_t)(pages_end(a) - pages_begin(a)),
                     open ? PROT_READ | PROT_WRITE : PROT_NONE);
    }
}

/* Room behind what was given out last; from the start again when the range is used up, over what
 * has been freed. */
static char *find_room(struct range *range, size_t bytes)
{
    if ((size_t)(range->end - range->next) < bytes)
        range->next = range->begin;
    for (;;) {
        if ((size_t)(range->end - range->next) < bytes)
            return NULL;
        char *from = range->next;
        auto it = allocations.upper_bound(from);
        if (it != allocations.begin())
            --it;
        bool taken = false;
        while (it != allocations.end() && it->second.base < from + bytes) {
            struct emu_allocation *a = &it->second;
            if (a->base + a->size <= from ||
                a->space != (range == &ranges[1] ? EMU_SPACE_PINNED : EMU_SPACE_DEVICE)) {
                ++it;
            } else if (a->freed) {
                it = allocations.erase(it);
            } else {
                range->next = pages_end(a) + PAGE;
                taken = true;
                break;
            }
        }
        if (!taken)
            return from;
    }
}

void *emu_memory_new(enum emu_space space, size_t size, int device)
{
    memory_prepare();
    emu_memory_open(true);
    struct range *range = &ranges[space];
    size_t pages = round_up(round_up(size, ALIGNMENT), PAGE);
    size_t bytes = PAGE + pages + PAGE;
    char *room = find_room(range, bytes);
    if (room == NULL)
        return NULL;
    range->next = room + PAGE + pages;
    char *first = room + PAGE;
    if (mprotect(first, pages, PROT_READ | PROT_WRITE) != 0)
        return NULL;
    struct emu_allocation a = {first + pages - round_up(size, ALIGNMENT), size, space, false,
                               device};
    memset(pages_begin(&a), PATTERN, (size_t)(a.base - pages_begin(&a)));
    memset(a.base + size, PATTERN, (size_t)(pages_end(&a) - (a.base + size)));
    memset(a.base, emu_schedule_poison(), size);
    if (emu_memory_bytes != NULL)
        memset(bytes_of(a.base), space == EMU_SPACE_DEVICE ? EMU_BYTE_FRESH : EMU_BYTE_WRITTEN,
               size);
    allocations[a.base] = a;
    return a.base;
}

bool emu_memory_free(enum emu_space space, void *base)
{
    auto it = allocations.find(static_cast<const char *>(base));
    if (it == allocations.end() || it->second.freed || it->second.space != space)
        return false;
    struct emu_allocation *a = &it->second;
    emu_memory_open(true);
    check_patterns(a);
    char *from = pages_begin(a);
    size_t bytes = (size_t)(pages_end(a) - from);
    madvise(from, bytes, MADV_DONTNEED);
    mprotect(from, bytes, PROT_NONE);
    if (emu_memory_bytes != NULL) {
        memset(bytes_of(a->base), EMU_BYTE_NONE, a->size);
        madvise(bytes_of(from), bytes, MADV_DONTNEED);
        emu_races_forget(from, bytes);
    }
    a->freed = true;
    return true;
}

/* The allocation that begins last at or before `at`, live or freed. */
static const struct emu_allocation *allocation_before(const void *at)
{
    auto it = allocations.upper_bound(static_cast<const char *>(at));
    if (it == allocations.begin())
        return NULL;
    --it;
    return &it->second;
}

const struct emu_allocation *emu_memory_find(const void *at, size_t size)
{
    const struct emu_allocation *a = allocation_before(at);
    const char *from = static_cast<const char *>(at);
    if (a == NULL || a->freed || from + size > a->base + a->size)
        return NULL;
    return a;
}

size_t emu_memory_held(enum emu_space space, int device)
{
    size_t sum = 0;
    for (const auto &entry : allocations)
        if (!entry.second.freed && entry.second.space == space && entry.second.device == device)
            sum += round_up(entry.second.size, 512);
    return sum;
}

void emu_memory_written(void *at, size_t size)
{
    if (emu_memory_bytes != NULL && emu_memory_is_ours(at))
        memset(bytes_of(at), EMU_BYTE_WRITTEN, size);
}

void emu_memory_copied(void *to, const void *from, size_t size)
{
    if (emu_memory_bytes == NULL || !emu_memory_is_ours(to))
        return;
    if (emu_memory_is_ours(from))
        memmove(bytes_of(to), bytes_of(from), size);
    else
        memset(bytes_of(to), EMU_BYTE_WRITTEN, size);
}

enum emu_fault_kind emu_memory_describe(const void *at, char *ret_text, size_t size)
{
    const char *where = static_cast<const char *>(at);
    const struct emu_allocation *before = allocation_before(at);
    auto it = allocations.upper_bound(where);
    const struct emu_allocation *after = it != allocations.end() ? &it->second : NULL;
    if (before != NULL && where < before->base + before->size) {
        snprintf(ret_text, size, "byte %zu of an allocation of %zu bytes at %p%s",
                 (size_t)(where - before->base), before->size, (void *)before->base,
                 before->freed ? ", which was freed" : "");
        return before->freed ? EMU_FAULT_USE_AFTER_FREE : EMU_FAULT_HOST_ACCESS;
    }
    size_t past = before != NULL ? (size_t)(where - (before->base + before->size)) : SIZE_MAX;
    size_t short_of = after != NULL ? (size_t)(after->base - where) : SIZE_MAX;
    const struct emu_allocation *near = past <= short_of ? before : after;
    if (near == NULL)
        snprintf(ret_text, size, "in device memory, of which nothing is allocated");
    else
        snprintf(ret_text, size, "%zu bytes %s an allocation of %zu bytes at %p%s",
                 near == before ? past : short_of, near == before ? "past the end of" : "before",
                 near->size, (void *)near->base, near->freed ? ", which was freed" : "");
    return EMU_FAULT_OUT_OF_BOUNDS;
}
