/*
 * residency.h - which models of the catalogue are in the engine, whole or as a rank's share. What
 * was asked last counts, whether the engine is through with what was asked before or not: a model
 * that is there as something else goes first.
 *
 * A gang that another rank ended leaves its model AVAILABLE, with the reason in `error`; what is
 * wrong here leaves it FAILED. A gang that was left, or has ended, is not joined again: its number
 * and group are never used for another.
 *
 * Changes `state` and what belongs to it in struct catalogue_model, and nothing else does.
 * Thread: the engine's caller.
 */
#ifndef CLOISTER_WORKER_RESIDENCY_H
#define CLOISTER_WORKER_RESIDENCY_H

#include "worker/catalogue.h"
#include "worker/engine/engine.h"
#include "worker/gang_offer.h"
#include "worker/gang_place.h"

struct residency {
    struct engine *engine;
    struct catalogue *catalogue;
    const char *build;              /* the program's, in which ranks must agree */
    const struct gang_offer *gangs; /* what was offered; a place that was not is refused */
    /* Called on any thread, and must only wake the owner, who then asks residency_has_news. */
    void (*notify)(void *arg);
    void *notify_arg;
};

/* `m` is of the catalogue. As what it is there, or on its way, already, it is left alone; one that
 * is on its way out comes again. */
void residency_load(struct residency *r, struct catalogue_model *m, const struct gang_place *place);
/* Takes a model out that is there, or on its way; of a gang, also what is left to say of its end.
 */
void residency_unload(struct residency *r, struct catalogue_model *m);
/* A MODEL event of the engine. */
void residency_event(struct residency *r, const struct engine_event *ev);

/* Its place in a gang as it is said of it: where it is, or of the last LOAD where it is not any
 * more, so that one which ended before anything was reported is not waited for. Belongs to `m`. */
const struct gang_place *residency_place(const struct catalogue_model *m);

/* What the model's gang has waited for; anything else is logged and changes nothing. */
void residency_meet(struct catalogue_model *m, const struct wire_command_meet *meet);
/* True once for each address that there is to say. */
bool residency_has_news(struct residency *r);
/* All that are to be said now, at most one a model: `ret` has room for so many. */
size_t residency_addresses(struct residency *r, struct wire_gang_address *ret);

/* Once the engine is closed. */
void residency_fini(struct residency *r);

#endif
