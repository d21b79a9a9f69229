/*
 * names.c - interned text: of each name one copy, as long as the core lives.
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
}

void names_free(struct core *c)
{
    struct tree_node *n;
    while ((n = c->names.root) != NULL) {
        struct core_name *name = tree_entry(n, struct core_name, node);
        tree_remove(&c->names, n);
        free((void *)(uintptr_t)name->text);
        free(name);
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
        char *copy = core_alloc(size);
        memcpy(copy, text, size);
        name = core_alloc(sizeof *name);
        name->text = copy;
        tree_insert(&c->names, &name->node);
    }
    return name->text;
}
