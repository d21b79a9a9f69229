#include "coordinator/repair_fold.h"

#include "common/check.h"
#include "common/date.h"
#include "common/limits.h"
#include "coordinator/core/core.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_BYTES_MAX ((size_t)1 << 32)

static int job_compare(const struct tree_node *a, const struct tree_node *b)
{
    return id_compare(&tree_entry(a, const struct fold_job, node)->id,
                      &tree_entry(b, const struct fold_job, node)->id);
}

static int usage_compare(const struct tree_node *a, const struct tree_node *b)
{
    const struct record_usage *x = &tree_entry(a, const struct fold_usage, node)->row;
    const struct record_usage *y = &tree_entry(b, const struct fold_usage, node)->row;
    int order = strcmp(x->tenant, y->tenant);
    if (order == 0)
        order = strcmp(x->model, y->model);
    if (order == 0)
        order = x->day < y->day ? -1 : x->day > y->day;
    return order;
}

static int balance_compare(const struct tree_node *a, const struct tree_node *b)
{
    return strcmp(tree_entry(a, const struct fold_balance, node)->row.tenant,
                  tree_entry(b, const struct fold_balance, node)->row.tenant);
}

void fold_init(struct fold *f)
{
    tree_init(&f->jobs, job_compare);
    tree_init(&f->usages, usage_compare);
    tree_init(&f->balances, balance_compare);
    arena_init(&f->names, NAMES_BYTES_MAX);
}

void fold_fini(struct fold *f)
{
    struct tree_node *n;
    while ((n = f->jobs.root) != NULL) {
        tree_remove(&f->jobs, n);
        free(tree_entry(n, struct fold_job, node));
    }
    while ((n = f->usages.root) != NULL) {
        tree_remove(&f->usages, n);
        free(tree_entry(n, struct fold_usage, node));
    }
    while ((n = f->balances.root) != NULL) {
        tree_remove(&f->balances, n);
        free(tree_entry(n, struct fold_balance, node));
    }
    arena_fini(&f->names);
}

static const char *name_copy(struct fold *f, const char *name)
{
    const char *copy = arena_copy(&f->names, name, strlen(name) + 1);
    CHECK(copy != NULL);
    return copy;
}

static struct fold_job *job_find(const struct fold *f, const struct id *id)
{
    struct fold_job probe = {.id = *id};
    return tree_entry(tree_find(&f->jobs, &probe.node), struct fold_job, node);
}

static struct fold_job *job_get(struct fold *f, const struct id *id)
{
    struct fold_job *j = job_find(f, id);
    if (j != NULL)
        return j;
    j = calloc(1, sizeof *j);
    CHECK(j != NULL);
    j->id = *id;
    tree_insert(&f->jobs, &j->node);
    return j;
}

struct fold_job *fold_want(struct fold *f, const struct id *id)
{
    struct fold_job *j = job_get(f, id);
    j->kept = true;
    return j;
}

struct fold_usage *fold_usage_find(const struct fold *f, const struct record_usage *row)
{
    struct fold_usage probe = {.row = *row};
    return tree_entry(tree_find(&f->usages, &probe.node), struct fold_usage, node);
}

struct fold_balance *fold_balance_find(const struct fold *f, const char *tenant)
{
    struct fold_balance probe = {.row = {.tenant = tenant}};
    return tree_entry(tree_find(&f->balances, &probe.node), struct fold_balance, node);
}

static struct fold_balance *balance_get(struct fold *f, const char *tenant)
{
    struct fold_balance *b = fold_balance_find(f, tenant);
    if (b != NULL)
        return b;
    b = calloc(1, sizeof *b);
    CHECK(b != NULL);
    b->row.tenant = name_copy(f, tenant);
    tree_insert(&f->balances, &b->node);
    return b;
}

static struct record_usage *usage_get(struct fold *f, const struct record_ledger *r)
{
    struct record_usage row = {
        .tenant = r->tenant, .model = r->model, .day = date_of_wall(r->wall_ns)};
    struct fold_usage *u = fold_usage_find(f, &row);
    if (u != NULL)
        return &u->row;
    u = calloc(1, sizeof *u);
    CHECK(u != NULL);
    u->row = row;
    u->row.tenant = name_copy(f, r->tenant);
    u->row.model = name_copy(f, r->model);
    tree_insert(&f->usages, &u->node);
    return &u->row;
}

static enum err end_record(struct fold *f, const struct record_ledger *r, struct errbuf *eb)
{
    struct fold_job *j = job_find(f, &r->job_id);
    struct fold_balance *b = fold_balance_find(f, r->tenant);
    if (j == NULL || b == NULL || j->reserve_seq == 0 || j->end_seq != 0 ||
        j->reserve_seq != r->reserve_seq || b->row.reserved_tokens < r->reserved_tokens)
        return err_set(eb, ERR_CORRUPT,
                       "ledger: record %" PRIu64 " ends a reservation that is not open", r->seq);
    uint64_t prompt = core_ledger_prompt_billable(r);
    struct record_usage *u = usage_get(f, r);
    b->row.reserved_tokens -= r->reserved_tokens;
    b->row.settled_tokens += prompt + r->completion_billable;
    u->jobs++;
    u->prompt_tokens += prompt;
    u->prompt_cached += prompt > 0 ? r->prompt_cached : 0;
    u->completion_tokens += r->completion_billable;
    u->computed_tokens += r->completion_computed;
    j->end_seq = r->seq + 1;
    if (!j->kept) {
        tree_remove(&f->jobs, &j->node);
        free(j);
    }
    return ERR_OK;
}

enum err fold_record(struct fold *f, const struct record_ledger *r, struct errbuf *eb)
{
    struct fold_job *j;
    if (r->boot_epoch > f->boot_epoch)
        f->boot_epoch = r->boot_epoch;
    switch (r->kind) {
    case RECORD_LEDGER_RESERVE:
        j = job_get(f, &r->job_id);
        /* An id may come again when its first job was removed. */
        if (j->reserve_seq != 0 && j->end_seq == 0)
            return err_set(eb, ERR_CORRUPT, "ledger: record %" PRIu64 " reserves a second time",
                           r->seq);
        j->reserve_seq = r->seq + 1;
        j->end_seq = 0;
        balance_get(f, r->tenant)->row.reserved_tokens += r->reserved_tokens;
        return ERR_OK;
    case RECORD_LEDGER_SETTLE:
    case RECORD_LEDGER_VOID:
    case RECORD_LEDGER_EXPIRE:
        return end_record(f, r, eb);
    default:
        return ERR_OK;
    }
}

struct folding {
    struct fold *fold;
    struct arena arena;
    enum err err;
    struct errbuf *eb;
};

static bool ledger_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct folding *f = arg;
    struct record_ledger record;
    (void)key;
    (void)key_size;
    arena_reset(&f->arena);
    f->err = record_ledger_decode(value.data, value.size, &f->arena, &record, f->eb);
    if (f->err == ERR_OK)
        f->err = fold_record(f->fold, &record, f->eb);
    return f->err == ERR_OK;
}

enum err fold_ledger(struct fold *fold, struct store_txn *txn, struct errbuf *eb)
{
    struct folding f = {.fold = fold, .eb = eb};
    arena_init(&f.arena, LIMIT_DECODE_BYTES);
    enum err err = store_scan(txn, STORE_TABLE_LEDGER, NULL, 0, ledger_visit, &f, eb);
    arena_fini(&f.arena);
    return err == ERR_OK ? f.err : err;
}
