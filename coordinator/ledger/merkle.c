#include "coordinator/ledger/merkle.h"

#include "common/check.h"

#include <string.h>

void merkle_leaf_hash(const void *record, size_t size, uint8_t ret_hash[SHA256_BYTES])
{
    static const uint8_t prefix = 0x00;
    struct sha256_stream *s = sha256_new();
    sha256_update(s, &prefix, 1);
    sha256_update(s, record, size);
    sha256_finish(s, ret_hash);
}

void merkle_node_hash(const uint8_t left[SHA256_BYTES], const uint8_t right[SHA256_BYTES],
                      uint8_t ret_hash[SHA256_BYTES])
{
    uint8_t bytes[1 + 2 * SHA256_BYTES];
    bytes[0] = 0x01;
    memcpy(bytes + 1, left, SHA256_BYTES);
    memcpy(bytes + 1 + SHA256_BYTES, right, SHA256_BYTES);
    sha256(bytes, sizeof bytes, ret_hash);
}

/* ---- frontier ---- */

void merkle_frontier_init(struct merkle_frontier *f)
{
    *f = (struct merkle_frontier){0};
}

enum err merkle_frontier_append(struct merkle_frontier *f, const uint8_t leaf[SHA256_BYTES],
                                merkle_emit_fn *emit, void *arg, struct errbuf *eb)
{
    uint8_t hash[SHA256_BYTES];
    unsigned level = 0;

    CHECK(f->size < UINT64_MAX >> 1);
    memcpy(hash, leaf, sizeof hash);
    for (uint64_t index = f->size; (index & 1) != 0; index >>= 1) {
        merkle_node_hash(f->hash[level], hash, hash);
        level++;
        enum err e = emit != NULL ? emit(arg, level, index >> 1, hash, eb) : ERR_OK;
        if (e != ERR_OK)
            return e;
    }
    memcpy(f->hash[level], hash, sizeof hash);
    f->size++;
    return ERR_OK;
}

void merkle_frontier_root(const struct merkle_frontier *f, uint8_t ret_root[SHA256_BYTES])
{
    bool any = false;
    uint8_t hash[SHA256_BYTES];

    for (unsigned level = 0; level < MERKLE_LEVELS; level++) {
        if ((f->size >> level & 1) == 0)
            continue;
        if (any)
            merkle_node_hash(f->hash[level], hash, hash);
        else
            memcpy(hash, f->hash[level], sizeof hash);
        any = true;
    }
    if (!any)
        sha256("", 0, hash);
    memcpy(ret_root, hash, sizeof hash);
}

enum err merkle_frontier_load(struct merkle_frontier *ret_f, uint64_t size, merkle_node_fn *node,
                              void *arg, struct errbuf *eb)
{
    struct merkle_frontier f;
    merkle_frontier_init(&f);
    f.size = size;
    for (unsigned level = 0; level < MERKLE_LEVELS; level++) {
        if ((size >> level & 1) == 0)
            continue;
        /* The subtree of this level lies left of all lower ones: its index is even. */
        enum err e = node(arg, level, (size >> level) - 1, f.hash[level], eb);
        if (e != ERR_OK)
            return e;
    }
    *ret_f = f;
    return ERR_OK;
}
