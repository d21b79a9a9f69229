/* nccl_library.h - NCCL, opened when it is first asked for. Internal to worker/coll. Thread: any.
 */
#ifndef CLOISTER_WORKER_COLL_NCCL_LIBRARY_H
#define CLOISTER_WORKER_COLL_NCCL_LIBRARY_H

#include "common/err.h"
#include "worker/coll/nccl_abi.h"

struct nccl_library {
    struct nccl_abi abi;
    int version;
};

/* Stays open until the process ends. ERR_UNSUPPORTED says what is missing. */
enum err nccl_library_open(const struct nccl_library **ret_library, struct errbuf *eb);

/* "2.18.1". */
#define NCCL_VERSION_BYTES 24
const char *nccl_version_text(int version, char ret_text[NCCL_VERSION_BYTES]);

#endif
