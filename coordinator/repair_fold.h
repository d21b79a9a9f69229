/*
 * repair_fold.h - what follows from the ledger alone: which reservations are open, what each tenant
 * has reserved and owes, and what was used by tenant, model and day. The same sums as the core's.
 *
 * Ownership: fold_fini frees all of it. Thread: one owner.
 */
#ifndef CLOISTER_COORDINATOR_REPAIR_FOLD_H
#define CLOISTER_COORDINATOR_REPAIR_FOLD_H

#include "common/arena.h"
#include "coordinator/core/tree.h"
#include "coordinator/store/store.h"
#include "proto/record.h"

struct fold_job {
    struct tree_node node;
    struct id id;
    bool kept;            /* stays when it ends: somebody wants to know */
    bool waiting;         /* a good record of it says that it is not over */
    uint64_t reserve_seq; /* seq + 1; 0: the ledger does not know it */
    uint64_t end_seq;     /* likewise */
    uint64_t stored_seq;  /* of the RESERVE, as that record says */
};

struct fold_usage {
    struct tree_node node;
    struct record_usage row;
    bool stored; /* as it is here */
};

struct fold_balance {
    struct tree_node node;
    struct record_balance row;
    bool stored;
};

struct fold {
    struct tree jobs, usages, balances;
    struct arena names;
    uint64_t boot_epoch; /* the last one that the ledger tells of */
};

void fold_init(struct fold *f);
void fold_fini(struct fold *f);

/* Before the records: what becomes of this job is wanted. */
struct fold_job *fold_want(struct fold *f, const struct id *id);
/* Records in their order. ERR_CORRUPT where one does not follow from those before it. */
enum err fold_record(struct fold *f, const struct record_ledger *record, struct errbuf *eb);
/* All of them. */
enum err fold_ledger(struct fold *f, struct store_txn *txn, struct errbuf *eb);

struct fold_usage *fold_usage_find(const struct fold *f, const struct record_usage *row);
struct fold_balance *fold_balance_find(const struct fold *f, const char *tenant);

#endif
