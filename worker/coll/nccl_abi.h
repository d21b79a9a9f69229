/*
 * nccl_abi.h - what is used of NCCL, under its own names, so that building needs none of its files:
 * the functions of libnccl.so.2, release 2.18.1 and newer, as nccl.h declares them.
 * tests/unit/coll/test_nccl_abi.c compares all of it with NVIDIA's header where there is one.
 * Internal to worker/coll.
 */
#ifndef CLOISTER_WORKER_COLL_NCCL_ABI_H
#define CLOISTER_WORKER_COLL_NCCL_ABI_H

#include <limits.h>
#include <stddef.h>

#define NCCL_ABI_LIBRARY     "libnccl.so.2"
#define NCCL_ABI_VERSION_MIN 21801 /* 2.18.1; the form of the number since 2.9 */

#define NCCL_ABI_ID_BYTES 128
struct nccl_abi_id {
    char internal[NCCL_ABI_ID_BYTES];
};

enum nccl_abi_result {
    NCCL_ABI_SUCCESS = 0,
    NCCL_ABI_UNHANDLED_CUDA_ERROR = 1,
    NCCL_ABI_SYSTEM_ERROR = 2,
    NCCL_ABI_INTERNAL_ERROR = 3,
    NCCL_ABI_INVALID_ARGUMENT = 4,
    NCCL_ABI_INVALID_USAGE = 5,
    NCCL_ABI_REMOTE_ERROR = 6,
    NCCL_ABI_IN_PROGRESS = 7,
};

#define NCCL_ABI_UINT8 1 /* ncclDataType_t */

/* As of 2.18, the first of `version`: a newer library takes what it knows more of as undefined. */
struct nccl_abi_config {
    size_t size;
    unsigned int magic;
    unsigned int version;
    int blocking;
    int cgaClusterSize;
    int minCTAs;
    int maxCTAs;
    const char *netName;
    int splitShare;
};
#define NCCL_ABI_CONFIG_MAGIC 0xcafebeefu
#define NCCL_ABI_UNDEFINED    INT_MIN

/* X(name, (arguments)): each returns an enum nccl_abi_result, as an int. A communicator and a
 * stream are pointers. */
#define NCCL_ABI_FUNCTIONS(X)                                                                      \
    X(ncclGetVersion, (int *version))                                                              \
    X(ncclGetUniqueId, (struct nccl_abi_id * id))                                                  \
    X(ncclCommInitRankConfig,                                                                      \
      (void **comm, int nranks, struct nccl_abi_id id, int rank, struct nccl_abi_config *config))  \
    X(ncclCommFinalize, (void *comm))                                                              \
    X(ncclCommDestroy, (void *comm))                                                               \
    X(ncclCommAbort, (void *comm))                                                                 \
    X(ncclCommGetAsyncError, (void *comm, int *result))                                            \
    X(ncclGroupStart, (void))                                                                      \
    X(ncclGroupEnd, (void))                                                                        \
    X(ncclSend, (const void *from, size_t count, int type, int peer, void *comm, void *stream))    \
    X(ncclRecv, (void *to, size_t count, int type, int peer, void *comm, void *stream))            \
    X(ncclAllGather, (const void *from, void *to, size_t count, int type, void *comm, void *stream))

struct nccl_abi {
#define NCCL_ABI_MEMBER(name, arguments) int(*name) arguments;
    NCCL_ABI_FUNCTIONS(NCCL_ABI_MEMBER)
#undef NCCL_ABI_MEMBER
    const char *(*ncclGetErrorString)(int result);
    const char *(*ncclGetLastError)(void *comm); /* of a communicator, or NULL: of anything */
};

#endif
