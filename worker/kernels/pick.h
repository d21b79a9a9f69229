/*
 * pick.h - what a backend takes of a row of logits where it lies, so that the host draws a token
 * without the row (backend_ops.pick, worker/engine/sampling.c). Values and order are those of
 * sample_math.h and sampling.h: z descending, ties by id.
 *
 * Plain structs for host and device alike.
 */
#ifndef CLOISTER_WORKER_KERNELS_PICK_H
#define CLOISTER_WORKER_KERNELS_PICK_H

#include <stdint.h>

enum pick_kind {
    PICK_ROW = 0,  /* nothing: the host wants the row itself */
    PICK_BEST = 1, /* the lowest id among those of the greatest logit */
    PICK_DRAW = 2, /* the greatest z + nm_token_gumbel(seed, position, id) of all ids with
                      nm_exp(z) >= min_p; ties go to the lower id */
    PICK_LIST = 3, /* the first `count` ids of the order */
};

#define PICK_LIST_MAX 128u

struct pick {
    uint32_t kind;
    uint32_t count;     /* PICK_LIST: 1 .. PICK_LIST_MAX */
    uint32_t with_mass; /* PICK_LIST: not 0 where the sum of all the row's masses is wanted */
    float temperature;  /* above 0; PICK_BEST: unused */
    float min_p;        /* PICK_DRAW */
    uint32_t position;  /* PICK_DRAW */
    uint64_t seed;      /* PICK_DRAW */
};

/* More ids than a backend looks through may be among the first: the host has to. Takes thousands of
 * equal logits, or a row of which nearly nothing is above -infinity. */
#define PICKED_MANY UINT32_MAX

struct picked {
    uint64_t mass; /* PICK_LIST with_mass */
    uint32_t id;   /* PICK_BEST, PICK_DRAW; 0 where no logit is above -infinity */
    /* PICK_LIST: how many follow, fewer than `count` where no more are above -infinity, or
     * PICKED_MANY. */
    uint32_t n;
    uint32_t ids[PICK_LIST_MAX]; /* ascending */
    float z[PICK_LIST_MAX];
};

/* In floats, as buffers are counted. */
#define PICKED_FLOATS ((uint32_t)(sizeof(struct picked) / sizeof(float)))

#endif
