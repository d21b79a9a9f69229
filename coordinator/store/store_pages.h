/*
 * store_pages.h - is an LMDB 0.9 data file whole? LMDB trusts every page of its file: a flipped bit
 * in one of them, or a file that was cut, ends the process that reads or, worse, writes it. So all
 * structure is read before LMDB sees the file: both meta pages, every page of every tree, every
 * value's place, the list of free pages. What lies in a value is not looked at: values are sealed.
 *
 * What holds after it said ERR_OK: each page is reached once, from one place, and is of the kind
 * that its place asks for; its entries lie inside it, side by side; keys ascend, within a page and
 * from page to page, also against the keys of the branches above; a value longer than a page lies
 * inside the file; no page is both used and free. Nothing that LMDB follows leads elsewhere.
 *
 * The file is read with pread and not through a map, so that a disk that fails is an error.
 *
 * Source: mdb.c of LMDB 0.9.24 (struct MDB_page, MDB_node, MDB_db, MDB_meta), which calls this the
 * data version 1. Numbers are in the machine's own order, as LMDB's are.
 *
 * Thread: any; nobody may be writing the file.
 */
#ifndef CLOISTER_COORDINATOR_STORE_STORE_PAGES_H
#define CLOISTER_COORDINATOR_STORE_STORE_PAGES_H

#include "common/err.h"

/* `place` is the store's directory, for messages; `file` its data.mdb. ERR_OK also where there is
 * no file, or an empty one: LMDB makes a new store there. ERR_CORRUPT names page and reason. */
enum err store_pages_check(const char *place, const char *file, struct errbuf *eb);

#endif
