/* A model's shape as it travels, and that its receiver cuts as its sender. What is cut how:
 * tests/unit/engine/test_shard_plan.c. */
#include "common/buf.h"
#include "common/shard_cut.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MOST 8192u

/* 32 query heads over 8; every third layer's matrices are larger. */
static void shape_set(struct shard_shape *s, uint32_t n_layers)
{
    assert_int_equal(shard_shape_init(s, n_layers, NULL), ERR_OK);
    s->vocab = 128256;
    s->embed_bytes = 128256ull * 2304;
    s->head_bytes = 128256ull * 3360;
    s->kv_head_bytes = 1024ull * 16384;
    for (uint32_t i = 0; i < n_layers; i++) {
        s->kind[i] = (struct shard_kind){.n_heads = 32,
                                         .n_kv_heads = 8,
                                         .n_groups = 16,
                                         .q_bytes = 18874368,
                                         .k_bytes = i % 3 == 0 ? 5800000 : 4718592,
                                         .n_ffn_groups = 16,
                                         .ff_bytes = 14336ull * 7000};
        for (uint32_t g = 0; g < 16; g++)
            s->kind[i].ff_end[g] = (g + 1) * 896;
    }
}

static void pack(const struct shard_shape *s, struct buf *ret)
{
    buf_init(ret);
    assert_int_equal(shard_shape_pack(s, MOST, ret, NULL), ERR_OK);
    assert_false(ret->failed);
}

static void what_was_packed_is_cut_the_same(void **state)
{
    const struct shard_request requests[] = {
        {.shards = 1}, {.shards = 3}, {2, 2, 4, {1, 2, 3, 4}}, {.shards = 16}};
    struct shard_shape s, got;
    struct buf packed;

    (void)state;
    shape_set(&s, 32);
    shard_shape_join(&s);
    assert_int_equal(s.n_kinds, 2);
    pack(&s, &packed);
    assert_in_range(packed.size, 100, 400);
    assert_int_equal(shard_shape_unpack(&got, packed.data, packed.size, NULL), ERR_OK);
    assert_true(shard_shape_weights(&got) == shard_shape_weights(&s));
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        struct shard_cut *a = NULL, *b = NULL;
        assert_int_equal(shard_cut_new(&a, &s, &requests[i], NULL), ERR_OK);
        assert_int_equal(shard_cut_new(&b, &got, &requests[i], NULL), ERR_OK);
        assert_memory_equal(a->digest, b->digest, SHARD_DIGEST_BYTES);
        shard_cut_free(a);
        shard_cut_free(b);
    }
    buf_fini(&packed);
    shard_shape_fini(&got);
    shard_shape_fini(&s);
}

static void shares_are_the_whole_together(void **state)
{
    struct shard_shape s;

    (void)state;
    shape_set(&s, 32);
    shard_shape_join(&s);
    for (uint32_t n = 1; n <= 8; n++) {
        const struct shard_request request = {.shards = n};
        struct shard_cut *cut = NULL;
        uint64_t weights = 0, kv = 0;
        assert_int_equal(shard_cut_new(&cut, &s, &request, NULL), ERR_OK);
        for (uint32_t r = 0; r < n; r++) {
            weights += shard_cut_weights(&s, cut, r);
            kv += shard_cut_kv(&s, cut, r);
        }
        /* KV heads that two hold are counted twice; 3, 5, 6 and 7 do not divide 16 groups. */
        if (n == 1 || n == 2 || n == 4 || n == 8) {
            assert_in_range(weights, shard_shape_weights(&s) - 32 * 64, shard_shape_weights(&s));
            assert_true(kv == 32 * 8 * s.kv_head_bytes);
        } else {
            assert_true(weights > shard_shape_weights(&s) - 32 * 64);
            assert_true(kv >= 32 * 8 * s.kv_head_bytes);
        }
        shard_cut_free(cut);
    }
    shard_shape_fini(&s);
}

static void layers_that_all_differ_are_too_many_to_say(void **state)
{
    struct shard_shape s;
    struct buf packed;
    struct errbuf eb = {{0}};

    (void)state;
    shape_set(&s, SHARD_LAYERS_MAX);
    for (uint32_t i = 0; i < s.n_layers; i++)
        s.kind[i].q_bytes += i;
    shard_shape_join(&s);
    assert_int_equal(s.n_kinds, SHARD_LAYERS_MAX);
    buf_init(&packed);
    assert_int_equal(shard_shape_pack(&s, MOST, &packed, &eb), ERR_TOO_LARGE);
    assert_non_null(strstr(eb.text, "1024 kinds of layers"));
    buf_fini(&packed);
    shard_shape_fini(&s);
}

/* `packed` ends with one layer of the first kind: 1, 0, 1. */
static void say_1024_layers(struct buf *packed)
{
    static const uint8_t layers[] = {0x80, 0x08, 0, 0x80, 0x08};

    packed->size -= 3;
    buf_append(packed, layers, sizeof layers);
}

/* Small to say, and seconds of work for whoever believes it. */
static void what_takes_too_long_to_share_out_is_refused(void **state)
{
    static const struct {
        uint32_t layers, groups;
        bool is_taken;
    } table[] = {{128, 64, true}, {126, 16, true}, {1024, 22, true}, {1024, 64, false}};

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct shard_shape s, got;
        struct buf packed;
        struct errbuf eb = {{0}};
        shape_set(&s, table[i].layers);
        for (uint32_t k = 0; k < s.n_layers; k++) {
            s.kind[k].n_heads = s.kind[k].n_kv_heads = table[i].groups;
            s.kind[k].n_groups = s.kind[k].n_ffn_groups = table[i].groups;
            s.kind[k].k_bytes = 4718592;
            for (uint32_t g = 0; g < table[i].groups; g++)
                s.kind[k].ff_end[g] = (g + 1) * 32;
        }
        shard_shape_join(&s);
        buf_init(&packed);
        const enum err want = table[i].is_taken ? ERR_OK : ERR_TOO_LARGE;
        assert_int_equal(shard_shape_pack(&s, MOST, &packed, &eb), want);
        if (want != ERR_OK) {
            assert_non_null(strstr(eb.text, "1024 layers in so many groups"));
            s.n_layers = 1;
            assert_int_equal(shard_shape_pack(&s, MOST, &packed, &eb), ERR_OK);
            say_1024_layers(&packed);
        }
        assert_int_equal(shard_shape_unpack(&got, packed.data, packed.size, &eb), want);
        if (want == ERR_OK)
            shard_shape_fini(&got);
        buf_fini(&packed);
        shard_shape_fini(&s);
    }
}

/* Whatever arrives: it is refused with a reason, or every cut of it comes to an end. */
static void try_bytes(const uint8_t *bytes, size_t size)
{
    const struct shard_request requests[] = {{.shards = 7}, {.shards = 2, .stages = 3}};
    struct shard_shape s;
    struct errbuf eb = {{0}};

    if (shard_shape_unpack(&s, bytes, size, &eb) != ERR_OK) {
        assert_true(eb.text[0] != 0);
        return;
    }
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        struct shard_cut *cut = NULL;
        eb.text[0] = 0;
        if (shard_cut_new(&cut, &s, &requests[i], &eb) != ERR_OK)
            assert_true(eb.text[0] != 0);
        else
            for (uint32_t r = 0; r < cut->n_ranks; r++)
                (void)(shard_cut_weights(&s, cut, r) + shard_cut_kv(&s, cut, r));
        shard_cut_free(cut);
    }
    shard_shape_fini(&s);
}

static void damaged_forms_are_refused_or_can_be_cut(void **state)
{
    struct shard_shape s;
    struct buf packed;

    (void)state;
    shape_set(&s, 5);
    shard_shape_join(&s);
    pack(&s, &packed);
    for (size_t n = 0; n < packed.size; n++) {
        assert_int_not_equal(shard_shape_unpack(&s, packed.data, n, NULL), ERR_OK);
        for (unsigned bit = 0; bit < 8; bit++) {
            packed.data[n] ^= (uint8_t)(1u << bit);
            try_bytes(packed.data, packed.size);
            packed.data[n] ^= (uint8_t)(1u << bit);
        }
        uint8_t was = packed.data[n];
        packed.data[n] = 0xff;
        try_bytes(packed.data, packed.size);
        packed.data[n] = was;
    }
    buf_append_byte(&packed, 0);
    assert_int_equal(shard_shape_unpack(&s, packed.data, packed.size, NULL), ERR_INVALID);
    buf_fini(&packed);
    shard_shape_fini(&s);
}

static void what_does_not_hold_together_is_named(void **state)
{
    static const struct {
        uint32_t heads, kv_heads, groups, columns;
        const char *says;
    } table[] = {
        {32, 8, 16, 896, NULL},
        {32, 5, 16, 896, "32 heads in 16 groups over 5 KV heads"},
        {32, 8, 5, 896, "32 heads in 5 groups"},
        {12, 4, 6, 896, "12 heads in 6 groups over 4 KV heads"},
        {0, 8, 16, 896, "heads is 0"},
        {32, 8, 65, 896, "groups of heads is 65, not 1 to 64"},
        {32, 8, 16, 0, "columns of a group is 0"},
        {32, 8, 16, 1u << 17, "columns of a group"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct shard_shape s, got;
        struct buf packed;
        struct errbuf eb = {{0}};
        shape_set(&s, 1);
        s.kind[0].n_heads = table[i].heads;
        s.kind[0].n_kv_heads = table[i].kv_heads;
        s.kind[0].n_groups = table[i].groups;
        for (uint32_t g = 0; g < 16; g++)
            s.kind[0].ff_end[g] = (g + 1) * table[i].columns;
        pack(&s, &packed);
        enum err e = shard_shape_unpack(&got, packed.data, packed.size, &eb);
        if ((e == ERR_OK) != (table[i].says == NULL) ||
            (table[i].says != NULL && strstr(eb.text, table[i].says) == NULL))
            fail_msg("row %zu: %s", i, eb.text);
        if (e == ERR_OK)
            shard_shape_fini(&got);
        buf_fini(&packed);
        shard_shape_fini(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_packed_is_cut_the_same),
        cmocka_unit_test(shares_are_the_whole_together),
        cmocka_unit_test(layers_that_all_differ_are_too_many_to_say),
        cmocka_unit_test(what_takes_too_long_to_share_out_is_refused),
        cmocka_unit_test(damaged_forms_are_refused_or_can_be_cut),
        cmocka_unit_test(what_does_not_hold_together_is_named),
    };
    return cmocka_run_group_tests_name("shard cut", tests, NULL, NULL);
}
