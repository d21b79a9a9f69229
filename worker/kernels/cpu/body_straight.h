/*
 * body_straight.h - a few columns of x: the weights go straight from memory into the products, and
 * reading them is what takes the time. Included by kernel_bodies.h.
 */

/* 16 rows of the result, or of a node, for one row of x, or the rows of it that the matrix has. */
VEC_INLINE void body_store(const struct kernel_matmul *m, uint32_t panel, uint32_t x_row,
                           uint32_t node, const float *sums)
{
    uint32_t first = panel * PANEL_ROWS;
    uint32_t n = m->rows - first < PANEL_ROWS ? m->rows - first : PANEL_ROWS;
    float *out = m->out + node * m->node_stride + (size_t)x_row * m->out_stride + first;
    const float *bias = m->bias != NULL ? m->bias + first : NULL;
    if (n == PANEL_ROWS) {
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++) {
            vec_f y = vec_f_load(sums + h * VEC_LANES);
            if (bias != NULL)
                y = vec_f_add(y, vec_f_load(bias + h * VEC_LANES));
            if (m->accumulate)
                y = vec_f_add(vec_f_load(out + h * VEC_LANES), y);
            vec_f_store(out + h * VEC_LANES, y);
        }
        return;
    }
    for (uint32_t r = 0; r < n; r++) {
        float result = bias != NULL ? sums[r] + bias[r] : sums[r];
        out[r] = m->accumulate ? out[r] + result : result;
    }
}

/* Straight: a node of one panel times `cols` rows of x from x_row on. */
VEC_INLINE void body_straight_node(const enum panel_kind kind, const int cols,
                                   const struct kernel_matmul *m, uint32_t panel, uint32_t x_row,
                                   uint32_t node)
{
    const struct body_traits t = body_traits[kind];
    const uint8_t *w = m->data + panel * m->panel_bytes;
    const int8_t *q = m->x.q + x_row * m->x.q_stride;
    const size_t cell = x_row * m->x.block_stride;
    const uint32_t width = (uint32_t)cols * PANEL_ROWS;
    const uint32_t first = m->nodes[node].first, groups = m->nodes[node].count;
    float partial[SUM_GROUPS_MAX * BODY_STRAIGHT_COLS * PANEL_ROWS];

    for (uint32_t g = 0; g < groups; g++) {
        uint32_t begin = kernel_group_begin(m, first + g);
        uint32_t end = kernel_group_begin(m, first + g + 1);
        /* The first leaf added to -0, the neutral element, is the first leaf. */
        vec_f sum[BODY_STRAIGHT_COLS][BODY_HALVES];
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            BODY_UNROLL
            for (int h = 0; h < BODY_HALVES; h++)
                sum[c][h] = vec_f_set(-0.0f);
        }
        for (uint32_t leaf = begin; leaf < end; leaf += SUM_LEAF_BLOCKS) {
            uint32_t leaf_end = leaf + SUM_LEAF_BLOCKS < end ? leaf + SUM_LEAF_BLOCKS : end;
            vec_f acc[BODY_STRAIGHT_COLS][BODY_HALVES];
            BODY_UNROLL
            for (int c = 0; c < cols; c++) {
                BODY_UNROLL
                for (int h = 0; h < BODY_HALVES; h++)
                    acc[c][h] = vec_f_set(0.0f);
            }
            for (uint32_t b = leaf; b < leaf_end; b++) {
                const uint8_t *super = body_super_at(kind, w, b);
                const uint8_t *block = body_block_at(kind, super, b);
                const size_t at = b - m->lead;
                body_block(t, kind, cols, super, block, &m->x, q + at * QUANT_BLOCK_ITEMS,
                           cell + at, acc);
            }
            BODY_UNROLL
            for (int c = 0; c < cols; c++) {
                BODY_UNROLL
                for (int h = 0; h < BODY_HALVES; h++)
                    sum[c][h] = vec_f_add(sum[c][h], acc[c][h]);
            }
        }
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            BODY_UNROLL
            for (int h = 0; h < BODY_HALVES; h++)
                vec_f_store(partial + g * width + c * (int)PANEL_ROWS + h * VEC_LANES, sum[c][h]);
        }
    }
    for (uint32_t step = 1; step < groups; step *= 2) {
        for (uint32_t i = 0; i + step < groups; i += 2 * step) {
            float *restrict left = partial + i * width;
            const float *restrict right = partial + (i + step) * width;
            for (uint32_t k = 0; k < width; k++)
                left[k] += right[k];
        }
    }
    for (int c = 0; c < cols; c++)
        body_store(m, panel, x_row + (uint32_t)c, node, partial + (size_t)c * PANEL_ROWS);
}

VEC_INLINE void body_straight(const enum panel_kind kind, const int cols,
                              const struct kernel_matmul *m, uint32_t panel, uint32_t x_row)
{
    for (uint32_t node = 0; node < m->n_nodes; node++)
        body_straight_node(kind, cols, m, panel, x_row, node);
}

typedef void body_straight_fn(const struct kernel_matmul *m, uint32_t panel, uint32_t x_row);
