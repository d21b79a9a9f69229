/*
 * core_test.h - a core without a loop, for tests in tables: each helper is one request, stepped and
 * ended as a turn of its own, with the reply it got.
 */
#ifndef CLOISTER_TESTS_UNIT_CORE_CORE_TEST_H
#define CLOISTER_TESTS_UNIT_CORE_CORE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordinator/core/core.h"

#include <stdbool.h>

#define CORE_TEST_GB (1ull << 30)

struct core_test {
    struct core_config config;
    struct core *core;
    struct arena arena;
    struct core_effects effects; /* of the last turn */
    uint64_t now_ms;
    uint64_t tag;
    uint64_t random;
    uint64_t connection; /* that requests come on */
};

void core_test_init(struct core_test *t); /* defaults; change config, then open */
void core_test_open(struct core_test *t);
void core_test_start(struct core_test *t); /* both */
/* And a worker "w" with model "m" loaded, and a client "c": their sessions, where they are asked
 * for. */
void core_test_start_pair(struct core_test *t, uint64_t *ret_worker, uint64_t *ret_client);
/* And the client's job 1 of 20 tokens, which is the worker's. */
void core_test_start_job(struct core_test *t, uint64_t *ret_worker, uint64_t *ret_client);
void core_test_fini(struct core_test *t);

/* Starts a turn: effects of the one before are gone. */
void core_test_begin(struct core_test *t);
uint64_t core_test_step(struct core_test *t, struct wire_request *request); /* its tag */
void core_test_end(struct core_test *t);
void core_test_wait(struct core_test *t, uint64_t ms); /* ticks on the way, in one turn */
/* Likewise, and the worker sends a report each second. */
void core_test_wait_alive(struct core_test *t, uint64_t worker, uint64_t ms);

/* The reply of the last turn to `tag`; NULL where it was parked. */
const struct core_effect *core_test_reply(const struct core_test *t, uint64_t tag);
const struct core_effect *core_test_find(const struct core_test *t, enum core_effect_kind kind);
size_t core_test_count(const struct core_test *t, enum core_effect_kind kind);
/* One request, one turn, its reply (NULL where it was parked). */
const struct wire_reply *core_test_ask(struct core_test *t, struct wire_request *request);
void core_test_expect_error(const struct wire_reply *reply, enum err code, const char *part);

/* Sessions: both Hellos. */
uint64_t core_test_client(struct core_test *t, const char *name, const char *tenant, uint8_t key);
struct core_test_worker {
    const char *name;
    uint8_t key;
    uint64_t total_bytes, free_bytes;
    const char *models[4];
    uint64_t weights_bytes[4];
    bool ready[4];
    uint64_t kv_bytes;         /* of all of them */
    uint32_t context_tokens;   /* likewise; 0: 1000 */
    uint8_t digest;            /* likewise; 0: of each its own */
    const char *quantization;  /* likewise; NULL: "Q4_1" */
    struct wire_bytes shape;   /* likewise */
    const char *gang_settings; /* likewise; NULL: it joins no gang */
    uint64_t rank_bytes;       /* likewise */
    struct shard_room room;    /* likewise */
    uint8_t host;              /* in all bytes */
    uint32_t transports;
    bool has_gpu;
    const char *gpu_uuid;  /* of that; NULL: "GPU-1" */
    struct wire_nccl nccl; /* no version: it has none */
    uint64_t read_bytes_per_s;
    const struct wire_model_status *status; /* instead of what `ready` says */
    size_t n_status;
    const struct wire_lease_held *leases;
    size_t n_leases;
};
uint64_t core_test_worker(struct core_test *t, const struct core_test_worker *worker);
/* A worker with model "m", of a gigabyte, loaded, or on its disk. */
uint64_t core_test_ready_worker(struct core_test *t, const char *name);
uint64_t core_test_cold_worker(struct core_test *t, const char *name);

struct id core_test_id(uint8_t n);
/* A job of 10 prompt ids; ERR_OK or the error's code. */
struct wire_request core_test_submit(uint64_t session, uint8_t n, const char *model,
                                     uint32_t max_tokens);
enum err core_test_submit_ask(struct core_test *t, uint64_t session, uint8_t n, const char *model,
                              uint32_t max_tokens);
/* What a Pull brings now (nothing: 0 commands, or parked). Acks all up to `acked`. */
struct wire_pull_reply core_test_pull(struct core_test *t, uint64_t session, uint64_t acked);
/* One lease's progress: `n` ids from `first`, text of a byte each. */
struct wire_lease_ack core_test_report(struct core_test *t, uint64_t session, uint8_t job,
                                       uint64_t epoch, uint32_t first, uint32_t n,
                                       enum wire_finish finish, enum err error);
struct wire_job_info core_test_job(struct core_test *t, uint64_t session, uint8_t n);
const struct wire_explain_reply *core_test_explain(struct core_test *t, uint64_t session,
                                                   uint8_t n);
const struct wire_reply *core_test_cancel(struct core_test *t, uint64_t session, uint8_t n);
/* The turn's ledger record; fails where there is not exactly one. */
const struct record_ledger *core_test_ledger(const struct core_test *t);

#endif
