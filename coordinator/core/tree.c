#include "coordinator/core/tree.h"

#include "common/check.h"

void tree_init(struct tree *t, tree_compare_fn *compare)
{
    *t = (struct tree){.root = NULL, .compare = compare, .draw = 1};
}

void tree_seed(struct tree *t, uint32_t seed)
{
    CHECK(t->root == NULL);
    t->draw = seed;
}

static uint32_t count_of(const struct tree_node *n)
{
    return n != NULL ? n->count : 0;
}

uint32_t tree_count(const struct tree *t)
{
    return count_of(t->root);
}

static void recount(const struct tree *t, struct tree_node *n)
{
    n->count = 1 + count_of(n->left) + count_of(n->right);
    if (t->refresh != NULL)
        t->refresh(n);
}

/* All that lies above where `probe` is, or would be. */
static void refresh_path(const struct tree *t, struct tree_node *n, const struct tree_node *probe)
{
    if (n == NULL || n == probe)
        return;
    refresh_path(t, t->compare(probe, n) < 0 ? n->left : n->right, probe);
    t->refresh(n);
}

/* A full-period step and a mix of it: neighbours in time get unrelated priorities. */
static uint32_t draw_priority(struct tree *t)
{
    t->draw = t->draw * 1664525u + 1013904223u;
    uint32_t x = t->draw;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

/* All nodes of `n` below `at` go to *ret_low, the others to *ret_high. */
static void split(const struct tree *t, struct tree_node *n, const struct tree_node *at,
                  struct tree_node **ret_low, struct tree_node **ret_high)
{
    if (n == NULL) {
        *ret_low = *ret_high = NULL;
    } else if (t->compare(n, at) < 0) {
        split(t, n->right, at, &n->right, ret_high);
        recount(t, n);
        *ret_low = n;
    } else {
        split(t, n->left, at, ret_low, &n->left);
        recount(t, n);
        *ret_high = n;
    }
}

static struct tree_node *merge(const struct tree *t, struct tree_node *low, struct tree_node *high)
{
    if (low == NULL)
        return high;
    if (high == NULL)
        return low;
    if (low->priority >= high->priority) {
        low->right = merge(t, low->right, high);
        recount(t, low);
        return low;
    }
    high->left = merge(t, low, high->left);
    recount(t, high);
    return high;
}

void tree_insert(struct tree *t, struct tree_node *n)
{
    CHECK(!tree_holds(n));
    n->priority = draw_priority(t);
    bool is_last = t->last == NULL || t->compare(n, t->last) > 0;
    struct tree_node **at = &t->root;
    while (*at != NULL && (*at)->priority >= n->priority) {
        int order = is_last ? 1 : t->compare(n, *at);
        CHECK(order != 0);
        (*at)->count++;
        at = order < 0 ? &(*at)->left : &(*at)->right;
    }
    if (is_last) {
        n->left = *at;
        n->right = NULL;
        t->last = n;
    } else {
        split(t, *at, n, &n->left, &n->right);
    }
    recount(t, n);
    *at = n;
    if (t->refresh != NULL)
        refresh_path(t, t->root, n);
}

void tree_remove(struct tree *t, struct tree_node *n)
{
    CHECK(tree_holds(n));
    struct tree_node **at = &t->root;
    while (*at != n) {
        CHECK(*at != NULL);
        (*at)->count--;
        at = t->compare(n, *at) < 0 ? &(*at)->left : &(*at)->right;
    }
    *at = merge(t, n->left, n->right);
    if (t->refresh != NULL)
        refresh_path(t, t->root, n);
    n->left = n->right = NULL;
    n->count = 0;
    if (t->last == n)
        t->last = tree_last(t);
}

struct tree_node *tree_first(const struct tree *t)
{
    struct tree_node *n = t->root;
    while (n != NULL && n->left != NULL)
        n = n->left;
    return n;
}

struct tree_node *tree_last(const struct tree *t)
{
    struct tree_node *n = t->root;
    while (n != NULL && n->right != NULL)
        n = n->right;
    return n;
}

static struct tree_node *lowest_from(const struct tree *t, const struct tree_node *probe,
                                     bool inclusive)
{
    struct tree_node *best = NULL;
    for (struct tree_node *n = t->root; n != NULL;) {
        int order = t->compare(n, probe);
        if (order > 0 || (order == 0 && inclusive)) {
            best = n;
            n = n->left;
        } else {
            n = n->right;
        }
    }
    return best;
}

struct tree_node *tree_above(const struct tree *t, const struct tree_node *probe)
{
    return lowest_from(t, probe, false);
}

struct tree_node *tree_at_least(const struct tree *t, const struct tree_node *probe)
{
    return lowest_from(t, probe, true);
}

struct tree_node *tree_below(const struct tree *t, const struct tree_node *probe)
{
    struct tree_node *best = NULL;
    for (struct tree_node *n = t->root; n != NULL;) {
        if (t->compare(n, probe) < 0) {
            best = n;
            n = n->right;
        } else {
            n = n->left;
        }
    }
    return best;
}

struct tree_node *tree_find(const struct tree *t, const struct tree_node *probe)
{
    struct tree_node *n = t->root;
    while (n != NULL) {
        int order = t->compare(probe, n);
        if (order == 0)
            break;
        n = order < 0 ? n->left : n->right;
    }
    return n;
}

uint32_t tree_rank(const struct tree *t, const struct tree_node *probe)
{
    uint32_t before = 0;
    for (struct tree_node *n = t->root; n != NULL;) {
        if (t->compare(n, probe) < 0) {
            before += 1 + count_of(n->left);
            n = n->right;
        } else {
            n = n->left;
        }
    }
    return before;
}

static void cursor_push(struct tree_cursor *at, struct tree_node *n)
{
    if (at->depth == TREE_CURSOR_DEPTH) {
        at->cut = true;
        at->depth--;
        for (uint32_t i = 0; i < at->depth; i++)
            at->path[i] = at->path[i + 1];
    }
    at->path[at->depth++] = n;
}

void tree_cursor_begin(struct tree_cursor *at, const struct tree *t, struct tree_node *start,
                       bool down)
{
    *at = (struct tree_cursor){.tree = t, .down = down};
    if (start == NULL)
        return;
    for (struct tree_node *n = t->root; n != start;) {
        CHECK(n != NULL);
        bool is_low = t->compare(n, start) < 0;
        if (is_low == down)
            cursor_push(at, n);
        n = is_low ? n->right : n->left;
    }
    cursor_push(at, start);
}

struct tree_node *tree_cursor_node(const struct tree_cursor *at)
{
    return at->depth > 0 ? at->path[at->depth - 1] : NULL;
}

void tree_cursor_next(struct tree_cursor *at)
{
    CHECK(at->depth > 0);
    struct tree_node *here = at->path[--at->depth];
    struct tree_node *n = at->down ? here->left : here->right;
    for (; n != NULL; n = at->down ? n->right : n->left)
        cursor_push(at, n);
    if (at->depth == 0 && at->cut)
        tree_cursor_begin(at, at->tree,
                          at->down ? tree_below(at->tree, here) : tree_above(at->tree, here),
                          at->down);
}
