/* batch_test.h - jobs with numbers and plans as text, for the tests of the batch. */
#ifndef CLOISTER_TESTS_UNIT_ENGINE_BATCH_TEST_H
#define CLOISTER_TESTS_UNIT_ENGINE_BATCH_TEST_H

#include "worker/engine/batch.h"

/* Four jobs at a time, ten pages of four tokens, steps of eight rows, one plan at a time. */
extern const struct batch_config batch_test_small;
extern struct batch_seq *batch_test_seqs[64]; /* of job k, whose owner is this: */
extern int batch_test_owners[64];

struct batch *batch_test_open(const struct batch_config *config);

struct batch_test_more {
    uint32_t job_class;
    uint64_t space;
    int32_t first; /* the first id; 0: 100 k */
};

/* Job k has ids first, first + 1, ... */
enum err batch_test_add_more(struct batch *b, int k, uint32_t n_ids, uint32_t n_more,
                             struct batch_test_more more, struct errbuf *eb);
enum err batch_test_add(struct batch *b, int k, uint32_t n_ids, uint32_t n_more, struct errbuf *eb);

/* The jobs that are admitted now, in order: "0 2". */
const char *batch_test_admitted(struct batch *b);
/* "100 101 200!": ids in the order of rows, * where logits are wanted, ! where a token is drawn. */
void batch_test_text(const struct batch_plan *plan, char *text);
/* Job k draws 100 k + 50 and up, by position. */
void batch_test_commit(struct batch *b, const struct batch_plan *plan);

#endif
