/*
 * What ranks of a gang hand each other (backend.h, exchange_open): host memory that other processes
 * or a network write and read. It is registered, so that kernels reach it over the bus where it is:
 * the last product of a branch writes its sums there, `join` reads everybody's, and each float
 * crosses the bus once each way. Staged copies would cross it as often and memory twice more.
 */
#include "worker/kernels/cuda/cuda_internal.h"

#include "common/check.h"

#include <stdlib.h>
#include <unistd.h>

struct exchange {
    void *at[2]; /* registered */
    uint32_t n;
};

static enum err exchange_register(const struct cuda_backend *cuda, struct exchange *x,
                                  uintptr_t begin, uintptr_t end, struct errbuf *eb)
{
    void *const at = (void *)begin;
    const size_t bytes = end - begin;
    void *device = NULL;
    cudaError_t e = cudaHostRegister(at, bytes, cudaHostRegisterPortable | cudaHostRegisterMapped);

    if (e != cudaSuccess)
        return cuda_error(eb, e, "registering %zu bytes that ranks exchange", bytes);
    x->at[x->n++] = at;
    e = cudaHostGetDevicePointer(&device, at, 0);
    if (e != cudaSuccess)
        return cuda_error(eb, e, "asking where %zu bytes that ranks exchange are", bytes);
    if (device != at)
        return err_set(eb, ERR_UNSUPPORTED, "GPU %d reaches host memory at other addresses only",
                       cuda->device);
    return ERR_OK;
}

enum err cuda_exchange_open(struct backend *b, void *const halves[2], size_t bytes,
                            struct exchange **ret_exchange, struct errbuf *eb)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin[2], end[2];

    cuda_enter(cuda);
    *ret_exchange = NULL;
    if (bytes == 0)
        return ERR_OK;
    struct exchange *x = calloc(1, sizeof *x);
    if (x == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for what ranks exchange");
    cuda->n_exchanges++;
    const int low = (uintptr_t)halves[0] <= (uintptr_t)halves[1] ? 0 : 1;
    for (int i = 0; i < 2; i++) {
        const uintptr_t half = (uintptr_t)halves[i == 0 ? low : 1 - low];
        begin[i] = half / page * page;
        end[i] = (half + bytes + page - 1) / page * page;
    }
    /* Pages are registered once: halves that share one are registered together. */
    const bool is_one = begin[1] <= end[0];
    enum err err = exchange_register(cuda, x, begin[0], is_one ? end[1] : end[0], eb);
    if (err == ERR_OK && !is_one)
        err = exchange_register(cuda, x, begin[1], end[1], eb);
    if (err != ERR_OK)
        cuda_exchange_close(b, x);
    else
        *ret_exchange = x;
    return err;
}

void cuda_exchange_done(struct backend *b)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;

    cuda_enter(cuda);
    cuda_held_flush(cuda);
    if (cuda->said.first == NULL)
        CUDA_DO(cudaStreamSynchronize(cuda->stream), "waiting for what other ranks want");
    else
        CUDA_DO(cudaStreamSynchronize(cuda->stream),
                "waiting for what other ranks want, behind %u operations, %s to %s, of a step of "
                "%u rows",
                cuda->said.n_ops, cuda->said.first, cuda->said.last, cuda->said.n_rows);
}

void cuda_exchange_close(struct backend *b, struct exchange *exchange)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;

    if (exchange == NULL)
        return;
    cuda_exchange_done(b);
    cuda_graphs_clear(cuda); /* they may read it */
    while (exchange->n > 0)
        CUDA_DO(cudaHostUnregister(exchange->at[--exchange->n]), "giving back what ranks exchange");
    free(exchange);
    cuda->n_exchanges--;
}
