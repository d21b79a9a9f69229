/*
 * tree.h - an ordered set of things that carry their own node (a treap with counted subtrees).
 *
 * Everything the core iterates over is in one of these, so that order never depends on addresses
 * or hash tables. Insert, remove, neighbours and rank take O(log n) expected. A node's priority is
 * drawn from the tree's own sequence: the same operations give the same shape.
 *
 * Source: Seidel and Aragon, "Randomized Search Trees", 1996.
 *
 * Ownership: nodes belong to the things they are in. Thread: one owner.
 */
#ifndef CLOISTER_COORDINATOR_CORE_TREE_H
#define CLOISTER_COORDINATOR_CORE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tree_node {
    struct tree_node *left, *right;
    uint32_t count; /* of this subtree; 0: not in a tree */
    uint32_t priority;
};

/* < 0, 0, > 0; 0 only for a node and itself (or a probe that stands for it). */
typedef int tree_compare_fn(const struct tree_node *a, const struct tree_node *b);

/* Works out what a thing says of its whole subtree, from itself and its children alone. */
typedef void tree_refresh_fn(struct tree_node *n);

struct tree {
    struct tree_node *root;
    struct tree_node *last; /* what comes in order is put behind it without a search */
    tree_compare_fn *compare;
    tree_refresh_fn *refresh; /* NULL: nothing but the count is kept of a subtree */
    uint32_t draw;
};

/* The thing that holds `node` as its `member`. NULL gives NULL. */
#define tree_entry(node, type, member)                                                             \
    ((node) == NULL ? NULL : (type *)(void *)((char *)(node)-offsetof(type, member)))

void tree_init(struct tree *t, tree_compare_fn *compare);
/* Before the first insert. Whoever chooses keys and knows what is drawn can make the tree a list;
 * for keys that come from outside the sequence begins where nobody outside knows. */
void tree_seed(struct tree *t, uint32_t seed);
uint32_t tree_count(const struct tree *t);
static inline bool tree_holds(const struct tree_node *n)
{
    return n->count > 0;
}

void tree_insert(struct tree *t, struct tree_node *n); /* n must not be in a tree */
void tree_remove(struct tree *t, struct tree_node *n); /* n must be in this tree */

struct tree_node *tree_first(const struct tree *t); /* NULL where empty */
struct tree_node *tree_last(const struct tree *t);
/* The lowest node > probe (or >= it), the highest < probe; NULL where there is none. */
struct tree_node *tree_above(const struct tree *t, const struct tree_node *probe);
struct tree_node *tree_at_least(const struct tree *t, const struct tree_node *probe);
struct tree_node *tree_below(const struct tree *t, const struct tree_node *probe);
struct tree_node *tree_find(const struct tree *t, const struct tree_node *probe);
/* A way through the tree from one node to the next, a few steps each, where tree_above walks down
 * from the root again. Good until something is inserted or removed. */
#define TREE_CURSOR_DEPTH 64u
struct tree_cursor {
    const struct tree *tree;
    bool down; /* from high to low */
    bool cut;  /* the tree is deeper than `path`: what is missing is searched for */
    uint32_t depth;
    struct tree_node *path[TREE_CURSOR_DEPTH]; /* where we are, below what comes behind it */
};

/* Begins at `start`, a node of the tree; NULL gives a cursor at its end. */
void tree_cursor_begin(struct tree_cursor *at, const struct tree *t, struct tree_node *start,
                       bool down);
struct tree_node *tree_cursor_node(const struct tree_cursor *at); /* NULL at the end */
void tree_cursor_next(struct tree_cursor *at);                    /* not at the end */

/* How many nodes come before it. */
uint32_t tree_rank(const struct tree *t, const struct tree_node *probe);

#endif
