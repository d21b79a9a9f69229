/*
 * spaces.h - whose jobs may share pages of the KV cache: a number for each tenant, never the same
 * for two. Names are compared, not hashed, so no collision can let one tenant see by the time an
 * answer takes what another has asked.
 *
 * Ownership: the table owns its copies of the names. Thread: one owner.
 */
#ifndef CLOISTER_WORKER_SPACES_H
#define CLOISTER_WORKER_SPACES_H

#include <stddef.h>
#include <stdint.h>

enum prefix_cache {
    PREFIX_CACHE_TENANT = 0, /* jobs of one tenant share */
    PREFIX_CACHE_SHARED = 1, /* all jobs share */
    PREFIX_CACHE_OFF = 2,
};

struct spaces {
    enum prefix_cache mode;
    char **tenants; /* by number less one */
    size_t count, capacity;
};

void spaces_init(struct spaces *s, enum prefix_cache mode);
void spaces_fini(struct spaces *s);

/* As struct engine_job has it: 0 shares with nobody, which is also what a tenant gets that cannot
 * be told from others (no name, no memory for one more). */
uint64_t spaces_of(struct spaces *s, const char *tenant);

#endif
