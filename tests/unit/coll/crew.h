/*
 * crew.h - runs the ranks of a gang for a test, as processes or as threads, and plays the
 * coordinator that carries their cards. What each rank came to is in its report; ranks that hang
 * are ended, by their own process id, and fail the test.
 */
#ifndef CLOISTER_TESTS_UNIT_COLL_CREW_H
#define CLOISTER_TESTS_UNIT_COLL_CREW_H

#include "tests/unit/coll/host_device.h"
#include "worker/coll/coll.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#define CREW_CARD_MAX 16384u

struct crew;

struct crew_rank {
    struct crew *gang;
    uint32_t rank;
    int card_fd; /* to the coordinator */
    struct coll_config config;
    struct host_device device; /* nccl */
    uint8_t *cards;            /* what it brought */
};

/* What a rank does; its result and errbuf are its report. */
typedef enum err crew_body(struct crew_rank *g, void *arg, struct errbuf *eb);

/* In memory that the ranks share with the test. */
struct crew_report {
    _Atomic uint32_t steps; /* counted by the body */
    _Atomic bool is_done;
    enum err e;
    uint64_t ended_ns;
    struct errbuf eb;
};

struct crew {
    enum coll_transport transport;
    enum coll_transport control; /* of nccl */
    uint32_t n_ranks;
    bool is_threads;
    uint64_t epoch;
    uint32_t silence_ms;
    size_t bytes_max;
    uint32_t host_ranks; /* so many neighbours say that they are of one host; 0: nobody says */
    crew_body *body;
    void *arg;

    struct crew_rank rank[COLL_RANKS_MAX];
    struct crew_report *report; /* [n_ranks] */
    pid_t pid[COLL_RANKS_MAX];
    int status[COLL_RANKS_MAX]; /* how it ended, as wait(2) has it */
    pthread_t thread[COLL_RANKS_MAX];
    int card_fd[COLL_RANKS_MAX]; /* the coordinator's ends */
    uint8_t group[COLL_GROUP_BYTES];
};

/* A gang of `n_ranks` with a group id of its own; set what else is wanted, then start. */
void crew_init(struct crew *gang, enum coll_transport transport, uint32_t n_ranks, crew_body *body,
               void *arg);
/* Starts the ranks, without waiting for them. */
void crew_start(struct crew *gang);
/* Carries the cards of all to all (ucx). False: a rank's never came, and all others are told. */
bool crew_carry(struct crew *gang);
/* Waits until each rank that still lives has ended; what does not within `ms` is killed, and false
 * returned. */
bool crew_wait(struct crew *gang, uint32_t ms);
void crew_fini(struct crew *gang);

/* Waits until `rank`, or every rank (COLL_RANKS_MAX), has counted to `steps`. */
void crew_reach(struct crew *gang, uint32_t rank, uint32_t steps);
/* kill -9, and waited for. */
void crew_kill(struct crew *gang, uint32_t rank);

/* All of it: start, carry, wait; every rank must report ERR_OK. */
void crew_run(struct crew *gang);

/* coll_open with the rank's configuration and a long deadline. */
enum err crew_open(struct crew_rank *g, struct coll **ret_coll, struct errbuf *eb);

uint64_t crew_soon(uint32_t ms); /* a deadline */

/* Bytes that `from` has for `to` in operation `op`, the oracle of what must arrive. */
void crew_fill(uint8_t *to_bytes, size_t size, uint64_t seed, uint64_t op, uint32_t from,
               uint32_t to);
bool crew_is_filled(const uint8_t *bytes, size_t size, uint64_t seed, uint64_t op, uint32_t from,
                    uint32_t to);

/* A number from a seed that it moves on. */
uint64_t crew_random(uint64_t *seed);

unsigned crew_count_files(void);  /* open files of this process */
unsigned crew_count_shared(void); /* names in /dev/shm that are ours or libucx's */

/* False, and said why, where this build or machine lacks it. */
bool crew_has_transport(enum coll_transport transport);
/* From "shm", "ucx" or "nccl", whose control is shm; ends the test program with 77 where this build
 * or machine lacks it. */
enum coll_transport crew_transport(int argc, char **argv);

#endif
