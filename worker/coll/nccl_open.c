/*
 * A gang of GPUs is made and ended. When its control stands, every rank says over it what it has:
 * a library, of which version, which GPU, how much room. All look at all of that and come to the
 * same, so that where one lacks something everybody reports that one. To the others it is a rank
 * that does not come, ERR_UNAVAILABLE: nothing is wrong with them.
 */
#include "worker/coll/nccl.h"

#include "common/check.h"
#include "common/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How long NCCL may take to send what it still has, when a gang that is whole is closed. */
#define NCCL_FAREWELL_NS 200000000u

/* ---- what a rank has ---- */

#define NCCL_WHY_BYTES  200u
#define NCCL_CARD_BYTES (4u + 4u + 8u + DEVICE_ID_BYTES + NCCL_WHY_BYTES)

_Static_assert(NCCL_CARD_BYTES <= COLL_CONTROL_PART_BYTES, "the control carries it");

struct nccl_card {
    enum err missing; /* to the others; ERR_OK: nothing */
    uint32_t version;
    uint64_t bytes_max;
    uint8_t device[DEVICE_ID_BYTES];
    char why[NCCL_WHY_BYTES];
};

static void nccl_card_encode(const struct nccl_card *card, uint8_t *to)
{
    coll_put_u32(to, (uint32_t)card->missing);
    coll_put_u32(to + 4, card->version);
    coll_put_u64(to + 8, card->bytes_max);
    memcpy(to + 16, card->device, DEVICE_ID_BYTES);
    memcpy(to + 16 + DEVICE_ID_BYTES, card->why, NCCL_WHY_BYTES);
}

static void nccl_card_decode(const uint8_t *from, struct nccl_card *ret_card)
{
    const uint32_t missing = coll_get_u32(from);
    ret_card->missing = missing == ERR_OK ? ERR_OK : coll_code(missing);
    ret_card->version = coll_get_u32(from + 4);
    ret_card->bytes_max = coll_get_u64(from + 8);
    memcpy(ret_card->device, from + 16, DEVICE_ID_BYTES);
    memcpy(ret_card->why, from + 16 + DEVICE_ID_BYTES, NCCL_WHY_BYTES);
    ret_card->why[NCCL_WHY_BYTES - 1] = '\0';
}

/* Rank r beside those before it. */
static enum err nccl_card_check(const struct coll *c, const struct nccl_card cards[], uint32_t r,
                                struct errbuf *eb)
{
    char a[NCCL_VERSION_BYTES], b[NCCL_VERSION_BYTES];
    if (cards[r].missing != ERR_OK)
        return err_set(eb, cards[r].missing, "rank %u: %s", coll_name(c, r), cards[r].why);
    if (cards[r].version != cards[0].version)
        return err_set(eb, ERR_CONFLICT, "rank %u has NCCL %s, rank %u has %s", coll_name(c, r),
                       nccl_version_text((int)cards[r].version, a), coll_name(c, 0),
                       nccl_version_text((int)cards[0].version, b));
    if (cards[r].bytes_max != cards[0].bytes_max)
        return err_set(eb, ERR_CONFLICT,
                       "rank %u makes room for operations of %llu bytes, rank %u of %llu",
                       coll_name(c, r), (unsigned long long)cards[r].bytes_max, coll_name(c, 0),
                       (unsigned long long)cards[0].bytes_max);
    for (uint32_t q = 0; q < r; q++) {
        if (memcmp(cards[q].device, cards[r].device, DEVICE_ID_BYTES) == 0)
            return err_set(eb, ERR_CONFLICT,
                           "ranks %u and %u are on one GPU: NCCL wants one for each, shm does not",
                           coll_name(c, q), coll_name(c, r));
    }
    return ERR_OK;
}

static enum err nccl_cards(struct nccl *n, const struct nccl_card *mine, uint64_t deadline_ns,
                           struct errbuf *eb)
{
    struct coll *control = n->base.control;
    struct nccl_card cards[COLL_RANKS_MAX];
    size_t bytes[COLL_RANKS_MAX];
    const void *parts[COLL_RANKS_MAX];
    void *to;
    for (uint32_t r = 0; r < control->n_ranks; r++)
        bytes[r] = NCCL_CARD_BYTES;
    enum err e = coll_all_gather_begin(control, bytes, deadline_ns, &to, eb);
    if (e != ERR_OK)
        return e;
    nccl_card_encode(mine, to);
    e = coll_end(control, deadline_ns, parts, eb);
    for (uint32_t r = 0; r < control->n_ranks && e == ERR_OK; r++)
        nccl_card_decode(parts[r], &cards[r]);
    for (uint32_t r = 0; r < control->n_ranks && e == ERR_OK; r++)
        e = nccl_card_check(&n->base, cards, r, eb);
    return e;
}

/* ---- the communicator ---- */

static enum err nccl_id(struct nccl *n, uint64_t deadline_ns, struct nccl_abi_id *ret_id,
                        struct errbuf *eb)
{
    struct coll *control = n->base.control;
    const void *bytes;
    size_t size;
    if (control->rank == 0) {
        int result = n->lib->abi.ncclGetUniqueId(ret_id);
        if (result != NCCL_ABI_SUCCESS)
            return nccl_said(n, "the gang's address", result, eb);
    }
    enum err e = coll_broadcast(control, 0, ret_id, sizeof *ret_id, deadline_ns, &bytes, &size, eb);
    if (e == ERR_OK && size != sizeof *ret_id)
        e = err_set(eb, ERR_INTERNAL, "rank %u sent an address of %zu bytes", coll_name(control, 0),
                    size);
    if (e == ERR_OK)
        memcpy(ret_id, bytes, sizeof *ret_id);
    return e;
}

static enum err nccl_join(struct nccl *n, uint64_t deadline_ns, struct errbuf *eb)
{
    struct nccl_abi_id id = {{0}};
    /* It returns at once, and so does all that is asked of the communicator later: a wait of NCCL's
     * own would know no deadline. */
    struct nccl_abi_config config = {
        .size = sizeof config,
        .magic = NCCL_ABI_CONFIG_MAGIC,
        .version = NCCL_ABI_VERSION_MIN,
        .blocking = 0,
        .cgaClusterSize = NCCL_ABI_UNDEFINED,
        .minCTAs = NCCL_ABI_UNDEFINED,
        .maxCTAs = NCCL_ABI_UNDEFINED,
        .splitShare = NCCL_ABI_UNDEFINED,
    };
    enum err e = nccl_id(n, deadline_ns, &id, eb);
    if (e != ERR_OK)
        return e;
    int result = n->lib->abi.ncclCommInitRankConfig(&n->comm, (int)n->base.n_ranks, id,
                                                    (int)n->base.rank, &config);
    if (result != NCCL_ABI_SUCCESS && result != NCCL_ABI_IN_PROGRESS)
        return nccl_said(n, "meeting", result, eb);
    return nccl_settle(n, "meeting", deadline_ns, eb);
}

static enum err nccl_memory(struct nccl *n, struct errbuf *eb)
{
    const size_t half = (size_t)coll_memory(COLL_TRANSPORT_NCCL, n->base.bytes_max) / 2;
    enum err e = ERR_OK;
    for (int i = 0; i < 2 && e == ERR_OK; i++) {
        void *memory = NULL;
        e = n->device->alloc(n->device->ctx, half, &memory, eb);
        n->base.half[i] = memory;
    }
    return e;
}

enum err coll_nccl_available(struct errbuf *eb)
{
    const struct nccl_library *lib;
    return nccl_library_open(&lib, eb);
}

enum err coll_nccl_version(char ret_version[COLL_NCCL_VERSION_BYTES], struct errbuf *eb)
{
    const struct nccl_library *lib;
    enum err e = nccl_library_open(&lib, eb);
    _Static_assert(COLL_NCCL_VERSION_BYTES == NCCL_VERSION_BYTES, "one text");
    if (e == ERR_OK)
        (void)nccl_version_text(lib->version, ret_version);
    return e;
}

enum err coll_nccl_stand(struct coll *control, const struct device_stream *device, size_t bytes_max,
                         uint64_t deadline_ns, struct coll **ret_coll, struct errbuf *eb)
{
    struct nccl_card mine = {.bytes_max = bytes_max};
    struct errbuf why = {{0}};
    struct nccl *n = calloc(1, sizeof *n);
    if (n == NULL) {
        coll_close(control);
        return err_set(eb, ERR_NO_MEMORY, "no memory for a gang");
    }
    n->device = device;
    n->base = (struct coll){.ops = &nccl_ops,
                            .transport = COLL_TRANSPORT_NCCL,
                            .control = control,
                            .rank = control->rank,
                            .n_ranks = control->n_ranks,
                            .bytes_max = bytes_max,
                            .watch = control->watch,
                            .op = {.seq = COLL_SEQ_FIRST}};
    device->enter(device->ctx);
    enum err lacks = nccl_library_open(&n->lib, &why);
    if (lacks == ERR_OK && bytes_max > COLL_BYTES_MAX) /* a part's; a gang's was looked at */
        mine.missing =
            err_set(&why, ERR_TOO_LARGE, "operations of %zu bytes; at most %zu are possible",
                    bytes_max, COLL_BYTES_MAX);
    else if (lacks == ERR_OK)
        lacks = nccl_memory(n, &why);
    if (lacks != ERR_OK)
        mine.missing = ERR_UNAVAILABLE;
    if (n->lib != NULL)
        mine.version = (uint32_t)n->lib->version;
    memcpy(mine.device, device->id, sizeof mine.device);
    (void)snprintf(mine.why, sizeof mine.why, "%s", why.text);
    enum err e = nccl_cards(n, &mine, deadline_ns, eb);
    if (e == ERR_OK && control->n_ranks > 1)
        e = nccl_join(n, deadline_ns, eb);
    if (e != ERR_OK) {
        e = coll_break(control, e, eb);
        if (lacks != ERR_OK) /* its own trouble, whatever became of the others */
            e = err_set(eb, lacks, "rank %u: %s", coll_name(&n->base, n->base.rank), mine.why);
        nccl_close(&n->base);
        return e;
    }
    *ret_coll = &n->base;
    return ERR_OK;
}

/* A part of its own of the control, and on it what moves bytes. */
enum err coll_nccl_split(struct coll *c, uint32_t color, size_t bytes_max, uint64_t deadline_ns,
                         struct coll **ret_coll, struct errbuf *eb)
{
    struct coll *control = NULL, *part = NULL;
    enum err e = coll_split(c->control, color, c->control->bytes_max, deadline_ns, &control, eb);
    if (e == ERR_OK && control != NULL)
        e = coll_nccl_stand(control, ((struct nccl *)c)->device, bytes_max, deadline_ns, &part, eb);
    /* The others wait for this rank to have what it asked for. */
    if (e == ERR_OK)
        e = coll_barrier(c->control, deadline_ns, eb);
    if (e != ERR_OK) {
        coll_close(part);
        return e;
    }
    *ret_coll = part;
    return ERR_OK;
}

/* ---- closing ---- */

/* What this rank handed over may be on its way still; NCCL sends it before the communicator goes.
 */
static void nccl_leave(struct nccl *n)
{
    const struct nccl_abi *abi = &n->lib->abi;
    const uint64_t until = clock_mono_ns() + NCCL_FAREWELL_NS;
    int state = abi->ncclCommFinalize(n->comm);
    while (state == NCCL_ABI_IN_PROGRESS && clock_mono_ns() < until) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if (abi->ncclCommGetAsyncError(n->comm, &state) != NCCL_ABI_SUCCESS)
            state = NCCL_ABI_INTERNAL_ERROR;
    }
    if (state == NCCL_ABI_SUCCESS) {
        (void)abi->ncclCommDestroy(n->comm);
        n->comm = NULL;
    }
}

void nccl_close(struct coll *c)
{
    struct nccl *n = (struct nccl *)c;
    n->device->enter(n->device->ctx);
    if (n->comm != NULL && c->broken == ERR_OK && c->control->broken == ERR_OK)
        nccl_leave(n);
    nccl_give_up(n);
    n->device->release(n->device->ctx, c->half[0]);
    n->device->release(n->device->ctx, c->half[1]);
    coll_close(c->control);
    free(n->later);
    free(n->pieces);
    free(n);
}
