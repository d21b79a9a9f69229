/*
 * body_floats.h - the matrix product of F32, F16 and BF16, included by kernel_bodies.h: one row of
 * the matrix against `cols` rows of x, 32 lanes along the columns.
 */

/* How much of x is walked again for each row: a share of a second-level cache. */
#define BODY_X_BYTES (192u << 10)

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
