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

/* ---- proofs ---- */

struct prover {
    merkle_node_fn *node;
    void *arg;
    struct merkle_proof *proof;
    struct errbuf *eb;
};

/* Hash of the leaves [start, start + count): `start` is a multiple of the power of two that covers
 * `count`, as every part of a tree's recursion is. */
static enum err range_hash(struct prover *p, uint64_t start, uint64_t count,
                           uint8_t ret_hash[SHA256_BYTES])
{
    bool any = false;
    for (unsigned level = 0; level < MERKLE_LEVELS; level++) {
        uint8_t hash[SHA256_BYTES];
        if ((count >> level & 1) == 0)
            continue;
        uint64_t end = start + (count >> level << level);
        enum err e = p->node(p->arg, level, (end >> level) - 1, hash, p->eb);
        if (e != ERR_OK)
            return e;
        if (any)
            merkle_node_hash(hash, ret_hash, ret_hash);
        else
            memcpy(ret_hash, hash, sizeof hash);
        any = true;
    }
    CHECK(any);
    return ERR_OK;
}

static enum err proof_add(struct prover *p, uint64_t start, uint64_t count)
{
    CHECK(p->proof->n < MERKLE_PROOF_NODES);
    enum err e = range_hash(p, start, count, p->proof->hash[p->proof->n]);
    p->proof->n += e == ERR_OK;
    return e;
}

/* The largest power of two smaller than `n`, which is at least 2. */
static uint64_t split_of(uint64_t n)
{
    return (uint64_t)1 << (63 - __builtin_clzll(n - 1));
}

static void proof_reverse(struct merkle_proof *proof)
{
    for (size_t i = 0; i < proof->n / 2; i++) {
        uint8_t hash[SHA256_BYTES];
        size_t k = proof->n - 1 - i;
        memcpy(hash, proof->hash[i], sizeof hash);
        memcpy(proof->hash[i], proof->hash[k], sizeof hash);
        memcpy(proof->hash[k], hash, sizeof hash);
    }
}

enum err merkle_inclusion_prove(uint64_t index, uint64_t size, merkle_node_fn *node, void *arg,
                                struct merkle_proof *ret_proof, struct errbuf *eb)
{
    struct merkle_proof proof = {0};
    struct prover p = {node, arg, &proof, eb};
    uint64_t start = 0, count = size;

    if (index >= size)
        return err_set(eb, ERR_INVALID, "inclusion proof: leaf %llu of a tree of %llu",
                       (unsigned long long)index, (unsigned long long)size);
    while (count > 1) {
        uint64_t left = split_of(count);
        bool in_left = index - start < left;
        enum err e =
            in_left ? proof_add(&p, start + left, count - left) : proof_add(&p, start, left);
        if (e != ERR_OK)
            return e;
        start += in_left ? 0 : left;
        count = in_left ? left : count - left;
    }
    proof_reverse(&proof); /* RFC 6962 lists them from the leaf upward */
    *ret_proof = proof;
    return ERR_OK;
}

/* RFC 9162 section 2.1.3.2. */
bool merkle_inclusion_verify(const uint8_t leaf[SHA256_BYTES], uint64_t index, uint64_t size,
                             const struct merkle_proof *proof, const uint8_t root[SHA256_BYTES])
{
    uint8_t hash[SHA256_BYTES];
    uint64_t node = index, last = size - 1;

    if (index >= size)
        return false;
    memcpy(hash, leaf, sizeof hash);
    for (size_t i = 0; i < proof->n; i++) {
        if (last == 0)
            return false;
        if ((node & 1) != 0 || node == last) {
            merkle_node_hash(proof->hash[i], hash, hash);
            while ((node & 1) == 0 && node != 0) {
                node >>= 1;
                last >>= 1;
            }
        } else {
            merkle_node_hash(hash, proof->hash[i], hash);
        }
        node >>= 1;
        last >>= 1;
    }
    return last == 0 && memcmp(hash, root, sizeof hash) == 0;
}

enum err merkle_consistency_prove(uint64_t old_size, uint64_t new_size, merkle_node_fn *node,
                                  void *arg, struct merkle_proof *ret_proof, struct errbuf *eb)
{
    struct merkle_proof proof = {0};
    struct prover p = {node, arg, &proof, eb};
    uint64_t start = 0, count = new_size, old = old_size;
    bool whole = true; /* the old tree's part in question is the old tree itself */

    if (old_size == 0 || old_size > new_size)
        return err_set(eb, ERR_INVALID, "consistency proof: from %llu leaves to %llu",
                       (unsigned long long)old_size, (unsigned long long)new_size);
    while (old < count) {
        uint64_t left = split_of(count);
        enum err e;
        if (old <= left) {
            e = proof_add(&p, start + left, count - left);
            count = left;
        } else {
            e = proof_add(&p, start, left);
            whole = false;
            start += left;
            old -= left;
            count -= left;
        }
        if (e != ERR_OK)
            return e;
    }
    if (!whole) {
        enum err e = proof_add(&p, start, count);
        if (e != ERR_OK)
            return e;
    }
    proof_reverse(&proof);
    *ret_proof = proof;
    return ERR_OK;
}

/* RFC 9162 section 2.1.4.2. */
bool merkle_consistency_verify(uint64_t old_size, uint64_t new_size,
                               const uint8_t old_root[SHA256_BYTES],
                               const uint8_t new_root[SHA256_BYTES],
                               const struct merkle_proof *proof)
{
    uint8_t old_hash[SHA256_BYTES], new_hash[SHA256_BYTES];
    uint64_t node = old_size - 1, last = new_size - 1;
    size_t next = 0;

    if (old_size == 0 || old_size > new_size)
        return false;
    if (old_size == new_size)
        return proof->n == 0 && memcmp(old_root, new_root, SHA256_BYTES) == 0;
    /* A power of two: the old root is a node of the new tree and not sent. */
    bool power = (old_size & (old_size - 1)) == 0;
    if (!power && proof->n == 0)
        return false;
    const uint8_t *seed = power ? old_root : proof->hash[next++];
    memcpy(old_hash, seed, SHA256_BYTES);
    memcpy(new_hash, seed, SHA256_BYTES);
    while ((node & 1) != 0) {
        node >>= 1;
        last >>= 1;
    }
    for (; next < proof->n; next++) {
        if (last == 0)
            return false;
        if ((node & 1) != 0 || node == last) {
            merkle_node_hash(proof->hash[next], old_hash, old_hash);
            merkle_node_hash(proof->hash[next], new_hash, new_hash);
            while ((node & 1) == 0 && node != 0) {
                node >>= 1;
                last >>= 1;
            }
        } else {
            merkle_node_hash(new_hash, proof->hash[next], new_hash);
        }
        node >>= 1;
        last >>= 1;
    }
    return last == 0 && memcmp(old_hash, old_root, SHA256_BYTES) == 0 &&
           memcmp(new_hash, new_root, SHA256_BYTES) == 0;
}
