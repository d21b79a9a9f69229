/*
 * body_matmul.h - the matrix product over the wrappers of a vec_*.h, included by kernel_bodies.h.
 *
 * Loops over columns of x and halves of a panel have constant bounds in every instance, so that
 * their sums live in registers. The order of the sums is that of sum_order.h.
 */

#define BODY_HALVES ((int)(PANEL_ROWS / VEC_LANES))
#define BODY_UNROLL _Pragma("GCC unroll 16")

/* How much of x is walked again for each panel: a share of a second-level cache. */
#define BODY_X_BYTES (192u << 10)

/* One block of 4-bit weights: acc += d * dx * sum(q qx), then the minimum's part. */
VEC_INLINE void body_block_q4(const bool has_min, const int cols, const uint8_t *w,
                              const struct kernel_input *x, const int8_t *q, size_t cell,
                              vec_f (*acc)[BODY_HALVES])
{
    const uint8_t *quants = w + (has_min ? PANEL_ROWS * 4 : PANEL_ROWS * 2);
    int32_t bias[VEC_COLS_MAX];
    vec_dot4 dot[VEC_COLS_MAX][BODY_HALVES];
    BODY_UNROLL
    for (int c = 0; c < cols; c++) {
        bias[c] = has_min ? 0 : -8 * x->isums[cell + (size_t)c * x->block_stride];
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++)
            dot[c][h] = vec_dot4_start(bias[c]);
    }
    BODY_UNROLL
    for (int i = 0; i < 4; i++) {
        vec_b low[BODY_HALVES];
        vec_b high[BODY_HALVES];
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++) {
            vec_b both = vec_b_load(quants + i * 64 + h * VEC_LANES * 4);
            low[h] = vec_b_low(both);
            high[h] = vec_b_high(both);
        }
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            const int8_t *qc = q + (size_t)c * x->q_stride + 4 * i;
            vec_b x_low = vec_b_quad(qc);
            vec_b x_high = vec_b_quad(qc + 16);
            BODY_UNROLL
            for (int h = 0; h < BODY_HALVES; h++) {
                dot[c][h] = vec_dot4_add(dot[c][h], low[h], x_low);
                dot[c][h] = vec_dot4_add(dot[c][h], high[h], x_high);
            }
        }
    }
    BODY_UNROLL
    for (int h = 0; h < BODY_HALVES; h++) {
        vec_f d = vec_f_load_half(w + h * VEC_LANES * 2);
        vec_f m = has_min ? vec_f_load_half(w + PANEL_ROWS * 2 + h * VEC_LANES * 2) : d;
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            size_t at = cell + (size_t)c * x->block_stride;
            vec_f dx = vec_f_set(x->scales[at]);
            vec_f isum = vec_f_from_i(vec_dot4_sum(dot[c][h], bias[c]));
            acc[c][h] = vec_f_fma(vec_f_mul(d, dx), isum, acc[c][h]);
            if (has_min)
                acc[c][h] = vec_f_fma(vec_f_mul(m, dx), vec_f_set(x->sums[at]), acc[c][h]);
        }
    }
}

VEC_INLINE void body_block_q8(const int cols, const uint8_t *w, const struct kernel_input *x,
                              const int8_t *q, size_t cell, vec_f (*acc)[BODY_HALVES])
{
    const uint8_t *quants = w + PANEL_ROWS * 2;
    vec_dot8 dot[VEC_COLS_MAX][BODY_HALVES];
    BODY_UNROLL
    for (int c = 0; c < cols; c++) {
        int32_t sum_x = x->isums[cell + (size_t)c * x->block_stride];
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++)
            dot[c][h] = vec_dot8_start(sum_x);
    }
    BODY_UNROLL
    for (int i = 0; i < 8; i++) {
        vec_w8 weights[BODY_HALVES];
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++)
            weights[h] = vec_w8_of(vec_b_load(quants + i * 64 + h * VEC_LANES * 4));
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            vec_b quad = vec_b_quad(q + (size_t)c * x->q_stride + 4 * i);
            BODY_UNROLL
            for (int h = 0; h < BODY_HALVES; h++)
                dot[c][h] = vec_dot8_add(dot[c][h], weights[h], quad);
        }
    }
    BODY_UNROLL
    for (int h = 0; h < BODY_HALVES; h++) {
        vec_f d = vec_f_load_half(w + h * VEC_LANES * 2);
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            vec_f dx = vec_f_set(x->scales[cell + (size_t)c * x->block_stride]);
            vec_f isum = vec_f_from_i(vec_dot8_sum(dot[c][h]));
            acc[c][h] = vec_f_fma(vec_f_mul(d, dx), isum, acc[c][h]);
        }
    }
}

VEC_INLINE uint32_t body_block_bytes(const enum panel_kind kind)
{
    return kind == PANEL_KIND_Q4_0   ? PANEL_Q4_0_BYTES
           : kind == PANEL_KIND_Q4_1 ? PANEL_Q4_1_BYTES
                                     : PANEL_Q8_0_BYTES;
}

/* 16 rows of the result for one row of x, or the rows of it that the matrix has. */
VEC_INLINE void body_store(const struct kernel_matmul *m, uint32_t panel, uint32_t x_row,
                           const float *sums)
{
    uint32_t first = panel * PANEL_ROWS;
    uint32_t n = m->rows - first < PANEL_ROWS ? m->rows - first : PANEL_ROWS;
    float *restrict out = m->out + (size_t)x_row * m->out_stride + first;
    const float *restrict bias = m->bias != NULL ? m->bias + first : NULL;
    float y[PANEL_ROWS];
    memcpy(y, sums, sizeof y);
    if (n == PANEL_ROWS) {
        if (bias != NULL) {
            for (uint32_t r = 0; r < PANEL_ROWS; r++)
                y[r] = y[r] + bias[r];
        }
        if (m->accumulate) {
            for (uint32_t r = 0; r < PANEL_ROWS; r++)
                y[r] = out[r] + y[r];
        }
        memcpy(out, y, sizeof y);
        return;
    }
    for (uint32_t r = 0; r < n; r++) {
        float result = bias != NULL ? y[r] + bias[r] : y[r];
        out[r] = m->accumulate ? out[r] + result : result;
    }
}

/* One panel times `cols` rows of x from x_row on. */
VEC_INLINE void body_panel(const enum panel_kind kind, const int cols,
                           const struct kernel_matmul *m, uint32_t panel, uint32_t x_row)
{
    const uint32_t block_bytes = body_block_bytes(kind);
    const uint8_t *w = m->data + (size_t)panel * m->blocks * block_bytes;
    const int8_t *q = m->x.q + (size_t)x_row * m->x.q_stride;
    const size_t cell = (size_t)x_row * m->x.block_stride;
    const uint32_t width = (uint32_t)cols * PANEL_ROWS;
    float partial[SUM_GROUPS_MAX * VEC_COLS_MAX * PANEL_ROWS];

    for (uint32_t g = 0; g < m->groups; g++) {
        uint32_t begin = sum_group_begin(g, m->groups, m->blocks);
        uint32_t end = sum_group_begin(g + 1, m->groups, m->blocks);
        /* The first leaf added to -0, the neutral element, is the first leaf. */
        vec_f sum[VEC_COLS_MAX][BODY_HALVES];
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            BODY_UNROLL
            for (int h = 0; h < BODY_HALVES; h++)
                sum[c][h] = vec_f_set(-0.0f);
        }
        for (uint32_t leaf = begin; leaf < end; leaf += SUM_LEAF_BLOCKS) {
            uint32_t leaf_end = leaf + SUM_LEAF_BLOCKS < end ? leaf + SUM_LEAF_BLOCKS : end;
            vec_f acc[VEC_COLS_MAX][BODY_HALVES];
            BODY_UNROLL
            for (int c = 0; c < cols; c++) {
                BODY_UNROLL
                for (int h = 0; h < BODY_HALVES; h++)
                    acc[c][h] = vec_f_set(0.0f);
            }
            for (uint32_t b = leaf; b < leaf_end; b++) {
                const uint8_t *block = w + (size_t)b * block_bytes;
                const int8_t *qb = q + (size_t)b * QUANT_BLOCK_ITEMS;
                if (kind == PANEL_KIND_Q8_0)
                    body_block_q8(cols, block, &m->x, qb, cell + b, acc);
                else
                    body_block_q4(kind == PANEL_KIND_Q4_1, cols, block, &m->x, qb, cell + b, acc);
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
    for (uint32_t step = 1; step < m->groups; step *= 2) {
        for (uint32_t i = 0; i + step < m->groups; i += 2 * step) {
            float *restrict left = partial + i * width;
            const float *restrict right = partial + (i + step) * width;
            for (uint32_t k = 0; k < width; k++)
                left[k] += right[k];
        }
    }
    for (int c = 0; c < cols; c++)
        body_store(m, panel, x_row + (uint32_t)c, partial + (size_t)c * PANEL_ROWS);
}

/* One instance per number of columns. */
#define BODY_PANEL_INSTANCE(kind, name, cols)                                                      \
    static __attribute__((noinline)) void name##_##cols(const struct kernel_matmul *m,             \
                                                        uint32_t panel, uint32_t x_row)            \
    {                                                                                              \
        body_panel(kind, cols, m, panel, x_row);                                                   \
    }

typedef void body_panel_fn(const struct kernel_matmul *m, uint32_t panel, uint32_t x_row);

VEC_INLINE void body_panels(const struct kernel_matmul *m, uint32_t begin, uint32_t end,
                            body_panel_fn *const instances[VEC_COLS_MAX])
{
    uint32_t fit = BODY_X_BYTES / (m->blocks * QUANT_BLOCK_ITEMS) / VEC_COLS_MAX * VEC_COLS_MAX;
    uint32_t slab = fit > VEC_COLS_MAX ? fit : VEC_COLS_MAX;
    for (uint32_t first = 0; first < m->x.n; first += slab) {
        uint32_t last = m->x.n - first < slab ? m->x.n : first + slab;
        for (uint32_t panel = begin; panel < end; panel++) {
            for (uint32_t i = first; i < last; i += VEC_COLS_MAX) {
                uint32_t cols = last - i < VEC_COLS_MAX ? last - i : VEC_COLS_MAX;
                instances[cols - 1](m, panel, i);
            }
        }
    }
}

#if VEC_COLS_MAX == 8
#define BODY_PANEL_KIND(kind, name)                                                                \
    BODY_PANEL_INSTANCE(kind, name, 1)                                                             \
    BODY_PANEL_INSTANCE(kind, name, 2)                                                             \
    BODY_PANEL_INSTANCE(kind, name, 3)                                                             \
    BODY_PANEL_INSTANCE(kind, name, 4)                                                             \
    BODY_PANEL_INSTANCE(kind, name, 5)                                                             \
    BODY_PANEL_INSTANCE(kind, name, 6)                                                             \
    BODY_PANEL_INSTANCE(kind, name, 7)                                                             \
    BODY_PANEL_INSTANCE(kind, name, 8)                                                             \
    static void name(const struct kernel_matmul *m, uint32_t begin, uint32_t end)                  \
    {                                                                                              \
        static body_panel_fn *const instances[] = {name##_1, name##_2, name##_3, name##_4,         \
                                                   name##_5, name##_6, name##_7, name##_8};        \
        body_panels(m, begin, end, instances);                                                     \
    }
#elif VEC_COLS_MAX == 4
#define BODY_PANEL_KIND(kind, name)                                                                \
    BODY_PANEL_INSTANCE(kind, name, 1)                                                             \
    BODY_PANEL_INSTANCE(kind, name, 2)                                                             \
    BODY_PANEL_INSTANCE(kind, name, 3)                                                             \
    BODY_PANEL_INSTANCE(kind, name, 4)                                                             \
    static void name(const struct kernel_matmul *m, uint32_t begin, uint32_t end)                  \
    {                                                                                              \
        static body_panel_fn *const instances[] = {name##_1, name##_2, name##_3, name##_4};        \
        body_panels(m, begin, end, instances);                                                     \
    }
#else
#error "write the instances for this number of columns"
#endif

BODY_PANEL_KIND(PANEL_KIND_Q4_0, body_panels_q4_0)
BODY_PANEL_KIND(PANEL_KIND_Q4_1, body_panels_q4_1)
BODY_PANEL_KIND(PANEL_KIND_Q8_0, body_panels_q8_0)

/* Float types: one row of the matrix against `cols` rows of x, 32 lanes along the columns. */

#define BODY_VECS ((int)(32 / VEC_LANES))

VEC_INLINE size_t body_float_bytes(const enum quant_type type)
{
    return type == QUANT_TYPE_F32 ? 4 : 2;
}

VEC_INLINE vec_f body_float_load(const enum quant_type type, const uint8_t *row, uint32_t k)
{
    const uint8_t *p = row + body_float_bytes(type) * k;
    return type == QUANT_TYPE_F32   ? vec_f_load((const float *)(const void *)p)
           : type == QUANT_TYPE_F16 ? vec_f_load_half(p)
                                    : vec_f_load_bfloat(p);
}

VEC_INLINE float body_float_element(const enum quant_type type, const uint8_t *row, uint32_t k)
{
    const uint8_t *p = row + body_float_bytes(type) * k;
    float x;
    uint16_t half;
    if (type == QUANT_TYPE_F32) {
        memcpy(&x, p, sizeof x);
        return x;
    }
    memcpy(&half, p, sizeof half);
    return type == QUANT_TYPE_F16 ? half_to_float(half) : bfloat_to_float(half);
}

VEC_INLINE void body_row(const enum quant_type type, const int cols, const struct kernel_matmul *m,
                         uint32_t row, uint32_t x_row)
{
    const uint8_t *w = m->data + (size_t)row * m->cols * body_float_bytes(type);
    const float *x = m->x.floats + (size_t)x_row * m->x.float_stride;
    float partial[VEC_DOT_COLS][SUM_GROUPS_MAX];
    for (uint32_t g = 0; g < m->groups; g++) {
        uint32_t k = sum_group_begin(g, m->groups, m->blocks) * QUANT_BLOCK_ITEMS;
        uint32_t end = sum_group_begin(g + 1, m->groups, m->blocks) * QUANT_BLOCK_ITEMS;
        end = end < m->cols ? end : m->cols;
        vec_f acc[VEC_DOT_COLS][BODY_VECS];
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            BODY_UNROLL
            for (int v = 0; v < BODY_VECS; v++)
                acc[c][v] = vec_f_set(0.0f);
        }
        for (; k + 32 <= end; k += 32) {
            BODY_UNROLL
            for (int v = 0; v < BODY_VECS; v++) {
                uint32_t at = k + (uint32_t)v * VEC_LANES;
                vec_f wv = body_float_load(type, w, at);
                BODY_UNROLL
                for (int c = 0; c < cols; c++)
                    acc[c][v] = vec_f_fma(wv, vec_f_load(x + (size_t)c * m->x.float_stride + at),
                                          acc[c][v]);
            }
        }
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            float lanes[32];
            BODY_UNROLL
            for (int v = 0; v < BODY_VECS; v++)
                vec_f_store(lanes + v * VEC_LANES, acc[c][v]);
            /* A short last block touches only the lanes it has elements for. */
            for (uint32_t t = k; t < end; t++)
                lanes[t - k] = fmaf(body_float_element(type, w, t),
                                    x[(size_t)c * m->x.float_stride + t], lanes[t - k]);
            partial[c][g] = sum_lane_tree(lanes, 32);
        }
    }
    for (int c = 0; c < cols; c++) {
        sum_group_tree(partial[c], m->groups, 1);
        float *out = m->out + (size_t)(x_row + (uint32_t)c) * m->out_stride + row;
        float result = m->bias != NULL ? partial[c][0] + m->bias[row] : partial[c][0];
        *out = m->accumulate ? *out + result : result;
    }
}

VEC_INLINE void body_rows(const enum quant_type type, const struct kernel_matmul *m, uint32_t begin,
                          uint32_t end)
{
    uint32_t fit = BODY_X_BYTES / 4 / m->cols / VEC_DOT_COLS * VEC_DOT_COLS;
    uint32_t slab = fit > VEC_DOT_COLS ? fit : VEC_DOT_COLS;
    for (uint32_t first = 0; first < m->x.n; first += slab) {
        uint32_t last = m->x.n - first < slab ? m->x.n : first + slab;
        for (uint32_t row = begin; row < end; row++) {
            uint32_t i = first;
            for (; i + VEC_DOT_COLS <= last; i += VEC_DOT_COLS)
                body_row(type, VEC_DOT_COLS, m, row, i);
            for (; i < last; i++)
                body_row(type, 1, m, row, i);
        }
    }
}

static void body_matmul_rows(const struct kernel_matmul *m, uint32_t begin, uint32_t end)
{
    if (m->type == QUANT_TYPE_F32)
        body_rows(QUANT_TYPE_F32, m, begin, end);
    else if (m->type == QUANT_TYPE_F16)
        body_rows(QUANT_TYPE_F16, m, begin, end);
    else
        body_rows(QUANT_TYPE_BF16, m, begin, end);
}
