/*
 * worker/coll/nccl_abi.h against NVIDIA's own header: sizes, places of fields, numbers, and the
 * types of every function, which is compiled or not; and against the library, where there is one:
 * that it has them all and says its version. No GPU is asked for. Skipped (77) without a library.
 */
#include "worker/coll/nccl_library.h"

#include <nccl.h>
#include <stdio.h>

#define SAME_NUMBER(ours, theirs) _Static_assert((long long)(ours) == (long long)(theirs), #theirs)
#define SAME_FIELD(field)                                                                          \
    _Static_assert(offsetof(struct nccl_abi_config, field) == offsetof(ncclConfig_t, field),       \
                   "ncclConfig_t." #field);                                                        \
    _Static_assert(sizeof(((struct nccl_abi_config *)0)->field) ==                                 \
                       sizeof(((ncclConfig_t *)0)->field),                                         \
                   "size of ncclConfig_t." #field)

SAME_NUMBER(NCCL_ABI_SUCCESS, ncclSuccess);
SAME_NUMBER(NCCL_ABI_UNHANDLED_CUDA_ERROR, ncclUnhandledCudaError);
SAME_NUMBER(NCCL_ABI_SYSTEM_ERROR, ncclSystemError);
SAME_NUMBER(NCCL_ABI_INTERNAL_ERROR, ncclInternalError);
SAME_NUMBER(NCCL_ABI_INVALID_ARGUMENT, ncclInvalidArgument);
SAME_NUMBER(NCCL_ABI_INVALID_USAGE, ncclInvalidUsage);
SAME_NUMBER(NCCL_ABI_REMOTE_ERROR, ncclRemoteError);
SAME_NUMBER(NCCL_ABI_IN_PROGRESS, ncclInProgress);
SAME_NUMBER(NCCL_ABI_UINT8, ncclUint8);
SAME_NUMBER(NCCL_ABI_UNDEFINED, NCCL_CONFIG_UNDEF_INT);
SAME_NUMBER(NCCL_ABI_VERSION_MIN, NCCL_VERSION(2, 18, 1));
SAME_NUMBER(sizeof(struct nccl_abi_id), sizeof(ncclUniqueId));
SAME_NUMBER(_Alignof(struct nccl_abi_id), _Alignof(ncclUniqueId));
SAME_NUMBER(sizeof(ncclResult_t), sizeof(int));
SAME_NUMBER(sizeof(ncclDataType_t), sizeof(int));
_Static_assert(sizeof(struct nccl_abi_config) <= sizeof(ncclConfig_t), "the first of its fields");
SAME_FIELD(size);
SAME_FIELD(magic);
SAME_FIELD(version);
SAME_FIELD(blocking);
SAME_FIELD(cgaClusterSize);
SAME_FIELD(minCTAs);
SAME_FIELD(maxCTAs);
SAME_FIELD(netName);
SAME_FIELD(splitShare);

/* The type of each function, once the structs that we name otherwise are put in. */
#define SAME_TYPE(function, type)                                                                  \
    _Static_assert(__builtin_types_compatible_p(__typeof__(function), type), #function)
SAME_TYPE(ncclGetVersion, ncclResult_t(int *));
SAME_TYPE(ncclGetUniqueId, ncclResult_t(ncclUniqueId *));
SAME_TYPE(ncclCommInitRankConfig,
          ncclResult_t(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *));
SAME_TYPE(ncclCommFinalize, ncclResult_t(ncclComm_t));
SAME_TYPE(ncclCommDestroy, ncclResult_t(ncclComm_t));
SAME_TYPE(ncclCommAbort, ncclResult_t(ncclComm_t));
SAME_TYPE(ncclCommGetAsyncError, ncclResult_t(ncclComm_t, ncclResult_t *));
SAME_TYPE(ncclGroupStart, ncclResult_t());
SAME_TYPE(ncclGroupEnd, ncclResult_t());
SAME_TYPE(ncclSend,
          ncclResult_t(const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t));
SAME_TYPE(ncclRecv, ncclResult_t(void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t));
SAME_TYPE(ncclAllGather,
          ncclResult_t(const void *, void *, size_t, ncclDataType_t, ncclComm_t, cudaStream_t));
SAME_TYPE(ncclGetErrorString, const char *(ncclResult_t));
SAME_TYPE(ncclGetLastError, const char *(ncclComm_t));

int main(void)
{
    const ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;
    const struct nccl_library *library;
    struct errbuf eb;
    char text[NCCL_VERSION_BYTES], header[NCCL_VERSION_BYTES];

    if (theirs.magic != NCCL_ABI_CONFIG_MAGIC) {
        printf("a configuration begins with %x\n", theirs.magic);
        return 1;
    }
    (void)nccl_version_text(NCCL_VERSION_CODE, header);
    if (nccl_library_open(&library, &eb) != ERR_OK) {
        printf("as in the header of NCCL %s; %s\n", header, eb.text);
        return 77;
    }
    printf("as in the header of NCCL %s and its library, %s\n", header,
           nccl_version_text(library->version, text));
    return 0;
}
