/*
 * timer.c - what is due when, as a tree by time.
 */
#include "coordinator/core/state.h"

int timer_compare(const struct tree_node *a, const struct tree_node *b)
{
    const struct core_timer *x = tree_entry(a, const struct core_timer, node);
    const struct core_timer *y = tree_entry(b, const struct core_timer, node);
    if (x->at_ms != y->at_ms)
        return x->at_ms < y->at_ms ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

void timer_set(struct core *c, struct core_timer *t, enum core_timer_kind kind, uint64_t at_ms)
{
    timer_clear(c, t);
    if (at_ms == UINT64_MAX)
        return;
    t->at_ms = at_ms;
    t->order = (uint64_t)kind << 56 | ++c->timer_order;
    tree_insert(&c->timers, &t->node);
}

void timer_clear(struct core *c, struct core_timer *t)
{
    if (tree_holds(&t->node))
        tree_remove(&c->timers, &t->node);
}

enum core_timer_kind timer_kind(const struct core_timer *t)
{
    return (enum core_timer_kind)(t->order >> 56);
}
