/* store_lmdb.h - the one decision of the store on disk that is worth a test of its own. */
#ifndef CLOISTER_COORDINATOR_STORE_STORE_LMDB_H
#define CLOISTER_COORDINATOR_STORE_STORE_LMDB_H

#include <stdint.h>

/* The name of a network file system by its statfs(2) type, NULL where it is a local one. */
const char *store_lmdb_network_fs(uint32_t fs_type);

#endif
