/*
 * sim_worker.h - what a simulated worker has, for the two files that make one: its life and jobs
 * (sim_worker.c), and which models it has loaded, whole or as a rank of a gang (sim_models.c).
 */
#ifndef CLOISTER_TESTS_SIM_SIM_WORKER_H
#define CLOISTER_TESTS_SIM_SIM_WORKER_H

#include "common/shard_cut.h"
#include "tests/sim/sim.h"
#include "worker/engine/batch.h"

struct sim_lease {
    bool used;
    struct batch_seq *seq; /* NULL: all its tokens are made, or it cannot have any */
    struct id job_id;
    uint32_t model;
    uint64_t epoch;
    uint64_t seed;
    uint32_t max_tokens;
    uint32_t resumed;
    uint32_t made;
    uint32_t acked;
    bool over, over_sent;
    enum wire_finish finish;
    enum err error;
};

struct sim_model {
    enum wire_model_state state;
    uint64_t bytes; /* that it takes, loading or loaded */
    uint64_t ready_ns;
    uint64_t gang; /* 0: the whole model */
    uint32_t rank, ranks;
    char members[SHARD_RANKS_MAX][16];
    bool has_met;
    bool is_nccl;
    struct {
        uint64_t gang;
        uint32_t rank, ranks;
    } last;           /* that it was told to load */
    uint64_t over_ns; /* when it hears that another rank is gone; 0: none is */
    char error[64];
};

struct sim_worker {
    bool alive;
    bool hanging;
    uint64_t hang_until_ns;
    uint64_t acked_command;
    struct sim_lease leases[SIM_LEASES];
    struct sim_model models[SIM_MODELS];
    uint64_t reported_ns;
    uint64_t retry_ns;
    uint64_t heard_ns; /* the coordinator */
    bool leaving;
    struct batch *batch;
};

void models_reset(struct sim_worker *w);
/* What NCCL is reckoned to take for each group of ranks. */
#define SIM_NCCL_BYTES (1ull << 29)

struct wire_memory models_memory(const struct sim_worker *w);
/* Offers point into a shape that is freed by the next call. */
void models_offer(struct wire_model_offer *ret_offers);
void models_status(const struct sim_worker *w, struct wire_model_status *ret_status);
void models_load(struct sim *s, struct sim_actor *a, const struct wire_command_load *load);
void models_unload(struct sim_worker *w, const char *name);
/* Loads end, ranks meet, and hear of ranks that are gone. */
void models_step(struct sim *s, struct sim_actor *a);
/* Of a job's model: jobs are for the whole model, or for rank 0. */
bool models_can_run(struct sim *s, const struct sim_actor *a, uint32_t model);

#endif
