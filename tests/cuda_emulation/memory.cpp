#include "tests/cuda_emulation/memory.h"

#include "tests/cuda_emulation/block.h"
#include "tests/cuda_emulation/fault.h"
#include "tests/cuda_emulation/races.h"

#include <iterator>
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
/* By base. Those that were freed are kept for reports until their addresses are given out again. */
static std::map<const char *, struct emu_allocation> live, gone;

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
    /* Work that runs at every call would open and close memory thousands of times a step. */
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
    static const uint64_t eight = 0x0101010101010101u * PATTERN;
    for (const char *at = from; at < to; at++) {
        uint64_t word;
        while (to - at >= 8 && memcpy(&word, at, 8) != NULL && word == eight)
            at += 8;
        if (at < to && *at != (char)PATTERN) {
            char text[256];
            emu_memory_describe(at, text, sizeof text);
            emu_raise(EMU_FAULT_OUT_OF_BOUNDS, at, "%p was written: %s", at, text);
        }
    }
}

static void check_patterns(const struct emu_allocation *a)
{
    if (emu_is_dry() && a->space == EMU_SPACE_DEVICE)
        return;
    check_pattern(pages_begin(a), a->base);
    check_pattern(a->base + a->size, pages_end(a));
}

void emu_memory_check_patterns(void)
{
    for (const auto &entry : live)
        check_patterns(&entry.second);
}

void emu_memory_open(bool open)
{
    if (emu_is_dry() || open == is_open || (!open && !is_closed_to_host()))
        return;
    is_open = open;
    emu_fault_catch_signals();
    for (const auto &entry : live) {
        const struct emu_allocation *a = &entry.second;
        if (a->space == EMU_SPACE_DEVICE)
            mprotect(pages_begin(a), (size_t)(pages_end(a) - pages_begin(a)),
                     open ? PROT_READ | PROT_WRITE : PROT_NONE);
    }
}

/* The first allocation of the map that ends behind `at`, or its end. */
static std::map<const char *, struct emu_allocation>::iterator
first_behind(std::map<const char *, struct emu_allocation> *map, const char *at)
{
    auto it = map->upper_bound(at);
    if (it != map->begin()) {
        auto before = std::prev(it);
        if (pages_end(&before->second) > at)
            return before;
    }
    return it;
}

/* Room behind what was given out last; from the start again when the range is used up, over what
 * has been freed. NULL where there is none. */
static char *find_room(struct range *range, size_t bytes)
{
    bool wrapped = false;
    for (;;) {
        char *from = range->next;
        if ((size_t)(range->end - from) < bytes) {
            if (wrapped)
                return NULL;
            wrapped = true;
            range->next = range->begin;
            continue;
        }
        auto in_the_way = first_behind(&live, from);
        if (in_the_way == live.end() || pages_begin(&in_the_way->second) >= from + bytes)
            return from;
        range->next = pages_end(&in_the_way->second);
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
    for (auto it = first_behind(&gone, room); it != gone.end() && it->first < room + bytes;)
        it = gone.erase(it);
    char *first = room + PAGE;
    struct emu_allocation a = {first + pages - round_up(size, ALIGNMENT), size, space, false,
                               device};
    if (emu_is_dry() && space == EMU_SPACE_DEVICE) {
        live[a.base] = a;
        return a.base;
    }
    if (mprotect(first, pages, PROT_READ | PROT_WRITE) != 0)
        return NULL;
    memset(pages_begin(&a), PATTERN, (size_t)(a.base - pages_begin(&a)));
    memset(a.base + size, PATTERN, (size_t)(pages_end(&a) - (a.base + size)));
    memset(a.base, emu_schedule_poison(), size);
    if (emu_memory_bytes != NULL)
        memset(bytes_of(a.base), space == EMU_SPACE_DEVICE ? EMU_BYTE_FRESH : EMU_BYTE_WRITTEN,
               size);
    live[a.base] = a;
    return a.base;
}

bool emu_memory_free(enum emu_space space, void *base)
{
    auto it = live.find(static_cast<const char *>(base));
    if (it == live.end() || it->second.space != space)
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
    gone[it->first] = *a;
    live.erase(it);
    return true;
}

const struct emu_allocation *emu_memory_find(const void *at, size_t size)
{
    const char *from = static_cast<const char *>(at);
    auto it = live.upper_bound(from);
    if (it == live.begin())
        return NULL;
    const struct emu_allocation *a = &std::prev(it)->second;
    return from + size <= a->base + a->size ? a : NULL;
}

static std::map<const char *, const char *> registered; /* begin, end */

bool emu_memory_register(void *base, size_t size)
{
    const char *begin = static_cast<const char *>(base), *end = begin + size;
    auto after = registered.lower_bound(end);
    if (after != registered.begin() && std::prev(after)->second > begin)
        return false;
    registered[begin] = end;
    return true;
}

bool emu_memory_unregister(void *base)
{
    return registered.erase(static_cast<const char *>(base)) > 0;
}

bool emu_memory_is_registered(const void *at, size_t size)
{
    const char *from = static_cast<const char *>(at);
    auto behind = registered.upper_bound(from);
    return behind != registered.begin() && from + size <= std::prev(behind)->second;
}

size_t emu_memory_held(enum emu_space space, int device)
{
    size_t sum = 0;
    for (const auto &entry : live)
        if (entry.second.space == space && entry.second.device == device)
            sum += round_up(entry.second.size, 512);
    return sum;
}

void emu_memory_written(void *at, size_t size)
{
    if (emu_memory_bytes != NULL && emu_memory_is_ours(at))
        memset(bytes_of(at), EMU_BYTE_WRITTEN, size);
}

/* What host code writes to pinned memory is not seen, so that all of it counts as written. */
void emu_memory_copied(void *to, const void *from, size_t size)
{
    if (emu_memory_bytes == NULL || !emu_memory_is_ours(to))
        return;
    if (emu_memory_is_device(to) && emu_memory_is_device(from))
        memmove(bytes_of(to), bytes_of(from), size);
    else
        memset(bytes_of(to), EMU_BYTE_WRITTEN, size);
}

/* Bytes from `at` to the allocation, 0 inside. */
static size_t distance(const struct emu_allocation *a, const char *at)
{
    if (at < a->base)
        return (size_t)(a->base - at);
    return at < a->base + a->size ? 0 : (size_t)(at - (a->base + a->size)) + 1;
}

/* The nearest of the map to `at`, if it is nearer than `near`. */
static const struct emu_allocation *nearer(std::map<const char *, struct emu_allocation> *map,
                                           const char *at, const struct emu_allocation *near)
{
    auto after = map->upper_bound(at);
    if (after != map->end() && (near == NULL || distance(&after->second, at) < distance(near, at)))
        near = &after->second;
    if (after != map->begin()) {
        const struct emu_allocation *before = &std::prev(after)->second;
        if (near == NULL || distance(before, at) < distance(near, at))
            near = before;
    }
    return near;
}

enum emu_fault_kind emu_memory_describe(const void *at, char *ret_text, size_t size)
{
    const char *where = static_cast<const char *>(at);
    const struct emu_allocation *a = nearer(&gone, where, nearer(&live, where, NULL));
    if (a == NULL) {
        snprintf(ret_text, size, "in device memory, of which nothing is allocated");
        return EMU_FAULT_OUT_OF_BOUNDS;
    }
    const char *freed = a->freed ? ", which was freed" : "";
    const char *memory = a->space == EMU_SPACE_DEVICE ? "" : " of pinned memory";
    if (distance(a, where) == 0) {
        snprintf(ret_text, size, "byte %zu of an allocation%s of %zu bytes at %p%s",
                 (size_t)(where - a->base), memory, a->size, (const void *)a->base, freed);
        return a->freed ? EMU_FAULT_USE_AFTER_FREE : EMU_FAULT_HOST_ACCESS;
    }
    bool past = where > a->base;
    snprintf(ret_text, size, "%zu bytes %s an allocation%s of %zu bytes at %p%s",
             distance(a, where) - past, past ? "past the end of" : "before", memory, a->size,
             (const void *)a->base, freed);
    return EMU_FAULT_OUT_OF_BOUNDS;
}
