/*
 * nccl_stand_in.c - a library in NCCL's place, with its ABI as far as the product uses it: it moves
 * bytes between processes over sockets whose names, in Linux's abstract namespace, follow from the
 * unique id. What is on a stream is the program's to say, which has a device of some kind:
 *
 *     void nccl_stand_in_queue(void *stream, bool (*turn)(void *arg), void *arg);
 *
 * puts work on it that is done by turns. As with NCCL, a communicator is met for, and operations
 * are launched, while ncclCommGetAsyncError says that they are in progress; work whose peer is gone
 * stays on the stream until the communicator is aborted.
 *
 * NCCL_STAND_IN_VERSION is what ncclGetVersion says. NCCL_STAND_IN makes a rank fail:
 *   init:RANK      ncclCommInitRankConfig fails
 *   meet:RANK      its communicator is never there
 *   call:RANK:N    its N-th operation is refused
 *   async:RANK:N   ... fails on the way
 *   hang:RANK:N    ... never ends
 *   slow:RANK:N    ... takes 0.3 s
 */
#include "worker/coll/nccl_abi.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define RANKS_MAX     16
#define TRANSFERS_MAX (2 * RANKS_MAX)
#define EXPORT        __attribute__((visibility("default")))

struct comm {
    int rank, n_ranks;
    char name[2 * NCCL_ABI_ID_BYTES];
    int listening;
    int fd[RANKS_MAX];     /* -1: not met yet */
    int coming[RANKS_MAX]; /* accepted, not named yet */
    bool is_met, is_aborted;
    int error;     /* asynchronous */
    int launching; /* times that it is still in progress */
    int n_operations;
    int n_queued;
};

struct transfer {
    bool is_send;
    int peer;
    uint8_t *at;
    uint64_t size; /* goes first, so that ranks that differ are found */
    uint64_t done; /* of 8 + size */
    uint64_t said; /* what the other side's is */
};

#define SLOW_NS 300000000

struct batch {
    struct comm *comm;
    int64_t begun_ns; /* 0: not yet */
    int operation;
    int n;
    struct transfer transfer[TRANSFERS_MAX];
};

static _Thread_local int group_depth;
static _Thread_local struct batch group;
static _Thread_local void *group_stream;

static bool is_told(const char *what, int rank, int operation)
{
    const char *text = getenv("NCCL_STAND_IN");
    char kind[16] = "";
    int its_rank = -1, its_operation = 0;
    if (text == NULL || sscanf(text, "%15[a-z]:%d:%d", kind, &its_rank, &its_operation) < 2)
        return false;
    return strcmp(kind, what) == 0 && rank == its_rank &&
           (operation == 0 || operation == its_operation);
}

/* ---- meeting ---- */

static socklen_t address_of(const struct comm *c, int rank, struct sockaddr_un *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->sun_family = AF_UNIX;
    int n = snprintf(ret->sun_path + 1, sizeof ret->sun_path - 1, "nccl-stand-in-%.60s-%d", c->name,
                     rank);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static void connect_to(struct comm *c, int rank)
{
    struct sockaddr_un address;
    const socklen_t size = address_of(c, rank, &address);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const uint8_t mine = (uint8_t)c->rank;
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)&address, size) != 0 || write(fd, &mine, 1) != 1) {
        close(fd);
        return;
    }
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    c->fd[rank] = fd;
}

static void accept_some(struct comm *c)
{
    for (int i = 0; i < RANKS_MAX; i++) {
        uint8_t rank;
        if (c->coming[i] < 0)
            c->coming[i] = accept4(c->listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (c->coming[i] < 0 || read(c->coming[i], &rank, 1) != 1)
            continue;
        if (rank < c->n_ranks)
            c->fd[rank] = c->coming[i];
        c->coming[i] = -1;
    }
}

static void meet(struct comm *c)
{
    bool is_met = !is_told("meet", c->rank, 0);
    accept_some(c);
    for (int r = 0; r < c->n_ranks; r++) {
        if (r < c->rank && c->fd[r] < 0)
            connect_to(c, r);
        is_met = is_met && (r == c->rank || c->fd[r] >= 0);
    }
    c->is_met = is_met;
}

/* ---- moving ---- */

/* As much as goes without waiting. */
static void transfer_go_on(struct comm *c, struct transfer *t)
{
    ssize_t moved = 1;
    while (moved > 0 && t->done < 8 + t->size && c->error == NCCL_ABI_SUCCESS) {
        const bool is_head = t->done < 8;
        uint8_t *head = (uint8_t *)(t->is_send ? &t->size : &t->said);
        uint8_t *at = is_head ? head + t->done : t->at + (t->done - 8);
        const size_t left = is_head ? 8 - t->done : 8 + t->size - t->done;
        moved = t->is_send ? send(c->fd[t->peer], at, left, MSG_NOSIGNAL | MSG_DONTWAIT)
                           : recv(c->fd[t->peer], at, left, MSG_DONTWAIT);
        if (moved > 0)
            t->done += (uint64_t)moved;
        else if (moved == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
            c->error = NCCL_ABI_REMOTE_ERROR;
        if (!t->is_send && t->done == 8 && t->said != t->size)
            c->error = NCCL_ABI_INVALID_USAGE;
    }
}

static void batch_end(struct batch *b)
{
    if (--b->comm->n_queued == 0 && b->comm->is_aborted)
        free(b->comm);
    free(b);
}

static bool is_slow(struct batch *b)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    const int64_t now_ns = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
    if (b->begun_ns == 0)
        b->begun_ns = now_ns;
    return now_ns - b->begun_ns < SLOW_NS && is_told("slow", b->comm->rank, b->operation);
}

/* What is on the stream; true where it is done. */
static bool batch_turn(void *arg)
{
    struct batch *b = arg;
    struct comm *c = b->comm;
    bool is_done = true;
    if (c->is_aborted) {
        batch_end(b);
        return true;
    }
    if (is_told("async", c->rank, b->operation))
        c->error = NCCL_ABI_UNHANDLED_CUDA_ERROR;
    if (c->error != NCCL_ABI_SUCCESS || is_told("hang", c->rank, b->operation) || is_slow(b))
        return false;
    for (int i = 0; i < b->n; i++) {
        transfer_go_on(c, &b->transfer[i]);
        is_done = is_done && b->transfer[i].done == 8 + b->transfer[i].size;
    }
    if (!is_done)
        return false;
    batch_end(b);
    return true;
}

static int batch_launch(void)
{
    void (*queue)(void *stream, bool (*turn)(void *), void *arg);
    struct comm *c = group.comm;
    if (c == NULL)
        return NCCL_ABI_SUCCESS;
    *(void **)(void *)&queue = dlsym(RTLD_DEFAULT, "nccl_stand_in_queue");
    struct batch *b = malloc(sizeof *b);
    if (queue == NULL || b == NULL || !c->is_met)
        return NCCL_ABI_INTERNAL_ERROR;
    *b = group;
    group = (struct batch){0};
    b->operation = ++c->n_operations;
    if (is_told("call", c->rank, b->operation)) {
        free(b);
        return NCCL_ABI_SYSTEM_ERROR;
    }
    c->n_queued++;
    c->launching = 2;
    queue(group_stream, batch_turn, b);
    return NCCL_ABI_IN_PROGRESS;
}

static int group_add(bool is_send, void *at, size_t size, int peer, void *comm, void *stream)
{
    struct comm *c = comm;
    if (group.n == TRANSFERS_MAX || (group.comm != NULL && group.comm != c) || peer < 0 ||
        peer >= c->n_ranks || peer == c->rank)
        return NCCL_ABI_INVALID_ARGUMENT;
    group.comm = c;
    group_stream = stream;
    group.transfer[group.n++] =
        (struct transfer){.is_send = is_send, .peer = peer, .at = at, .size = size};
    return NCCL_ABI_SUCCESS;
}

/* ---- what is exported ---- */

#define DECLARE(name, arguments) EXPORT int name arguments;
NCCL_ABI_FUNCTIONS(DECLARE)
#undef DECLARE
EXPORT const char *ncclGetErrorString(int result);
EXPORT const char *ncclGetLastError(void *comm);

int ncclGetVersion(int *version)
{
    const char *text = getenv("NCCL_STAND_IN_VERSION");
    *version = text != NULL ? atoi(text) : 22703;
    return NCCL_ABI_SUCCESS;
}

const char *ncclGetErrorString(int result)
{
    static const char *const names[] = {"no error",       "unhandled cuda error", "system error",
                                        "internal error", "invalid argument",     "invalid usage",
                                        "remote error",   "in progress"};
    return result >= 0 && result < 8 ? names[result] : "unknown";
}

const char *ncclGetLastError(void *comm)
{
    (void)comm;
    return "the stand-in was told to";
}

int ncclGetUniqueId(struct nccl_abi_id *id)
{
    memset(id, 0, sizeof *id);
    return getrandom(id->internal, 16, 0) == 16 ? NCCL_ABI_SUCCESS : NCCL_ABI_SYSTEM_ERROR;
}

int ncclCommInitRankConfig(void **comm, int nranks, struct nccl_abi_id id, int rank,
                           struct nccl_abi_config *config)
{
    struct sockaddr_un address;
    if (config->magic != NCCL_ABI_CONFIG_MAGIC || config->blocking != 0 || nranks > RANKS_MAX)
        return NCCL_ABI_INVALID_ARGUMENT;
    if (is_told("init", rank, 0))
        return NCCL_ABI_SYSTEM_ERROR;
    struct comm *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NCCL_ABI_SYSTEM_ERROR;
    c->rank = rank;
    c->n_ranks = nranks;
    memset(c->fd, -1, sizeof c->fd);
    memset(c->coming, -1, sizeof c->coming);
    for (int i = 0; i < 16; i++)
        (void)snprintf(c->name + 2 * i, 3, "%02x", (uint8_t)id.internal[i]);
    c->listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const socklen_t size = address_of(c, rank, &address);
    if (c->listening < 0 || bind(c->listening, (const struct sockaddr *)&address, size) != 0 ||
        listen(c->listening, RANKS_MAX) != 0) {
        (void)ncclCommAbort(c);
        return NCCL_ABI_SYSTEM_ERROR;
    }
    *comm = c;
    return NCCL_ABI_IN_PROGRESS;
}

int ncclCommGetAsyncError(void *comm, int *result)
{
    struct comm *c = comm;
    if (!c->is_met && c->error == NCCL_ABI_SUCCESS)
        meet(c);
    *result = c->error != NCCL_ABI_SUCCESS       ? c->error
              : !c->is_met || c->launching-- > 0 ? NCCL_ABI_IN_PROGRESS
                                                 : NCCL_ABI_SUCCESS;
    c->launching = c->launching < 0 ? 0 : c->launching;
    return NCCL_ABI_SUCCESS;
}

static void comm_close(struct comm *c)
{
    for (int r = 0; r < RANKS_MAX; r++) {
        if (c->fd[r] >= 0)
            close(c->fd[r]);
        if (c->coming[r] >= 0)
            close(c->coming[r]);
    }
    if (c->listening >= 0)
        close(c->listening);
}

int ncclCommFinalize(void *comm)
{
    struct comm *c = comm;
    c->launching = 2;
    return NCCL_ABI_IN_PROGRESS;
}

int ncclCommAbort(void *comm)
{
    struct comm *c = comm;
    comm_close(c);
    c->is_aborted = true;
    if (c->n_queued == 0) /* else the stream has it still */
        free(c);
    return NCCL_ABI_SUCCESS;
}

int ncclCommDestroy(void *comm)
{
    return ncclCommAbort(comm);
}

int ncclGroupStart(void)
{
    group_depth++;
    return NCCL_ABI_SUCCESS;
}

int ncclGroupEnd(void)
{
    return --group_depth > 0 ? NCCL_ABI_SUCCESS : batch_launch();
}

int ncclSend(const void *from, size_t count, int type, int peer, void *comm, void *stream)
{
    void *at;
    memcpy(&at, &from, sizeof at);
    return type != NCCL_ABI_UINT8 ? NCCL_ABI_INVALID_ARGUMENT
                                  : group_add(true, at, count, peer, comm, stream);
}

int ncclRecv(void *to, size_t count, int type, int peer, void *comm, void *stream)
{
    return type != NCCL_ABI_UINT8 ? NCCL_ABI_INVALID_ARGUMENT
                                  : group_add(false, to, count, peer, comm, stream);
}

int ncclAllGather(const void *from, void *to, size_t count, int type, void *comm, void *stream)
{
    struct comm *c = comm;
    int result = ncclGroupStart();
    if ((const uint8_t *)from != (uint8_t *)to + (size_t)c->rank * count)
        result = NCCL_ABI_INVALID_ARGUMENT; /* the product has them in place */
    for (int r = 0; r < c->n_ranks && result == NCCL_ABI_SUCCESS; r++) {
        if (r == c->rank)
            continue;
        result = ncclSend(from, count, type, r, comm, stream);
        if (result == NCCL_ABI_SUCCESS)
            result = ncclRecv((uint8_t *)to + (size_t)r * count, count, type, r, comm, stream);
    }
    const int ended = ncclGroupEnd();
    return result == NCCL_ABI_SUCCESS ? ended : result;
}
