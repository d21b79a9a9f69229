/*
 * merkle.h - the tree of RFC 6962 and its roots, over whoever can read a node.
 *
 * A node is the hash of a full subtree: (level, index) covers the leaves index << level and the
 * 2^level - 1 behind it; level 0 is the leaf hash. Any root follows from such nodes.
 *
 * Source: RFC 6962 section 2.1.
 * Thread: any; a frontier has one owner.
 */
#ifndef CLOISTER_COORDINATOR_LEDGER_MERKLE_H
#define CLOISTER_COORDINATOR_LEDGER_MERKLE_H

#include "common/crypto.h"
#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MERKLE_LEVELS 64

/* SHA-256(0x00 || record) and SHA-256(0x01 || left || right). */
void merkle_leaf_hash(const void *record, size_t size, uint8_t ret_hash[SHA256_BYTES]);
void merkle_node_hash(const uint8_t left[SHA256_BYTES], const uint8_t right[SHA256_BYTES],
                      uint8_t ret_hash[SHA256_BYTES]);

/* The full subtrees that a tree of `size` leaves is made of, left to right from the highest level:
 * hash[level] counts where bit `level` of size is set. */
struct merkle_frontier {
    uint64_t size;
    uint8_t hash[MERKLE_LEVELS][SHA256_BYTES];
};

typedef enum err merkle_node_fn(void *arg, unsigned level, uint64_t index,
                                uint8_t ret_hash[SHA256_BYTES], struct errbuf *eb);
/* Gets every full subtree of level 1 and above that an append completes. */
typedef enum err merkle_emit_fn(void *arg, unsigned level, uint64_t index,
                                const uint8_t hash[SHA256_BYTES], struct errbuf *eb);

void merkle_frontier_init(struct merkle_frontier *f);
/* `emit` may be NULL. On an error of emit the frontier is as before. */
enum err merkle_frontier_append(struct merkle_frontier *f, const uint8_t leaf[SHA256_BYTES],
                                merkle_emit_fn *emit, void *arg, struct errbuf *eb);
/* Of the empty tree: SHA-256 of nothing. */
void merkle_frontier_root(const struct merkle_frontier *f, uint8_t ret_root[SHA256_BYTES]);
enum err merkle_frontier_load(struct merkle_frontier *ret_f, uint64_t size, merkle_node_fn *node,
                              void *arg, struct errbuf *eb);

#endif
