/*
 * body_floats.h - the matrix product of F32, F16 and BF16, included by kernel_bodies.h: 32 lanes
 * along the columns.
 *
 * A few rows of x take a row of the matrix at a time, all lanes at once: reading it is what takes
 * the time. More of them take three rows at a time, a vector of lanes after the other, so that
 * every vector that is loaded meets three or four others. The lanes' sums are the same.
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

/* One element of the result, or of a node, from its groups' sums. */
static void body_row_store(const struct kernel_matmul *m, uint32_t row, uint32_t x_row,
                           uint32_t node, float *partial)
{
    sum_group_tree(partial, m->nodes[node].count, 1);
    float *out = m->out + node * m->node_stride + (size_t)x_row * m->out_stride + row;
    float result = m->bias != NULL ? partial[0] + m->bias[row] : partial[0];
    *out = m->accumulate ? *out + result : result;
}

#define BODY_ROW_COLS 3 /* at most, with all lanes in registers */

VEC_INLINE void body_row(const enum quant_type type, const int cols, const struct kernel_matmul *m,
                         uint32_t row, uint32_t x_row, uint32_t node)
{
    const uint8_t *w = m->data + (size_t)row * m->cols * body_float_bytes(type);
    const float *x = m->x.floats + (size_t)x_row * m->x.float_stride;
    const uint32_t first = m->nodes[node].first;
    float partial[BODY_ROW_COLS][SUM_GROUPS_MAX];
    for (uint32_t g = 0; g < m->nodes[node].count; g++) {
        uint32_t k = kernel_group_begin(m, first + g) * QUANT_BLOCK_ITEMS;
        uint32_t end = kernel_group_begin(m, first + g + 1) * QUANT_BLOCK_ITEMS;
        end = end < m->cols ? end : m->cols;
        vec_f acc[BODY_ROW_COLS][BODY_VECS];
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
    for (int c = 0; c < cols; c++)
        body_row_store(m, row, x_row + (uint32_t)c, node, partial[c]);
}

/* Rows of the matrix and of x that meet at once, and columns between two visits of a sum. */
#define BODY_TILE_ROWS  3
#define BODY_TILE_COLS  4
#define BODY_TILE_ITEMS 512u

/* The lanes of whole blocks k .. end - 1. */
VEC_INLINE void body_tile_lanes(const enum quant_type type, const int rows,
                                const struct kernel_matmul *m, const uint8_t *w, const float *x,
                                uint32_t k, uint32_t end, float (*lanes)[BODY_TILE_COLS][32])
{
    const size_t w_stride = m->cols * body_float_bytes(type);
    for (uint32_t from = k; from < end; from += BODY_TILE_ITEMS) {
        uint32_t to = end - from < BODY_TILE_ITEMS ? end : from + BODY_TILE_ITEMS;
        for (uint32_t v = 0; v < 32; v += VEC_LANES) {
            vec_f acc[BODY_TILE_ROWS][BODY_TILE_COLS];
            BODY_UNROLL
            for (int r = 0; r < rows; r++) {
                BODY_UNROLL
                for (int c = 0; c < BODY_TILE_COLS; c++)
                    acc[r][c] = vec_f_load(lanes[r][c] + v);
            }
            for (uint32_t at = from + v; at < to; at += 32) {
                vec_f wv[BODY_TILE_ROWS];
                BODY_UNROLL
                for (int r = 0; r < rows; r++)
                    wv[r] = body_float_load(type, w + (size_t)r * w_stride, at);
                BODY_UNROLL
                for (int c = 0; c < BODY_TILE_COLS; c++) {
                    vec_f xv = vec_f_load(x + (size_t)c * m->x.float_stride + at);
                    BODY_UNROLL
                    for (int r = 0; r < rows; r++)
                        acc[r][c] = vec_f_fma(wv[r], xv, acc[r][c]);
                }
            }
            BODY_UNROLL
            for (int r = 0; r < rows; r++) {
                BODY_UNROLL
                for (int c = 0; c < BODY_TILE_COLS; c++)
                    vec_f_store(lanes[r][c] + v, acc[r][c]);
            }
        }
    }
}

VEC_INLINE void body_tile(const enum quant_type type, const int rows, const struct kernel_matmul *m,
                          uint32_t row, uint32_t x_row, uint32_t node)
{
    const size_t w_stride = m->cols * body_float_bytes(type);
    const uint8_t *w = m->data + row * w_stride;
    const float *x = m->x.floats + (size_t)x_row * m->x.float_stride;
    const uint32_t first = m->nodes[node].first;
    float partial[BODY_TILE_ROWS][BODY_TILE_COLS][SUM_GROUPS_MAX];
    for (uint32_t g = 0; g < m->nodes[node].count; g++) {
        uint32_t begin = kernel_group_begin(m, first + g) * QUANT_BLOCK_ITEMS;
        uint32_t end = kernel_group_begin(m, first + g + 1) * QUANT_BLOCK_ITEMS;
        end = end < m->cols ? end : m->cols;
        uint32_t whole = end - (end - begin) % 32;
        _Alignas(64) float lanes[BODY_TILE_ROWS][BODY_TILE_COLS][32] = {0};
        body_tile_lanes(type, rows, m, w, x, begin, whole, lanes);
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < BODY_TILE_COLS; c++) {
                /* A short last block touches only the lanes it has elements for. */
                for (uint32_t k = whole; k < end; k++)
                    lanes[r][c][k - whole] =
                        fmaf(body_float_element(type, w + (size_t)r * w_stride, k),
                             x[(size_t)c * m->x.float_stride + k], lanes[r][c][k - whole]);
                partial[r][c][g] = sum_lane_tree(lanes[r][c], 32);
            }
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < BODY_TILE_COLS; c++)
            body_row_store(m, row + (uint32_t)r, x_row + (uint32_t)c, node, partial[r][c]);
    }
}

VEC_INLINE void body_rows(const enum quant_type type, const struct kernel_matmul *m, uint32_t begin,
                          uint32_t end, uint32_t node)
{
    uint32_t fit = BODY_X_BYTES / 4 / m->cols / BODY_TILE_COLS * BODY_TILE_COLS;
    uint32_t slab = fit > BODY_TILE_COLS ? fit : BODY_TILE_COLS;
    for (uint32_t first = 0; first < m->x.n; first += slab) {
        uint32_t last = m->x.n - first < slab ? m->x.n : first + slab;
        uint32_t tiled = last - (last - first) % BODY_TILE_COLS;
        for (uint32_t row = begin; row < end; row += BODY_TILE_ROWS) {
            uint32_t rows = end - row < BODY_TILE_ROWS ? end - row : BODY_TILE_ROWS;
            for (uint32_t i = first; i < tiled; i += BODY_TILE_COLS) {
                if (rows == BODY_TILE_ROWS)
                    body_tile(type, BODY_TILE_ROWS, m, row, i, node);
                else
                    for (uint32_t r = row; r < end; r++)
                        body_tile(type, 1, m, r, i, node);
            }
            for (uint32_t r = row; r < row + rows; r++) {
                if (last - tiled == 3)
                    body_row(type, 3, m, r, tiled, node);
                else if (last - tiled == 2)
                    body_row(type, 2, m, r, tiled, node);
                else if (last - tiled == 1)
                    body_row(type, 1, m, r, tiled, node);
            }
        }
    }
}

static void body_matmul_rows(const struct kernel_matmul *m, uint32_t begin, uint32_t end)
{
    for (uint32_t node = 0; node < m->n_nodes; node++) {
        if (m->type == QUANT_TYPE_F32)
            body_rows(QUANT_TYPE_F32, m, begin, end, node);
        else if (m->type == QUANT_TYPE_F16)
            body_rows(QUANT_TYPE_F16, m, begin, end, node);
        else
            body_rows(QUANT_TYPE_BF16, m, begin, end, node);
    }
}
