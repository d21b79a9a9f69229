/* The tree of RFC 6962 against the published eight-leaf vectors, and every proof of every small
 * tree: right ones accepted, wrong ones not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordinator/ledger/merkle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Leaves and roots as in the test suites of certificate-transparency and its successors. */
static const struct {
    const char *leaf; /* hex */
    const char *root; /* of the tree that ends with it */
} eight[] = {
    {"", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"},
    {"00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"},
    {"10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"},
    {"2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"},
    {"3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"},
    {"40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"},
    {"5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"},
    {"606162636465666768696a6b6c6d6e6f",
     "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"},
};

enum { LEAVES_MAX = 70 };

/* All nodes of a tree, so that any of them can be asked for. */
struct tree {
    uint8_t node[8][LEAVES_MAX][SHA256_BYTES];
    struct merkle_frontier frontier;
    uint8_t root[LEAVES_MAX + 1][SHA256_BYTES];
};

static enum err tree_emit(void *arg, unsigned level, uint64_t index,
                          const uint8_t hash[SHA256_BYTES], struct errbuf *eb)
{
    struct tree *t = arg;
    (void)eb;
    assert_true(level >= 1 && level < 8 && index < LEAVES_MAX);
    memcpy(t->node[level][index], hash, SHA256_BYTES);
    return ERR_OK;
}

static enum err tree_node(void *arg, unsigned level, uint64_t index, uint8_t ret_hash[SHA256_BYTES],
                          struct errbuf *eb)
{
    struct tree *t = arg;
    (void)eb;
    assert_true(level < 8 && (index + 1) << level <= t->frontier.size);
    memcpy(ret_hash, t->node[level][index], SHA256_BYTES);
    return ERR_OK;
}

static void tree_append(struct tree *t, const void *leaf, size_t size)
{
    uint64_t n = t->frontier.size;
    merkle_leaf_hash(leaf, size, t->node[0][n]);
    assert_int_equal(merkle_frontier_append(&t->frontier, t->node[0][n], tree_emit, t, NULL),
                     ERR_OK);
    merkle_frontier_root(&t->frontier, t->root[n + 1]);
}

/* The definition, word for word: MTH of section 2.1. */
static void root_by_definition(struct tree *t, uint64_t start, uint64_t n, uint8_t *ret_root)
{
    uint8_t left[SHA256_BYTES], right[SHA256_BYTES];
    uint64_t k = 1;
    if (n == 1) {
        memcpy(ret_root, t->node[0][start], SHA256_BYTES);
        return;
    }
    while (2 * k < n)
        k *= 2;
    root_by_definition(t, start, k, left);
    root_by_definition(t, start + k, n - k, right);
    merkle_node_hash(left, right, ret_root);
}

static struct tree *tree_new(uint64_t leaves)
{
    struct tree *t = calloc(1, sizeof *t);
    assert_non_null(t);
    merkle_frontier_init(&t->frontier);
    for (uint64_t i = 0; i < leaves; i++)
        tree_append(t, &i, sizeof i);
    return t;
}

static void assert_hash(const uint8_t *hash, const char *hex)
{
    char text[SHA256_HEX_BYTES];
    hex_encode(hash, SHA256_BYTES, text);
    assert_string_equal(text, hex);
}

static void eight_leaves_give_the_published_roots(void **state)
{
    (void)state;
    struct tree *t = tree_new(0);
    merkle_frontier_root(&t->frontier, t->root[0]);
    assert_hash(t->root[0], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for (size_t i = 0; i < 8; i++) {
        uint8_t leaf[16];
        size_t size = strlen(eight[i].leaf) / 2;
        assert_true(hex_decode(eight[i].leaf, leaf, size));
        tree_append(t, leaf, size);
        assert_hash(t->root[i + 1], eight[i].root);
    }
    free(t);
}

static void frontier_follows_the_definition_and_loads_from_nodes(void **state)
{
    (void)state;
    struct tree *t = tree_new(LEAVES_MAX);
    for (uint64_t n = 1; n <= LEAVES_MAX; n++) {
        uint8_t root[SHA256_BYTES];
        struct merkle_frontier f;
        root_by_definition(t, 0, n, root);
        assert_memory_equal(root, t->root[n], SHA256_BYTES);
        assert_int_equal(merkle_frontier_load(&f, n, tree_node, t, NULL), ERR_OK);
        merkle_frontier_root(&f, root);
        assert_memory_equal(root, t->root[n], SHA256_BYTES);
        /* A loaded frontier goes on like the one that grew. */
        for (uint64_t i = n; i < LEAVES_MAX; i++)
            assert_int_equal(merkle_frontier_append(&f, t->node[0][i], NULL, NULL, NULL), ERR_OK);
        merkle_frontier_root(&f, root);
        assert_memory_equal(root, t->root[LEAVES_MAX], SHA256_BYTES);
    }
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_leaves_give_the_published_roots),
        cmocka_unit_test(frontier_follows_the_definition_and_loads_from_nodes),
    };
    return cmocka_run_group_tests_name("merkle", tests, NULL, NULL);
}
