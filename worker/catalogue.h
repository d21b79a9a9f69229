/*
 * catalogue.h - the models this worker can serve: what it tells the coordinator about each file,
 * and where each one stands now.
 *
 * Opening reads each file's header (refusing what this build cannot run, with the reason) and its
 * SHA-256, of a split model all its files'. The digest of a large file takes seconds, so it is
 * remembered in a folder with the files' devices, inodes, sizes and times of last change. A file
 * that is another one by the time it is loaded is refused then.
 *
 * Ownership: the catalogue owns all strings. Thread: one owner.
 */
#ifndef CLOISTER_WORKER_CATALOGUE_H
#define CLOISTER_WORKER_CATALOGUE_H

#include "common/err.h"
#include "proto/wire.h"
#include "worker/engine/engine.h"
#include "worker/gang_place.h"
#include "worker/rendezvous.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct catalogue_source {
    const char *name; /* what jobs call it */
    const char *path;
    uint32_t context_tokens; /* 0: the file's own, bounded by the engine */
    uint32_t slots;          /* 0: the engine's default */
    enum kv_type kv_type;
};

/* Where digests are remembered. */
struct catalogue_digests {
    const char *folder; /* need not be there where it is only read */
    bool read_only; /* --check-config leaves nothing behind, least of all another user's files */
};

struct catalogue_model {
    char *name, *path;
    char *architecture, *quantization, *chat_template;
    char *gang_settings; /* the offer's; NULL: it has none */
    uint8_t *shape;      /* the offer's */
    struct engine_model_config config;
    struct wire_model_offer offer;
    uint32_t kv_pages; /* of the pool, as the whole model has it */

    /* residency.h */
    enum wire_model_state state;
    char error[ERRBUF_BYTES];      /* why it is FAILED; or, AVAILABLE, what ended its gang */
    struct gang_place place;       /* LOADING, READY, FAILED: as what */
    bool unloading;                /* LOADING or READY, but to go */
    bool load_again;               /* asked for meanwhile, */
    struct gang_place next;        /* as this */
    struct gang_place asked;       /* by the last LOAD, whatever became of it */
    struct rendezvous *rendezvous; /* of a gang over ucx; NULL: none */
    uint32_t failures;             /* loads that failed since it was last READY */
    /* measured, once READY */
    uint64_t weights_bytes, kv_bytes, scratch_bytes, exchange_bytes, load_ms;
};

struct catalogue {
    struct catalogue_model *models; /* index is the engine's model_id */
    size_t count;
};

/* Every source must be good: an operator who names a file wants it served. Errors name it. */
enum err catalogue_open(struct catalogue *ret_catalogue, const struct catalogue_source *sources,
                        size_t n_sources, const struct engine_config *engine,
                        const struct catalogue_digests *digests, struct errbuf *eb);
void catalogue_close(struct catalogue *c);

/* NULL where there is none of this name. */
struct catalogue_model *catalogue_find(struct catalogue *c, const char *name);

#endif
