/*
 * names.c - interned text: of each name one copy, while somebody holds it. What nobody holds any
 * more stays for another turn: effects that are being carried out may point to it.
 */
#include "coordinator/core/state.h"

static int name_compare(const struct tree_node *a, const struct tree_node *b)
{
    return strcmp(tree_entry(a, const struct core_name, node)->text,
                  tree_entry(b, const struct core_name, node)->text);
}

void names_init(struct core *c)
{
    tree_init(&c->names, name_compare);
    c->dropped_names_end = &c->dropped_names;
}

void names_free(struct core *c)
{
    struct tree_node *n;
    while ((n = c->names.root) != NULL) {
        tree_remove(&c->names, n);
        free(tree_entry(n, struct core_name, node));
    }
}

const char *name_intern(struct core *c, const char *text)
{
    if (text[0] == '\0')
        return "";
    struct core_name probe = {.text = text};
    struct core_name *name = tree_entry(tree_find(&c->names, &probe.node), struct core_name, node);
    if (name == NULL) {
        size_t size = strlen(text) + 1;
        name = core_alloc(sizeof *name + size);
        memcpy(name->own, text, size);
        name->text = name->own;
        tree_insert(&c->names, &name->node);
    }
    name->holders++;
    return name->text;
}

void name_replace(struct core *c, const char **name, const char *text)
{
    const char *old = *name;
    *name = name_intern(c, text);
    name_drop(c, old);
}

static void name_list(struct core *c, struct core_name *name)
{
    name->dropped = true;
    name->listed_turn = c->turns;
    name->next_dropped = NULL;
    *c->dropped_names_end = name;
    c->dropped_names_end = &name->next_dropped;
}

void name_drop(struct core *c, const char *text)
{
    if (text[0] == '\0')
        return;
    struct core_name probe = {.text = text};
    struct core_name *name = tree_entry(tree_find(&c->names, &probe.node), struct core_name, node);
    CHECK(name != NULL && name->text == text && name->holders > 0);
    if (--name->holders > 0)
        return;
    name->dropped_turn = c->turns;
    if (!name->dropped)
        name_list(c, name);
}

void names_sweep(struct core *c)
{
    struct core_name *name;
    while ((name = c->dropped_names) != NULL && name->listed_turn + 2 <= c->turns) {
        c->dropped_names = name->next_dropped;
        if (c->dropped_names == NULL)
            c->dropped_names_end = &c->dropped_names;
        name->dropped = false;
        if (name->holders > 0)
            continue;
        if (name->dropped_turn + 2 > c->turns) { /* it was held again meanwhile */
            name_list(c, name);
            continue;
        }
        tree_remove(&c->names, &name->node);
        free(name);
    }
    c->turns++;
}
