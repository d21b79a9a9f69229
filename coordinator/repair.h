/*
 * repair.h - a way on when a stored record is damaged and the coordinator does not start.
 *
 * The ledger is the truth and is never changed: it is verified whole first, against its checkpoint,
 * and where it is not whole nothing is done. All else that a start reads follows from it:
 *
 * - balances and usage are summed again from the ledger;
 * - a job whose record is damaged is made again from its ledger records. One that was not over ends
 *   FAILED, by a record that is appended and owes nothing; its client is told why;
 * - what was learned of a model is forgotten, and measured again;
 * - the number of the last boot goes on from the last one that the ledger tells of.
 *
 * What is taken away is written to a file beside the store first, as it lies there, in hex. All
 * changes are one transaction: a repair that is killed has changed nothing or everything.
 *
 * Thread: one; the coordinator must not run (the store says so).
 */
#ifndef CLOISTER_COORDINATOR_REPAIR_H
#define CLOISTER_COORDINATOR_REPAIR_H

#include "coordinator/loop.h"

#include <stdio.h>

struct repair_result {
    uint64_t damaged;  /* rows that are not what was stored, or that the ledger contradicts */
    uint64_t restored; /* rows that are written anew */
    uint64_t ended;    /* jobs among them that end by it */
    uint64_t lost; /* prompts and answers that cannot be read: of these there is no other copy */
};

/* With `change` false nothing is written: the lines in `report` say what would be. ERR_NOT_FOUND
 * where there is no store, ERR_CONFLICT where it is in use, ERR_CORRUPT where the ledger is not
 * whole. */
enum err repair_run(const struct loop_config *config, bool change, FILE *report,
                    struct repair_result *ret_result, struct errbuf *eb);

#endif
