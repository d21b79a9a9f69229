/*
 * run_job.h - a leased job as the engine takes it: the one place where wire structs become engine
 * structs. Thread: the agent's.
 */
#ifndef CLOISTER_WORKER_RUN_JOB_H
#define CLOISTER_WORKER_RUN_JOB_H

#include "common/err.h"
#include "worker/engine/engine.h"
#include "worker/lease.h"

/* `space` as spaces_of gives it. ERR_BUSY: the engine is full, try again later. Anything else is
 * the job's own error. */
enum err run_job_submit(struct engine *engine, const struct lease *lease, uint64_t space,
                        struct errbuf *eb);

/* What a TOKENS or FINISHED event adds becomes the lease's output. Errors of lease_append. */
enum err run_job_output(struct lease *lease, const struct engine_event *ev, struct errbuf *eb);

#endif
