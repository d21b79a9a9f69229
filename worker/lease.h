/*
 * lease.h - the jobs this worker holds, and what of their output the coordinator has not got yet.
 *
 * Pure bookkeeping: no engine, no network, no clock. The agent feeds it commands and engine
 * events; it fills Report frames and takes their acknowledgements. Output stays here until the
 * coordinator acknowledged it, so that a lost reply, a restarted coordinator or a repeated frame
 * neither loses nor doubles a token.
 *
 * Ownership: the table owns its leases. Thread: one owner.
 */
#ifndef CLOISTER_WORKER_LEASE_H
#define CLOISTER_WORKER_LEASE_H

#include "common/arena.h"
#include "common/err.h"
#include "common/id.h"
#include "proto/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a chunk takes of a frame, all of it; one token alone may pass it. */
#define LEASE_CHUNK_BYTES_MAX (1u << 20)

struct lease_chunk {
    uint32_t first; /* index of its first token in the completion */
    uint32_t n_ids;
    uint32_t text_size;
    int32_t *ids;
    uint32_t logprobs_size; /* bytes of all of them */
    int32_t *text_sizes;    /* [n_ids] */
    uint8_t *text;
    struct wire_bytes *logprobs; /* [n_ids], with the bytes behind them; NULL: none are wanted */
};

/* Tokens [first, first + n_ids), the text they add, and how much of it each. */
struct lease_output {
    uint32_t first;
    const int32_t *ids;
    const int32_t *text_sizes;         /* [n_ids] */
    const struct wire_bytes *logprobs; /* [n_ids] packed, each at most LIMIT_LOGPROBS_BYTES; NULL */
    size_t n_ids;
    const void *text;
    size_t text_size;
};

enum lease_state {
    LEASE_STATE_WAITING, /* not in the engine yet: its model loads, or the engine was full */
    LEASE_STATE_ACTIVE,
    LEASE_STATE_ENDED, /* the engine is through with it; kept until that is acknowledged */
};

struct lease {
    struct id job_id;
    uint64_t epoch;
    uint64_t engine_id; /* what the engine calls it */
    enum lease_state state;
    uint32_t model_id;

    struct lease_chunk *chunks; /* not acknowledged, ascending */
    size_t n_chunks, cap_chunks;
    uint32_t tokens; /* completion tokens so far, prefix included */
    uint32_t acked;  /* of these, the coordinator has */

    bool changed;  /* there is something to say that no frame has carried yet */
    bool end_sent; /* the end was in the frame now under way */
    struct wire_work_usage usage;
    enum wire_finish finish;
    enum err error;
    char error_text[ERRBUF_BYTES];

    struct arena content; /* what the RUN command carried, for WAITING leases */
    struct wire_command_run run;
};

struct lease_table {
    struct lease **leases;
    size_t count, capacity;
    uint64_t next_engine_id;
};

void lease_table_init(struct lease_table *t);
void lease_table_fini(struct lease_table *t);

struct lease *lease_find(const struct lease_table *t, const struct id *job_id);
struct lease *lease_find_engine(const struct lease_table *t, uint64_t engine_id);
/* A WAITING lease with its own copy of the command. The job must not be in the table. */
enum err lease_add(struct lease_table *t, const struct wire_command_run *run, uint32_t model_id,
                   struct lease **ret_lease, struct errbuf *eb);
void lease_remove(struct lease_table *t, struct lease *lease);
/* The command's copy is not needed once the engine has the job. */
void lease_release_content(struct lease *lease);

/* Copies any amount of output. ERR_INTERNAL where it does not follow what is there, or adds more
 * than its text. After ERR_NO_MEMORY the lease has the tokens before the one for which there was
 * none. */
enum err lease_append(struct lease *lease, const struct lease_output *output, struct errbuf *eb);
void lease_end(struct lease *lease, enum wire_finish finish, enum err error, const char *text);

/* Fills `report->leases` from all leases with something to say (all of them when `all`), at most
 * LIMIT_PROGRESS_PER_FRAME, and within `bytes_max` of output; the rest waits for the next
 * frame. Below twice LEASE_CHUNK_BYTES_MAX a chunk could wait for ever. Logprobs are not copied:
 * the report is good until the next acknowledgement. */
enum err lease_report_fill(struct lease_table *t, bool all, size_t bytes_max, struct arena *arena,
                           struct wire_report *ret_report);
/* The frame was lost: everything in it is to be said again. */
void lease_report_failed(struct lease_table *t);
/* One acknowledgement. Returns true when the lease is over for us: fenced, or its end was taken;
 * *ret_fenced tells which. The caller then cancels it in the engine (fenced) and removes it. */
bool lease_acknowledge(struct lease *lease, const struct wire_lease_ack *ack, bool *ret_fenced);
bool lease_any_changed(const struct lease_table *t);

#endif
