/* Panels byte for byte, on every instruction set: what pack_panel makes of a file's rows against
 * the layout as panel.h tells it, one quant and one number at a time. */
#include "tests/kernels/fixture.h"
#include "worker/kernels/cpu/panel.h"
#include "worker/kernels/host.h"
#include "worker/kernels/quant_raw_read.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* `count` numbers of a row, [number][16]. */
static void put_halves(uint8_t *to, uint32_t count, const struct quant_raw *raw, uint32_t lane)
{
    const uint16_t numbers[] = {raw->d, raw->m};
    for (uint32_t i = 0; i < count; i++)
        memcpy(to + (size_t)2 * (i * PANEL_ROWS + lane), &numbers[i], 2);
}

static void put_bytes(uint8_t *to, const struct panel_layout *l, const struct quant_raw *raw,
                      uint32_t lane)
{
    switch (l->type) {
    case QUANT_TYPE_Q2_K: /* [16][2] */
        for (uint32_t half = 0; half < 2; half++)
            to[2 * lane + half] = (uint8_t)((uint8_t)raw->scale[half] + 16 * raw->min[half]);
        break;
    case QUANT_TYPE_Q3_K:
    case QUANT_TYPE_Q6_K:
        for (uint32_t half = 0; half < 2; half++)
            to[2 * lane + half] = (uint8_t)raw->scale[half];
        break;
    case QUANT_TYPE_Q4_K: /* [number][16] */
    case QUANT_TYPE_Q5_K:
    case QUANT_TYPE_IQ4_XS:
        to[lane] = (uint8_t)raw->scale[0];
        if (l->bytes == 2)
            to[PANEL_ROWS + lane] = raw->min[0];
        break;
    default:
        assert_int_equal(l->bytes, 0);
    }
}

/* Column k of the block: bits from .. from + bits - 1 of its quant. */
static void put_bits(uint8_t *plane, uint32_t bits, uint32_t from, uint32_t q, uint32_t k,
                     uint32_t lane)
{
    if (bits == 0)
        return;
    uint32_t quad = k / 4, each = 8 / bits;
    uint32_t value = q >> from & ((1u << bits) - 1);
    uint8_t *byte = plane + (size_t)(quad / each) * PANEL_QUAD_BYTES + lane * 4 + k % 4;
    *byte = (uint8_t)(*byte | value << (bits * (quad % each)));
}

static void put_row(const struct panel_layout *l, const uint8_t *row, uint32_t blocks,
                    uint8_t *panel, uint32_t lane)
{
    for (uint32_t b = 0; b < blocks; b++) {
        uint8_t *super = panel + (size_t)(b / PANEL_SUPER_BLOCKS) * panel_super_bytes(l);
        uint8_t *block =
            super + panel_head_bytes(l) + (size_t)(b % PANEL_SUPER_BLOCKS) * panel_block_bytes(l);
        uint8_t *low = block + panel_quants_at(l);
        uint8_t *high = low + (size_t)l->low_bits * PANEL_QUAD_BYTES;
        struct quant_raw raw;
        quant_raw_read(l->type, row, b, &raw);
        put_halves(super, l->super_halves, &raw, lane);
        put_halves(block, l->halves, &raw, lane);
        put_bytes(block + (size_t)PANEL_ROWS * 2 * l->halves, l, &raw, lane);
        for (uint32_t k = 0; k < QUANT_BLOCK_ITEMS; k++) {
            put_bits(low, l->low_bits, 0, raw.q[k], k, lane);
            put_bits(high, l->high_bits, l->low_bits, raw.q[k], k, lane);
        }
    }
}

static void compare(const struct cpu_kernels *kernels, enum panel_kind kind, uint32_t rows,
                    uint32_t blocks, struct fixture_random *r)
{
    const struct panel_layout *l = &panel_layouts[kind];
    const struct quant_type_info *info = quant_type_info((uint32_t)l->type);
    const size_t row_bytes =
        (size_t)blocks * QUANT_BLOCK_ITEMS / info->block_items * info->block_bytes;
    const size_t bytes = (size_t)panel_bytes(l, blocks);
    uint8_t *want = calloc(1, bytes), *got = calloc(1, bytes);
    uint8_t *file = malloc(rows * row_bytes); /* any bits: packing looks at none */
    assert_true(want != NULL && got != NULL && file != NULL);
    for (size_t i = 0; i < rows * row_bytes; i++)
        file[i] = (uint8_t)(fixture_next(r) >> 56);
    for (uint32_t lane = 0; lane < rows; lane++)
        put_row(l, file + lane * row_bytes, blocks, want, lane);
    kernels->pack_panel[kind](file, row_bytes, rows, blocks, got);
    for (size_t i = 0; i < bytes; i++)
        if (want[i] != got[i])
            fail_msg("%s, %s, %u rows of %u blocks: byte %zu is %u, not %u", kernels->name,
                     info->name, rows, blocks, i, got[i], want[i]);
    free(want);
    free(got);
    free(file);
}

static void compare_all(const struct cpu_kernels *kernels)
{
    static const uint32_t rows[] = {1, 2, 7, 15, 16};
    static const uint32_t blocks[] = {1, 3, 7, 8, 9, 16, 21, 64};
    struct fixture_random r = {17};
    for (enum panel_kind kind = 0; kind < PANEL_KIND_COUNT; kind++)
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
            for (size_t k = 0; k < sizeof blocks / sizeof blocks[0]; k++) {
                uint32_t items = quant_type_info((uint32_t)panel_layouts[kind].type)->block_items;
                if (blocks[k] * QUANT_BLOCK_ITEMS % items == 0)
                    compare(kernels, kind, rows[i], blocks[k], &r);
            }
}

static void test_panels_are_as_their_layout_says(void **state)
{
    (void)state;
    compare_all(&cpu_kernels_plain);
    static const struct {
        const char *name;
        enum backend_isa isa;
    } sets[] = {
        {"avx2", BACKEND_ISA_AVX2}, {"avx512", BACKEND_ISA_AVX512}, {"amx", BACKEND_ISA_AMX}};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        if (backend_isa_available(sets[i].isa))
            compare_all(cpu_kernels_of(sets[i].isa));
        else
            print_message("this machine cannot run %s: left out\n", sets[i].name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_panels_are_as_their_layout_says)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
