/*
 * gang_test.h - workers that offer a model of 6 GB which can be shared out, and what they say of
 * their part of it.
 */
#ifndef CLOISTER_TESTS_UNIT_CORE_GANG_TEST_H
#define CLOISTER_TESTS_UNIT_CORE_GANG_TEST_H

#include "tests/unit/core/core_test.h"

#define GANG_SHM  (1u << WIRE_GANG_TRANSPORT_SHM)
#define GANG_UCX  (1u << WIRE_GANG_TRANSPORT_UCX)
#define GANG_NCCL (1u << WIRE_GANG_TRANSPORT_NCCL)

/* Of a group of tests. */
int gang_test_setup(void **state);
int gang_test_teardown(void **state);

struct gang_member {
    const char *name;
    double gb; /* all of it free */
    uint8_t host;
    uint32_t transports;
    const char *settings; /* NULL: those that the others have */
    bool has_gpu;
};
uint64_t gang_member(struct core_test *t, const struct gang_member *m);
/* Which has a part of the model already, or had. */
uint64_t gang_member_says(struct core_test *t, const struct gang_member *m,
                          const struct wire_model_status *status);
/* Its Hello, for a test to change: model "m" is its first. */
struct core_test_worker gang_member_hello(const struct gang_member *m);

/* Nothing: the worker has no share of the model. */
struct gang_share {
    uint64_t gang;
    uint32_t rank, ranks;
};
struct wire_model_status gang_status_of(enum wire_model_state state, struct gang_share s,
                                        const char *error);
void gang_says(struct core_test *t, uint64_t worker, struct wire_model_status status);
void gang_says_ready(struct core_test *t, uint64_t worker, struct gang_share s);

/* The only command that a worker has now. */
struct wire_command gang_command(struct core_test *t, uint64_t worker, uint64_t acked,
                                 enum wire_command_kind kind);

/* ---- two of 4 GB, on one host ---- */

struct gang_pair {
    struct core_test t;
    uint64_t a, b, client;
    uint64_t gang;
};
extern const struct gang_member gang_pair_a, gang_pair_b;

/* Job 1 is theirs; they have not heard of it. */
void gang_pair_start(struct gang_pair *p, const struct gang_member *a, const struct gang_member *b);
/* They are told to load. */
void gang_pair_load(struct gang_pair *p, const struct gang_member *a, const struct gang_member *b);
/* And job 1 is rank 0's. */
void gang_pair_run(struct gang_pair *p);

#endif
