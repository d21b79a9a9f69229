/*
 * store_mem.h - what only the store in memory can do: fail when it is told to.
 *
 * The simulator and the tests use it to show that nothing is acknowledged that was not kept.
 * Thread: as store_begin.
 */
#ifndef CLOISTER_COORDINATOR_STORE_STORE_MEM_H
#define CLOISTER_COORDINATOR_STORE_STORE_MEM_H

#include "coordinator/store/store.h"

struct store_mem_fault {
    uint64_t nth;  /* 1: the next commit of a write transaction; 0: none */
    enum err code; /* ERR_NO_SPACE, ERR_NO_MEMORY: as before; ERR_IO: the store is broken */
    bool applied;  /* ERR_IO only: the transaction had reached the disk all the same */
};

/* Replaces the fault set before; it happens once. */
void store_mem_fault_set(struct store *s, struct store_mem_fault fault);
/* What closing and opening again does for a store on disk: a broken one works again, with what its
 * commits left. No transaction may be open. */
void store_mem_restart(struct store *s);

#endif
