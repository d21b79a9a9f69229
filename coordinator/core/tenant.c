/*
 * tenant.c - who pays: tenants with their budgets, the owners that jobs share, and usage by tenant,
 * model and day.
 */
#include "coordinator/core/state.h"

static int tenant_compare(const struct tree_node *a, const struct tree_node *b)
{
    return strcmp(tree_entry(a, const struct core_tenant, node)->name,
                  tree_entry(b, const struct core_tenant, node)->name);
}

/* Strings of owners are interned, but order must not depend on where they lie. */
static int owner_compare(const struct tree_node *a, const struct tree_node *b)
{
    const struct core_owner *x = tree_entry(a, const struct core_owner, node);
    const struct core_owner *y = tree_entry(b, const struct core_owner, node);
    int order = strcmp(x->tenant->name, y->tenant->name);
    if (order == 0)
        order = strcmp(x->principal, y->principal);
    if (order == 0)
        order = memcmp(x->key_fingerprint, y->key_fingerprint, sizeof x->key_fingerprint);
    if (order == 0)
        order = strcmp(x->project, y->project);
    if (order == 0)
        order = strcmp(x->cost_center, y->cost_center);
    return order;
}

static int usage_compare(const struct tree_node *a, const struct tree_node *b)
{
    const struct core_usage *x = tree_entry(a, const struct core_usage, node);
    const struct core_usage *y = tree_entry(b, const struct core_usage, node);
    int order = strcmp(x->tenant, y->tenant);
    if (order == 0)
        order = strcmp(x->model, y->model);
    if (order == 0)
        order = x->day < y->day ? -1 : x->day > y->day;
    return order;
}

static int tenant_job_compare(const struct tree_node *a, const struct tree_node *b)
{
    return job_id_order(tree_entry(a, const struct core_job, of_tenant),
                        tree_entry(b, const struct core_job, of_tenant));
}

void tenants_init(struct core *c)
{
    tree_init(&c->tenants, tenant_compare);
    tree_init(&c->owners, owner_compare);
    tree_init(&c->usages, usage_compare);
}

void tenants_free(struct core *c)
{
    struct tree_node *n;
    while ((n = c->usages.root) != NULL) {
        tree_remove(&c->usages, n);
        free(tree_entry(n, struct core_usage, node));
    }
    while ((n = c->owners.root) != NULL) {
        tree_remove(&c->owners, n);
        free(tree_entry(n, struct core_owner, node));
    }
    while ((n = c->tenants.root) != NULL) {
        tree_remove(&c->tenants, n);
        free(tree_entry(n, struct core_tenant, node));
    }
}

struct core_tenant *tenant_find(const struct core *c, const char *name)
{
    struct core_tenant probe = {.name = name};
    return tree_entry(tree_find(&c->tenants, &probe.node), struct core_tenant, node);
}

struct core_tenant *tenant_get(struct core *c, const char *name)
{
    struct core_tenant *t = tenant_find(c, name);
    if (t != NULL)
        return t;
    t = core_alloc(sizeof *t);
    t->name = name_intern(c, name);
    tree_init(&t->jobs, tenant_job_compare);
    tree_seed(&t->jobs, c->config->tree_seed);
    t->budget_tokens = c->config->default_budget_tokens;
    for (size_t i = 0; i < c->config->n_tenants; i++) {
        if (strcmp(c->config->tenants[i].name, name) == 0)
            t->budget_tokens = c->config->tenants[i].budget_tokens;
    }
    tree_insert(&c->tenants, &t->node);
    return t;
}

void tenant_touch(struct core *c, struct core_tenant *t)
{
    if (t->dirty)
        return;
    t->dirty = true;
    t->next_dirty = c->dirty_tenants;
    c->dirty_tenants = t;
}

struct core_owner *owner_hold(struct core *c, const struct core_owner *like)
{
    struct core_owner probe = *like;
    struct core_owner *o = tree_entry(tree_find(&c->owners, &probe.node), struct core_owner, node);
    if (o != NULL) {
        o->jobs++;
        return o;
    }
    o = core_alloc(sizeof *o);
    *o = (struct core_owner){
        .tenant = like->tenant,
        .principal = name_intern(c, like->principal),
        .project = name_intern(c, like->project),
        .cost_center = name_intern(c, like->cost_center),
        .jobs = 1,
    };
    memcpy(o->key_fingerprint, like->key_fingerprint, sizeof o->key_fingerprint);
    tree_insert(&c->owners, &o->node);
    return o;
}

void owner_drop(struct core *c, struct core_owner *o)
{
    if (--o->jobs > 0)
        return;
    tree_remove(&c->owners, &o->node);
    name_drop(c, o->principal);
    name_drop(c, o->project);
    name_drop(c, o->cost_center);
    free(o);
}

struct core_usage *usage_get(struct core *c, const char *tenant, const char *model, uint32_t day)
{
    struct core_usage probe = {.tenant = tenant, .model = model, .day = day};
    struct core_usage *u = tree_entry(tree_find(&c->usages, &probe.node), struct core_usage, node);
    if (u != NULL)
        return u;
    u = core_alloc(sizeof *u);
    u->tenant = u->row.tenant = name_intern(c, tenant);
    u->model = u->row.model = name_intern(c, model);
    u->day = u->row.day = day;
    tree_insert(&c->usages, &u->node);
    return u;
}

void usage_touch(struct core *c, struct core_usage *u)
{
    if (u->dirty)
        return;
    u->dirty = true;
    u->next_dirty = c->dirty_usages;
    c->dirty_usages = u;
}
