/*
 * queue.c - who is next: per model by class, priority, deadline and arrival, among all or among
 * those that ask for few enough tokens; how much waits, since when, and how long it will take at
 * the rate that was measured.
 */
#include "coordinator/core/state.h"

int queue_compare(const struct tree_node *a, const struct tree_node *b)
{
    const struct core_job *x = tree_entry(a, const struct core_job, in_queue);
    const struct core_job *y = tree_entry(b, const struct core_job, in_queue);
    if (x->job_class != y->job_class)
        return x->job_class < y->job_class ? -1 : 1;
    if (x->priority != y->priority)
        return x->priority > y->priority ? -1 : 1;
    if (x->deadline_ms != y->deadline_ms)
        return x->deadline_ms < y->deadline_ms ? -1 : 1;
    return x->submit_order < y->submit_order ? -1 : x->submit_order > y->submit_order;
}

int queue_order_compare(const struct tree_node *a, const struct tree_node *b)
{
    const struct core_job *x = tree_entry(a, const struct core_job, by_order);
    const struct core_job *y = tree_entry(b, const struct core_job, by_order);
    return x->submit_order < y->submit_order ? -1 : x->submit_order > y->submit_order;
}

static uint32_t least_of(const struct tree_node *n)
{
    return n != NULL ? tree_entry(n, const struct core_job, in_queue)->queue_least : UINT32_MAX;
}

static void queue_refresh(struct tree_node *n)
{
    struct core_job *j = tree_entry(n, struct core_job, in_queue);
    uint32_t left = least_of(n->left), right = least_of(n->right);
    j->queue_least = j->max_tokens;
    if (left < j->queue_least)
        j->queue_least = left;
    if (right < j->queue_least)
        j->queue_least = right;
}

void queue_init(struct core_model *m)
{
    tree_init(&m->queue, queue_compare);
    m->queue.refresh = queue_refresh;
    tree_init(&m->ages, queue_order_compare);
}

struct core_job *queue_first_within(const struct core_model *m, uint32_t limit)
{
    struct tree_node *n = m->queue.root;
    if (least_of(n) > limit)
        return NULL;
    for (;;) {
        struct core_job *j = tree_entry(n, struct core_job, in_queue);
        if (least_of(n->left) <= limit)
            n = n->left;
        else if (j->max_tokens <= limit)
            return j;
        else
            n = n->right;
    }
}

/* Tokens still to be computed for it: its prompt (as a bound until it was counted) and what is
 * left of max_tokens. */
uint64_t job_load_tokens(const struct core_job *j)
{
    uint64_t prompt = j->prompt_tokens > 0 ? j->prompt_tokens : j->prompt_bound;
    return prompt + (j->max_tokens > j->tokens ? j->max_tokens - j->tokens : 0);
}

void queue_insert(struct core *c, struct core_job *j)
{
    uint64_t load = job_load_tokens(j);
    tree_insert(&j->model->queue, &j->in_queue);
    tree_insert(&j->model->ages, &j->by_order);
    j->model->queued_tokens += load;
    c->queued_tokens += load;
    model_touch(c, j->model);
}

/* A queued job's tokens do not change, so its load is what it was when it came. */
void queue_remove(struct core *c, struct core_job *j)
{
    uint64_t load = job_load_tokens(j);
    tree_remove(&j->model->queue, &j->in_queue);
    tree_remove(&j->model->ages, &j->by_order);
    CHECK(j->model->queued_tokens >= load && c->queued_tokens >= load);
    j->model->queued_tokens -= load;
    c->queued_tokens -= load;
    model_touch(c, j->model);
}

uint32_t queue_ahead(const struct core_job *j)
{
    return j->state == WIRE_JOB_STATE_QUEUED ? tree_rank(&j->model->queue, &j->in_queue) : 0;
}

uint64_t queue_oldest_ms(const struct core *c, const struct core_model *m)
{
    const struct core_job *j = tree_entry(tree_first(&m->ages), struct core_job, by_order);
    return j != NULL && c->now_ms > j->submitted_ms ? c->now_ms - j->submitted_ms : 0;
}

#define RATE_WINDOW_MS 2000u

/* Tokens of load that went away, in windows of two seconds, each weighing a quarter. */
void rate_count(struct core *c, uint64_t tokens)
{
    c->rate_window_tokens += tokens;
    uint64_t passed = c->now_ms - c->rate_window_ms;
    if (passed < RATE_WINDOW_MS)
        return;
    uint64_t now = c->rate_window_tokens * 1000000u / passed;
    c->rate_milli_tokens_per_s =
        c->rate_milli_tokens_per_s == 0 ? now : (c->rate_milli_tokens_per_s * 3 + now) / 4;
    c->rate_window_ms = c->now_ms;
    c->rate_window_tokens = 0;
}

/* Until `tokens` of load will have gone, between a second and ten minutes. */
uint64_t rate_retry_after_ms(const struct core *c, uint64_t tokens)
{
    const uint64_t lowest = 1000, highest = 600000;
    if (c->rate_milli_tokens_per_s == 0)
        return 10000;
    uint64_t s = tokens / (c->rate_milli_tokens_per_s / 1000u + 1u);
    if (s >= highest / 1000u)
        return highest;
    return s * 1000u < lowest ? lowest : s * 1000u;
}
