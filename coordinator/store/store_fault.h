/*
 * store_fault.h - a last word when the map of data.mdb cannot be read.
 *
 * LMDB reads through a map of its file. A disk that fails under it, or a file that somebody cuts
 * while it is open, arrives as SIGBUS, after which nothing can go on: the process ends, and the
 * next start checks the file (store_pages.h). Before it ends it says which file and where, in one
 * line to stderr. Faults at other addresses are left as they are.
 *
 * Thread: store_fault_install once, before other threads; the others from any.
 */
#ifndef CLOISTER_COORDINATOR_STORE_STORE_FAULT_H
#define CLOISTER_COORDINATOR_STORE_STORE_FAULT_H

/* For programs: takes SIGBUS and SIGSEGV. What they did before happens after the line. */
void store_fault_install(void);

/* For store_lmdb.c: the map of `file`, open in `place`, from now on, and no more. A second store
 * replaces the first. */
void store_fault_watch(const char *place, const char *file);
void store_fault_unwatch(void);

#endif
