/*
 * The store in memory: one persistent treap a table.
 *
 * A transaction that writes copies the nodes on the way to what it changes and leaves all others
 * shared, so a reader keeps the state of its begin for the price of one reference, a commit is a
 * swap of roots and an abort drops them. Priorities are hashes of the keys: the shape of a tree
 * depends on what is in it and on nothing else, and its depth is logarithmic (about 50 at 10^6).
 */
#include "coordinator/store/store_mem.h"

#include "common/check.h"
#include "common/limits.h"
#include "coordinator/store/store_backend.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Key, then seal and value; never changed once made. */
struct item {
    atomic_uint refs;
    uint32_t key_size;
    size_t sealed_size;
    uint8_t bytes[];
};

struct node {
    atomic_uint refs;
    uint64_t owner; /* number of the transaction that made it, and that alone may change it */
    uint64_t priority;
    struct item *item;
    struct node *left, *right;
};

struct tree {
    struct node *root;
    uint64_t count;
    uint64_t bytes;
};

struct store_mem {
    struct store base;
    pthread_mutex_t lock; /* around `trees`, `fault`: held to copy or swap roots */
    struct tree trees[STORE_TABLE_COUNT];
    struct store_mem_fault fault;
    uint64_t writers; /* begun so far; writer lock */
};

struct mem_txn {
    struct store_txn base;
    uint64_t number;
    struct tree trees[STORE_TABLE_COUNT];
};

static struct store_mem *mem_of(struct store *s)
{
    return (struct store_mem *)(void *)s;
}

static struct mem_txn *txn_of(struct store_txn *txn)
{
    return (struct mem_txn *)(void *)txn;
}

static enum err no_memory(struct errbuf *eb)
{
    return err_set(eb, ERR_NO_MEMORY, "store in memory: out of memory");
}

/* ---- nodes ---- */

static struct item *item_ref(struct item *item)
{
    atomic_fetch_add_explicit(&item->refs, 1, memory_order_relaxed);
    return item;
}

static void item_unref(struct item *item)
{
    if (atomic_fetch_sub_explicit(&item->refs, 1, memory_order_acq_rel) == 1)
        free(item);
}

static struct node *node_ref(struct node *node)
{
    if (node != NULL)
        atomic_fetch_add_explicit(&node->refs, 1, memory_order_relaxed);
    return node;
}

static void node_unref(struct node *node)
{
    while (node != NULL && atomic_fetch_sub_explicit(&node->refs, 1, memory_order_acq_rel) == 1) {
        struct node *right = node->right;
        node_unref(node->left);
        item_unref(node->item);
        free(node);
        node = right;
    }
}

static struct store_value item_key(const struct item *item)
{
    return (struct store_value){item->bytes, item->key_size};
}

static struct store_value item_sealed(const struct item *item)
{
    return (struct store_value){item->bytes + item->key_size, item->sealed_size};
}

static int key_compare(struct store_value a, struct store_value b)
{
    int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

/* Makes *slot a node that this transaction may change; false, and *slot as it was, without memory.
 */
static bool node_own(struct node **slot, uint64_t number)
{
    struct node *node = *slot;
    if (node->owner == number)
        return true;
    struct node *copy = malloc(sizeof *copy);
    if (copy == NULL)
        return false;
    atomic_init(&copy->refs, 1);
    copy->owner = number;
    copy->priority = node->priority;
    copy->item = item_ref(node->item);
    copy->left = node_ref(node->left);
    copy->right = node_ref(node->right);
    node_unref(node);
    *slot = copy;
    return true;
}

static void rotate_right(struct node **slot)
{
    struct node *node = *slot, *left = node->left;
    node->left = left->right;
    left->right = node;
    *slot = left;
}

static void rotate_left(struct node **slot)
{
    struct node *node = *slot, *right = node->right;
    node->right = right->left;
    right->left = node;
    *slot = right;
}

/* Takes over the caller's reference to `item` unless it returns false; the tree is whole then too,
 * since nothing above the failed copy was changed but its owner. */
static bool node_put(struct node **slot, struct item *item, uint64_t priority, uint64_t number)
{
    struct node *node = *slot;
    if (node == NULL) {
        node = malloc(sizeof *node);
        if (node == NULL)
            return false;
        atomic_init(&node->refs, 1);
        node->owner = number;
        node->priority = priority;
        node->item = item;
        node->left = node->right = NULL;
        *slot = node;
        return true;
    }
    if (!node_own(slot, number))
        return false;
    node = *slot;
    int order = key_compare(item_key(item), item_key(node->item));
    if (order == 0) {
        item_unref(node->item);
        node->item = item;
    } else if (order < 0) {
        if (!node_put(&node->left, item, priority, number))
            return false;
        if (node->left->priority > node->priority)
            rotate_right(slot);
    } else {
        if (!node_put(&node->right, item, priority, number))
            return false;
        if (node->right->priority > node->priority)
            rotate_left(slot);
    }
    return true;
}

/* Moves a node of this transaction down until it has no child to the left, then takes it out. */
static bool node_sink(struct node **slot, uint64_t number)
{
    struct node *node = *slot;
    while (node->left != NULL) {
        if (!node_own(&node->left, number))
            return false;
        if (node->right != NULL && node->right->priority > node->left->priority) {
            if (!node_own(&node->right, number))
                return false;
            rotate_left(slot);
            slot = &(*slot)->left;
        } else {
            rotate_right(slot);
            slot = &(*slot)->right;
        }
    }
    *slot = node->right;
    node->right = NULL;
    node_unref(node);
    return true;
}

/* The key is known to be there. */
static bool node_remove(struct node **slot, struct store_value key, uint64_t number)
{
    for (;;) {
        if (!node_own(slot, number))
            return false;
        int order = key_compare(key, item_key((*slot)->item));
        if (order == 0)
            return node_sink(slot, number);
        slot = order < 0 ? &(*slot)->left : &(*slot)->right;
    }
}

static struct node *node_find(struct node *node, struct store_value key)
{
    while (node != NULL) {
        int order = key_compare(key, item_key(node->item));
        if (order == 0)
            return node;
        node = order < 0 ? node->left : node->right;
    }
    return NULL;
}

static bool node_scan(const struct node *node, struct store_value from,
                      store_visit_sealed_fn *visit, void *arg)
{
    while (node != NULL) {
        bool before = from.size > 0 && key_compare(item_key(node->item), from) < 0;
        if (!before) {
            if (!node_scan(node->left, from, visit, arg))
                return false;
            if (!visit(arg, item_key(node->item), item_sealed(node->item)))
                return false;
        }
        node = node->right;
    }
    return true;
}

/* ---- transactions ---- */

static enum err mem_begin(struct store *base, bool write, struct store_txn **ret_txn,
                          struct errbuf *eb)
{
    struct store_mem *s = mem_of(base);
    struct mem_txn *txn = calloc(1, sizeof *txn);
    if (txn == NULL)
        return no_memory(eb);
    txn->base.store = base;
    txn->base.write = write;
    if (write)
        txn->number = ++s->writers;
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    for (int t = 0; t < STORE_TABLE_COUNT; t++) {
        txn->trees[t] = s->trees[t];
        node_ref(txn->trees[t].root);
    }
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
    *ret_txn = &txn->base;
    return ERR_OK;
}

static void mem_abort(struct store_txn *base)
{
    struct mem_txn *txn = txn_of(base);
    for (int t = 0; t < STORE_TABLE_COUNT; t++)
        node_unref(txn->trees[t].root);
    free(txn);
}

static enum err mem_commit(struct store_txn *base, struct errbuf *eb)
{
    struct mem_txn *txn = txn_of(base);
    struct store_mem *s = mem_of(base->store);
    enum err e = ERR_OK;
    bool applied = base->write;

    CHECK(pthread_mutex_lock(&s->lock) == 0);
    if (base->write && s->fault.nth > 0 && --s->fault.nth == 0) {
        e = s->fault.code;
        applied = e == ERR_IO && s->fault.applied;
    }
    for (int t = 0; applied && t < STORE_TABLE_COUNT; t++) {
        struct tree old = s->trees[t];
        s->trees[t] = txn->trees[t];
        txn->trees[t] = old; /* given up below, outside the lock */
    }
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
    if (e == ERR_IO)
        store_break(base->store);
    mem_abort(base);
    if (e != ERR_OK)
        return err_set(eb, e, "store in memory: commit: failed as it was told to (%s)",
                       err_name(e));
    return ERR_OK;
}

static enum err mem_get(struct store_txn *base, enum store_table table, struct store_value key,
                        struct store_value *ret_sealed, struct errbuf *eb)
{
    (void)eb;
    const struct node *node = node_find(txn_of(base)->trees[table].root, key);
    if (node == NULL)
        return ERR_NOT_FOUND;
    *ret_sealed = item_sealed(node->item);
    return ERR_OK;
}

static enum err mem_last_key(struct store_txn *base, enum store_table table,
                             struct store_value *ret_key, struct errbuf *eb)
{
    (void)eb;
    const struct node *node = txn_of(base)->trees[table].root;
    if (node == NULL)
        return ERR_NOT_FOUND;
    while (node->right != NULL)
        node = node->right;
    *ret_key = item_key(node->item);
    return ERR_OK;
}

static size_t entry_bytes(const struct item *item)
{
    return sizeof(struct node) + sizeof *item + item->key_size + item->sealed_size;
}

static enum err mem_put(struct store_txn *base, enum store_table table, struct store_value key,
                        const uint8_t seal[STORE_SEAL_BYTES], struct store_value value, bool append,
                        struct errbuf *eb)
{
    struct mem_txn *txn = txn_of(base);
    struct tree *tree = &txn->trees[table];
    struct store_value last;

    if (append && mem_last_key(base, table, &last, eb) == ERR_OK && key_compare(key, last) <= 0)
        return err_set(eb, ERR_CONFLICT, "store %s: table %s: append of a key that is not the last",
                       base->store->place, store_table_name(table));
    struct item *item = malloc(sizeof *item + key.size + STORE_SEAL_BYTES + value.size);
    if (item == NULL)
        return no_memory(eb);
    atomic_init(&item->refs, 1);
    item->key_size = (uint32_t)key.size;
    item->sealed_size = STORE_SEAL_BYTES + value.size;
    memcpy(item->bytes, key.data, key.size);
    memcpy(item->bytes + key.size, seal, STORE_SEAL_BYTES);
    if (value.size > 0)
        memcpy(item->bytes + key.size + STORE_SEAL_BYTES, value.data, value.size);
    size_t bytes = entry_bytes(item);
    const struct node *old = node_find(tree->root, key);
    size_t bytes_old = old != NULL ? entry_bytes(old->item) : 0;
    if (!node_put(&tree->root, item, XXH3_64bits(key.data, key.size), txn->number)) {
        item_unref(item);
        return no_memory(eb);
    }
    tree->count += bytes_old == 0;
    tree->bytes += bytes - bytes_old;
    return ERR_OK;
}

static enum err mem_remove(struct store_txn *base, enum store_table table, struct store_value key,
                           struct errbuf *eb)
{
    struct mem_txn *txn = txn_of(base);
    struct tree *tree = &txn->trees[table];
    const struct node *node = node_find(tree->root, key);
    if (node == NULL)
        return ERR_NOT_FOUND;
    size_t bytes = entry_bytes(node->item);
    if (!node_remove(&tree->root, key, txn->number))
        return no_memory(eb);
    tree->count--;
    tree->bytes -= bytes;
    return ERR_OK;
}

static enum err mem_scan(struct store_txn *base, enum store_table table, struct store_value from,
                         store_visit_sealed_fn *visit, void *arg, struct errbuf *eb)
{
    (void)eb;
    (void)node_scan(txn_of(base)->trees[table].root, from, visit, arg);
    return ERR_OK;
}

static enum err mem_count(struct store_txn *base, enum store_table table, uint64_t *ret_count,
                          struct errbuf *eb)
{
    (void)eb;
    *ret_count = txn_of(base)->trees[table].count;
    return ERR_OK;
}

static enum err mem_usage(struct store_txn *base, struct store_stat *ret_stat, struct errbuf *eb)
{
    (void)eb;
    ret_stat->used_bytes = 0;
    ret_stat->map_bytes = 0;
    for (int t = 0; t < STORE_TABLE_COUNT; t++)
        ret_stat->used_bytes += txn_of(base)->trees[t].bytes;
    return ERR_OK;
}

static void mem_close(struct store *base)
{
    struct store_mem *s = mem_of(base);
    for (int t = 0; t < STORE_TABLE_COUNT; t++)
        node_unref(s->trees[t].root);
    CHECK(pthread_mutex_destroy(&s->lock) == 0);
    store_base_fini(base);
    free(s);
}

static const struct store_ops mem_ops = {
    .begin = mem_begin,
    .commit = mem_commit,
    .abort = mem_abort,
    .get = mem_get,
    .put = mem_put,
    .remove = mem_remove,
    .scan = mem_scan,
    .last_key = mem_last_key,
    .count = mem_count,
    .usage = mem_usage,
    .close = mem_close,
};

enum err store_open_mem(struct store **ret_store, struct errbuf *eb)
{
    /* The same in every run, as all of a simulation has to be. */
    static const struct id instance = {{'m', 'e', 'm', 'o', 'r', 'y'}};
    struct store_mem *s = calloc(1, sizeof *s);
    if (s == NULL)
        return no_memory(eb);
    store_base_init(&s->base, &mem_ops, "memory");
    CHECK(pthread_mutex_init(&s->lock, NULL) == 0);
    enum err e = store_base_identify(&s->base, &instance, eb);
    if (e != ERR_OK) {
        mem_close(&s->base);
        return e;
    }
    *ret_store = &s->base;
    return ERR_OK;
}

void store_mem_fault_set(struct store *s, struct store_mem_fault fault)
{
    CHECK(s->ops == &mem_ops);
    CHECK(fault.nth == 0 || fault.code == ERR_NO_SPACE || fault.code == ERR_NO_MEMORY ||
          fault.code == ERR_IO);
    CHECK(pthread_mutex_lock(&mem_of(s)->lock) == 0);
    mem_of(s)->fault = fault;
    CHECK(pthread_mutex_unlock(&mem_of(s)->lock) == 0);
}

void store_mem_restart(struct store *s)
{
    CHECK(s->ops == &mem_ops && atomic_load(&s->open_txns) == 0);
    atomic_store(&s->broken, false);
}
