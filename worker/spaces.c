#include "worker/spaces.h"

#include "common/limits.h"

#include <stdlib.h>
#include <string.h>

void spaces_init(struct spaces *s, enum prefix_cache mode)
{
    *s = (struct spaces){.mode = mode};
}

void spaces_fini(struct spaces *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->tenants[i]);
    free(s->tenants);
    *s = (struct spaces){0};
}

static uint64_t space_new(struct spaces *s, const char *tenant)
{
    if (s->count == LIMIT_TENANTS)
        return 0;
    if (s->count == s->capacity) {
        size_t capacity = s->capacity == 0 ? 16 : 2 * s->capacity;
        char **tenants = realloc(s->tenants, capacity * sizeof *tenants);
        if (tenants == NULL)
            return 0;
        s->tenants = tenants;
        s->capacity = capacity;
    }
    char *copy = strdup(tenant);
    if (copy == NULL)
        return 0;
    s->tenants[s->count++] = copy;
    return s->count;
}

uint64_t spaces_of(struct spaces *s, const char *tenant)
{
    if (s->mode == PREFIX_CACHE_OFF)
        return 0;
    if (s->mode == PREFIX_CACHE_SHARED)
        return 1;
    if (tenant == NULL || tenant[0] == '\0')
        return 0;
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->tenants[i], tenant) == 0)
            return i + 1;
    return space_new(s, tenant);
}
