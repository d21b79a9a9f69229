/*
 * residency.h - which models of the catalogue are in the engine. What was asked last counts,
 * whether the engine is through with what was asked before or not.
 *
 * Changes `state` and what belongs to it in struct catalogue_model, and nothing else does.
 * Thread: the engine's caller.
 */
#ifndef CLOISTER_WORKER_RESIDENCY_H
#define CLOISTER_WORKER_RESIDENCY_H

#include "worker/catalogue.h"
#include "worker/engine/engine.h"

/* `m` is of `c`. A model that is there or on its way is left alone; one that is on its way out
 * comes again. */
void residency_load(struct engine *engine, struct catalogue *c, struct catalogue_model *m);
/* Takes a model out that is there, or on its way. */
void residency_unload(struct engine *engine, struct catalogue *c, struct catalogue_model *m);
/* A MODEL event of the engine. */
void residency_event(struct engine *engine, struct catalogue *c, const struct engine_event *ev);

#endif
