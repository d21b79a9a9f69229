/*
 * resident.h - an engine with a catalogue of one tiny model, and what moves it in and out.
 */
#ifndef CLOISTER_TESTS_UNIT_WORKER_RESIDENT_H
#define CLOISTER_TESTS_UNIT_WORKER_RESIDENT_H

#include "worker/residency.h"

#include <semaphore.h>

struct resident {
    char path[64], folder[64];
    struct engine *engine;
    struct residency residency;
    struct catalogue catalogue;
    struct catalogue_model *m;
    sem_t news;
};

extern const struct gang_place resident_whole; /* gang 0 */
extern const struct engine_config resident_config;
extern const struct gang_offer resident_offer; /* shm and ucx */

void resident_open(struct resident *r);
void resident_close(struct resident *r);
/* The catalogue alone, anew. */
void resident_read(struct resident *r, bool check);
/* What the engine says now is taken. */
void resident_poll(struct resident *r);
/* Events are taken until the model stands in `state` and nothing is under way. */
void resident_until(struct resident *r, enum wire_model_state state);

#endif
