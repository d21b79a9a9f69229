/*
 * Colls of some of a gang's ranks each. All of it goes through the gang itself: who is of which
 * colour, the cards of ranks that meet over a network, and at the end whether everybody has what
 * was asked for. What is split is opened like a gang of its own, under a group id that only ranks
 * of the gang can know.
 */
#include "common/check.h"
#include "common/crypto.h"
#include "worker/coll/coll_ops.h"

#include <stdlib.h>
#include <string.h>

#define SPLIT_WISH_BYTES 32u /* colour, bytes_max, host */
#define SPLIT_CARD_MAX   65536u

struct split {
    struct coll *root;
    uint32_t color;
    uint32_t n_ranks; /* of the colour */
    uint32_t rank;    /* in it */
    enum coll_transport transport;
    struct coll_watch watch;

    bool has_exchanged;
    uint8_t *cards;
};

/* `bytes` of each rank to all. */
static enum err split_gather(struct coll *root, const void *mine, const size_t bytes[],
                             uint64_t deadline_ns, const void *ret_parts[], struct errbuf *eb)
{
    void *to;
    enum err e = coll_all_gather_begin(root, bytes, deadline_ns, &to, eb);
    if (e != ERR_OK)
        return e;
    if (bytes[root->rank] > 0)
        memcpy(to, mine, bytes[root->rank]);
    return coll_end(root, deadline_ns, ret_parts, eb);
}

/* ---- who is of which colour ---- */

/* Ranks of one colour have one size; every rank looks at all of them and comes to the same. */
static enum err split_check(const struct coll *root, const uint32_t color[], const uint64_t size[],
                            struct errbuf *eb)
{
    for (uint32_t r = 0; r < root->n_ranks; r++) {
        for (uint32_t q = 0; q < r && color[r] != COLL_COLOR_NONE; q++) {
            if (color[q] == color[r] && size[q] != size[r])
                return err_set(eb, ERR_CONFLICT,
                               "rank %u makes room for operations of %llu bytes, rank %u of %llu",
                               r, (unsigned long long)size[r], q, (unsigned long long)size[q]);
        }
    }
    return ERR_OK;
}

/* Over the gang's, or, where its ranks are all of one host, over shm. */
static enum coll_transport split_transport(const struct split *s, const void *const wish[])
{
    static const uint8_t nowhere[COLL_HOST_BYTES];
    const uint8_t *mine = s->root->opened.host;
    bool is_here =
        s->root->transport == COLL_TRANSPORT_UCX && memcmp(mine, nowhere, sizeof nowhere) != 0;
    for (uint32_t k = 0; k < s->n_ranks; k++)
        is_here = is_here &&
                  memcmp((const uint8_t *)wish[s->watch.name[k]] + 16, mine, COLL_HOST_BYTES) == 0;
    return is_here ? COLL_TRANSPORT_SHM : s->root->transport;
}

static enum err split_agree(struct split *s, size_t bytes_max, uint64_t deadline_ns,
                            struct errbuf *eb)
{
    struct coll *root = s->root;
    uint8_t wish[SPLIT_WISH_BYTES] = {0};
    size_t bytes[COLL_RANKS_MAX];
    const void *parts[COLL_RANKS_MAX];
    uint32_t color[COLL_RANKS_MAX];
    uint64_t size[COLL_RANKS_MAX];
    for (uint32_t r = 0; r < root->n_ranks; r++)
        bytes[r] = sizeof wish;
    coll_put_u32(wish, s->color);
    coll_put_u64(wish + 8, bytes_max);
    memcpy(wish + 16, root->opened.host, COLL_HOST_BYTES);
    enum err e = split_gather(root, wish, bytes, deadline_ns, parts, eb);
    if (e != ERR_OK)
        return e;
    for (uint32_t r = 0; r < root->n_ranks; r++) {
        color[r] = coll_get_u32(parts[r]);
        size[r] = coll_get_u64((const uint8_t *)parts[r] + 8);
        if (r == root->rank)
            s->rank = s->n_ranks;
        if (color[r] == s->color && s->color != COLL_COLOR_NONE)
            s->watch.name[s->n_ranks++] = r;
    }
    s->transport = split_transport(s, parts);
    return split_check(root, color, size, eb);
}

/* ---- cards ---- */

/* All that every rank has, in as many rounds as the gang's bytes_max takes. Ranks without a card
 * come along. */
static enum err split_cards(struct split *s, const void *mine, const size_t size[],
                            uint64_t deadline_ns, uint8_t *const ret_cards[], struct errbuf *eb)
{
    struct coll *root = s->root;
    const size_t chunk = root->bytes_max / root->n_ranks / COLL_ALIGN * COLL_ALIGN;
    size_t most = 0;
    enum err e = ERR_OK;
    for (uint32_t r = 0; r < root->n_ranks; r++)
        most = size[r] > most ? size[r] : most;
    for (size_t at = 0; at < most && e == ERR_OK; at += chunk) {
        size_t bytes[COLL_RANKS_MAX];
        const void *parts[COLL_RANKS_MAX];
        for (uint32_t r = 0; r < root->n_ranks; r++) {
            const size_t left = size[r] > at ? size[r] - at : 0;
            bytes[r] = left < chunk ? left : chunk;
        }
        const uint8_t *from = mine == NULL ? NULL : (const uint8_t *)mine + at;
        e = split_gather(root, from, bytes, deadline_ns, parts, eb);
        for (uint32_t k = 0; k < s->n_ranks && e == ERR_OK; k++) {
            const uint32_t r = s->watch.name[k];
            memcpy(ret_cards[k] + at, parts[r], bytes[r]);
        }
    }
    return e;
}

/* The rendezvous of what is split; also the part in it of a rank that needs none. */
static enum err split_exchange(void *ctx, const void *mine, size_t mine_bytes, uint64_t deadline_ns,
                               const atomic_bool *stop, struct coll_bytes ret[], struct errbuf *eb)
{
    struct split *s = ctx;
    struct coll *root = s->root;
    uint8_t word[8], *cards[COLL_RANKS_MAX];
    size_t size[COLL_RANKS_MAX], bytes[COLL_RANKS_MAX], all = 0;
    const void *parts[COLL_RANKS_MAX];
    (void)stop; /* the gang looks at it */
    for (uint32_t r = 0; r < root->n_ranks; r++)
        bytes[r] = sizeof word;
    coll_put_u64(word, mine_bytes);
    enum err e = split_gather(root, word, bytes, deadline_ns, parts, eb);
    if (e != ERR_OK)
        return e;
    s->has_exchanged = true;
    for (uint32_t r = 0; r < root->n_ranks; r++) {
        const uint64_t said = coll_get_u64(parts[r]);
        if (said > SPLIT_CARD_MAX)
            return err_set(eb, ERR_INTERNAL, "rank %u has a card of %llu bytes", r,
                           (unsigned long long)said);
        size[r] = (size_t)said;
    }
    for (uint32_t k = 0; k < s->n_ranks; k++)
        all += size[s->watch.name[k]];
    s->cards = malloc(all + 1);
    if (s->cards == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory to split a gang");
    all = 0;
    for (uint32_t k = 0; k < s->n_ranks; k++) {
        cards[k] = s->cards + all;
        all += size[s->watch.name[k]];
    }
    e = split_cards(s, mine, size, deadline_ns, cards, eb);
    for (uint32_t k = 0; k < s->n_ranks && e == ERR_OK && ret != NULL; k++)
        ret[k] = (struct coll_bytes){cards[k], size[s->watch.name[k]]};
    return e;
}

/* ---- opening ---- */

/* From that of the gang, and which of its parts this is. */
static void split_group(const struct split *s, uint8_t ret_group[COLL_GROUP_BYTES])
{
    uint8_t bytes[COLL_GROUP_BYTES + 8 + COLL_RANKS_MAX] = {0}, digest[SHA256_BYTES];
    memcpy(bytes, s->root->opened.group, COLL_GROUP_BYTES);
    coll_put_u32(bytes + COLL_GROUP_BYTES, s->root->n_splits);
    coll_put_u32(bytes + COLL_GROUP_BYTES + 4, s->color);
    for (uint32_t k = 0; k < s->n_ranks; k++)
        bytes[COLL_GROUP_BYTES + 8 + k] = (uint8_t)s->watch.name[k];
    sha256(bytes, sizeof bytes, digest);
    memcpy(ret_group, digest, COLL_GROUP_BYTES);
}

static enum err split_open(struct split *s, size_t bytes_max, uint64_t deadline_ns,
                           struct coll **ret_coll, struct errbuf *eb)
{
    struct coll_config config = s->root->opened;
    config.transport = s->transport;
    config.rank = s->rank;
    config.n_ranks = s->n_ranks;
    config.bytes_max = bytes_max;
    config.rendezvous = (struct coll_rendezvous){split_exchange, s};
    split_group(s, config.group);
    return coll_open_part(&config, &s->watch, deadline_ns, ret_coll, eb);
}

enum err coll_split(struct coll *c, uint32_t color, size_t bytes_max, uint64_t deadline_ns,
                    struct coll **ret_coll, struct errbuf *eb)
{
    if (c->control != NULL)
        return coll_nccl_split(c, color, bytes_max, deadline_ns, ret_coll, eb);
    struct split s = {.root = c, .color = color, .watch = {.stop = c->watch.stop, .root = c}};
    struct coll *part = NULL;
    struct errbuf why = {{0}};
    CHECK(c->watch.root == NULL && c->bytes_max >= c->n_ranks * COLL_ALIGN);
    c->n_splits++;
    enum err e = split_agree(&s, bytes_max, deadline_ns, &why);
    if (e == ERR_OK && color != COLL_COLOR_NONE)
        e = split_open(&s, bytes_max, deadline_ns, &part, &why);
    if (e == ERR_OK && c->transport == COLL_TRANSPORT_UCX && !s.has_exchanged)
        e = split_exchange(&s, NULL, 0, deadline_ns, c->watch.stop, NULL, &why);
    /* The others wait for this rank to have what it asked for. */
    if (e != ERR_OK)
        e = c->ops->fail(c, e, &why);
    else
        e = coll_barrier(c, deadline_ns, &why);
    free(s.cards);
    if (e != ERR_OK) {
        coll_close(part);
        return err_set(eb, e, "%s", why.text);
    }
    *ret_coll = part;
    return ERR_OK;
}
