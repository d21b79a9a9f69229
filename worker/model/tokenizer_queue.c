/*
 * tokenizer_queue.c - which merge comes next.
 *
 * Merges are looked for from left to right, so that those of one order come in the order of their
 * positions already, and a run of a million letters has a handful of orders. So each order has a
 * list that is only added to at its ends, and a heap holds the orders. What would go into the
 * middle of a list goes into a heap of its own instead. Taking out is O(log n) at worst and a step
 * along a list as a rule.
 */
#include "worker/model/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

struct queue_node {
    uint32_t position;
    uint32_t next;
};

/* Of the table from orders to lists; empty where its round is over. */
struct queue_slot {
    uint32_t round;
    uint32_t list;
};

struct queue_list {
    uint32_t order;
    uint32_t head; /* NONE where it is empty */
    uint32_t tail;
};

/* --- a heap of numbers, the smallest first --- */

static bool heap_push(struct queue_heap *h, uint64_t item)
{
    if (h->count == h->capacity) {
        size_t capacity = h->capacity < 64 ? 64 : h->capacity * 2;
        uint64_t *items = realloc(h->items, capacity * sizeof *items);
        if (items == NULL)
            return false;
        h->items = items;
        h->capacity = capacity;
    }
    size_t at = h->count++;
    while (at > 0 && item < h->items[(at - 1) / 2]) {
        h->items[at] = h->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    h->items[at] = item;
    return true;
}

static void heap_pop(struct queue_heap *h)
{
    uint64_t last = h->items[--h->count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && h->items[child + 1] < h->items[child])
            child++;
        if (last <= h->items[child])
            break;
        h->items[at] = h->items[child];
        at = child;
    }
    if (h->count > 0)
        h->items[at] = last;
}

/* --- lists by order --- */

static uint32_t slot_of(const struct queue *q, uint32_t order)
{
    return (uint32_t)((uint64_t)order * 0x9e3779b97f4a7c15ull >> 32) & q->slots_mask;
}

static bool slots_grow(struct queue *q)
{
    uint32_t count = q->slots == NULL ? 256 : (q->slots_mask + 1) * 4;
    struct queue_slot *slots = calloc(count, sizeof *slots);
    if (slots == NULL)
        return false;
    free(q->slots);
    q->slots = slots;
    q->slots_mask = count - 1;
    q->round = 1;
    for (uint32_t i = 0; i < q->n_lists; i++) {
        uint32_t at = slot_of(q, q->lists[i].order);
        while (slots[at].round == q->round)
            at = (at + 1) & q->slots_mask;
        slots[at] = (struct queue_slot){.round = q->round, .list = i};
    }
    return true;
}

/* The list of an order, made where there is none yet. NULL: no memory. */
static struct queue_list *list_of(struct queue *q, uint32_t order)
{
    if (q->last_list < q->n_lists && q->lists[q->last_list].order == order)
        return &q->lists[q->last_list];
    if ((q->slots == NULL || q->n_lists * 2 > q->slots_mask) && !slots_grow(q))
        return NULL;
    uint32_t at = slot_of(q, order);
    for (; q->slots[at].round == q->round; at = (at + 1) & q->slots_mask) {
        if (q->lists[q->slots[at].list].order == order) {
            q->last_list = q->slots[at].list;
            return &q->lists[q->last_list];
        }
    }
    if (q->n_lists == q->lists_capacity) {
        uint32_t capacity = q->lists_capacity < 64 ? 64 : q->lists_capacity * 2;
        struct queue_list *lists = realloc(q->lists, capacity * sizeof *lists);
        if (lists == NULL)
            return NULL;
        q->lists = lists;
        q->lists_capacity = capacity;
    }
    q->lists[q->n_lists] = (struct queue_list){.order = order, .head = NONE, .tail = NONE};
    q->slots[at] = (struct queue_slot){.round = q->round, .list = q->n_lists};
    q->last_list = q->n_lists++;
    return &q->lists[q->last_list];
}

static uint32_t node_new(struct queue *q)
{
    if (q->free_node != NONE) {
        uint32_t node = q->free_node;
        q->free_node = q->nodes[node].next;
        return node;
    }
    if (q->n_nodes == q->nodes_capacity) {
        uint32_t capacity = q->nodes_capacity < 256 ? 256 : q->nodes_capacity * 2;
        struct queue_node *nodes = realloc(q->nodes, (size_t)capacity * sizeof *nodes);
        if (nodes == NULL)
            return NONE;
        q->nodes = nodes;
        q->nodes_capacity = capacity;
    }
    return q->n_nodes++;
}

/* --- the queue --- */

void queue_clear(struct queue *q)
{
    q->round++;
    if (q->round == 0 && q->slots != NULL) {
        memset(q->slots, 0, ((size_t)q->slots_mask + 1) * sizeof *q->slots);
        q->round = 1;
    }
    q->n_lists = 0;
    q->last_list = 0;
    q->n_nodes = 0;
    q->free_node = NONE;
    q->orders.count = 0;
    q->strays.count = 0;
}

bool queue_push(struct queue *q, uint32_t order, uint32_t position)
{
    struct queue_list *list = list_of(q, order);
    if (list == NULL)
        return false;
    if (list->head != NONE && position < q->nodes[list->tail].position &&
        position > q->nodes[list->head].position)
        return heap_push(&q->strays, (uint64_t)order << 32 | position);
    uint32_t node = node_new(q);
    if (node == NONE)
        return false;
    q->nodes[node] = (struct queue_node){.position = position, .next = NONE};
    if (list->head == NONE) {
        list->head = list->tail = node;
        return heap_push(&q->orders, (uint64_t)order << 32 | (uint32_t)(list - q->lists));
    }
    if (position >= q->nodes[list->tail].position) {
        q->nodes[list->tail].next = node;
        list->tail = node;
    } else {
        q->nodes[node].next = list->head;
        list->head = node;
    }
    return true;
}

bool queue_pop(struct queue *q, uint32_t *ret_order, uint32_t *ret_position)
{
    uint64_t first = UINT64_MAX;
    struct queue_list *list = NULL;
    if (q->orders.count > 0) {
        list = &q->lists[(uint32_t)q->orders.items[0]];
        first = (uint64_t)list->order << 32 | q->nodes[list->head].position;
    }
    if (q->strays.count > 0 && q->strays.items[0] < first) {
        first = q->strays.items[0];
        heap_pop(&q->strays);
    } else if (list == NULL) {
        return false;
    } else {
        uint32_t node = list->head;
        list->head = q->nodes[node].next;
        q->nodes[node].next = q->free_node;
        q->free_node = node;
        if (list->head == NONE)
            heap_pop(&q->orders);
    }
    *ret_order = (uint32_t)(first >> 32);
    *ret_position = (uint32_t)first;
    return true;
}

void queue_fini(struct queue *q)
{
    free(q->nodes);
    free(q->lists);
    free(q->slots);
    free(q->orders.items);
    free(q->strays.items);
}
