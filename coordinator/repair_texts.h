/*
 * repair_texts.h - prompts and answers that can no longer be read. Nothing else has them, so they
 * are told of and left alone: their jobs say so when they are asked for.
 *
 * Thread: any that may read the store.
 */
#ifndef CLOISTER_COORDINATOR_REPAIR_TEXTS_H
#define CLOISTER_COORDINATOR_REPAIR_TEXTS_H

#include "coordinator/store/store.h"

#include <stdio.h>

/* Reads every prompt and every run of tokens; a line in `report` and one in *ret_damaged for each
 * that is not what was stored. An error: the table cannot be walked, or holds what another build
 * wrote (ERR_UNSUPPORTED). */
enum err repair_texts_look(struct store_txn *txn, FILE *report, uint64_t *ret_damaged,
                           struct errbuf *eb);

#endif
