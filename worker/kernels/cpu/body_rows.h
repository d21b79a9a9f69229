/*
 * body_rows.h - operations on one row of activations, included by kernel_bodies.h. Mostly plain
 * loops without branches, which the compiler turns into the instruction set's vectors; that never
 * changes a bit, since it may not reorder floating-point sums.
 */

static void body_quantize_block(const float *restrict x, int8_t *restrict q, float *ret_scale,
                                float *ret_sum, int32_t *ret_pair)
{
    uint32_t amax_bits = 0;
    for (int j = 0; j < 32; j++) {
        uint32_t magnitude = half_float_bits(x[j]) & 0x7fffffffu;
        amax_bits = magnitude > amax_bits ? magnitude : amax_bits;
    }
    float inverse;
    nm_quantize_scale(amax_bits, ret_scale, &inverse);
    int32_t rounded[32];
    int32_t halves[2] = {0, 0};
    for (int j = 0; j < 32; j++) {
        float scaled = x[j] * inverse;
        float whole = rintf(scaled);
        rounded[j] = (int32_t)(scaled == scaled ? whole : 0.0f);
    }
    for (int j = 0; j < 16; j++) {
        halves[0] += rounded[j];
        halves[1] += rounded[j + 16];
    }
    for (int j = 0; j < 32; j++)
        q[j] = (int8_t)rounded[j];
    *ret_sum = *ret_scale * (float)(halves[0] + halves[1]);
    *ret_pair = (int32_t)(((uint32_t)halves[0] & 0xffffu) | (uint32_t)halves[1] << 16);
}

static void body_quantize(const float *x, uint32_t cols, int8_t *q, float *scales, float *sums,
                          int32_t *pairs)
{
    uint32_t full = cols / QUANT_BLOCK_ITEMS;
    for (uint32_t b = 0; b < full; b++)
        body_quantize_block(x + (size_t)b * QUANT_BLOCK_ITEMS, q + (size_t)b * QUANT_BLOCK_ITEMS,
                            scales + b, sums + b, pairs + b);
    uint32_t rest = cols % QUANT_BLOCK_ITEMS;
    if (rest > 0) {
        float filled[QUANT_BLOCK_ITEMS] = {0};
        memcpy(filled, x + (size_t)full * QUANT_BLOCK_ITEMS, rest * sizeof filled[0]);
        body_quantize_block(filled, q + (size_t)full * QUANT_BLOCK_ITEMS, scales + full,
                            sums + full, pairs + full);
    }
}

/* What a row is multiplied by before the gains. */
static float body_norm_factor(const float *x, uint32_t cols, float eps)
{
    enum { VECS = 16 / VEC_LANES };
    vec_f acc[VECS];
    for (int v = 0; v < VECS; v++)
        acc[v] = vec_f_set(0.0f);
    uint32_t k = 0;
    for (; k + 16 <= cols; k += 16) {
        BODY_UNROLL
        for (int v = 0; v < VECS; v++) {
            vec_f xv = vec_f_load(x + k + v * VEC_LANES);
            acc[v] = vec_f_fma(xv, xv, acc[v]);
        }
    }
    if (k < cols) {
        float lanes[16];
        for (int v = 0; v < VECS; v++)
            vec_f_store(lanes + v * VEC_LANES, acc[v]);
        for (; k < cols; k++)
            lanes[k % 16] = fmaf(x[k], x[k], lanes[k % 16]);
        for (int v = 0; v < VECS; v++)
            acc[v] = vec_f_load(lanes + v * VEC_LANES);
    }
    float mean = vec_f_sum16(acc) / (float)cols;
    return 1.0f / sqrtf(mean + eps);
}

static void body_norm(const float *x, uint32_t cols, const float *gain, float eps,
                      float *restrict y)
{
    float r = body_norm_factor(x, cols, eps);
    for (uint32_t k = 0; k < cols; k++)
        y[k] = x[k] * r * gain[k];
}

static void body_norm_add(const float *x, uint32_t cols, const float *gain, float eps,
                          float *restrict y)
{
    float r = body_norm_factor(x, cols, eps);
    for (uint32_t k = 0; k < cols; k++)
        y[k] = y[k] + x[k] * r * gain[k];
}

static void body_join(const struct join_job *job, uint32_t x_row, uint32_t begin, uint32_t end)
{
    float *out = job->out + (size_t)x_row * job->out_stride;
    const float *onto = job->onto == NULL ? NULL : job->onto + (size_t)x_row * job->out_stride;
    if (job->n_parts == 1 && job->bias == NULL && onto == NULL) {
        memcpy(out + begin, job->part[0].at + x_row * job->part[0].stride + begin,
               (end - begin) * sizeof *out);
        return;
    }
    for (uint32_t at = begin; at < end; at += JOIN_COLS) {
        const uint32_t cols = end - at < JOIN_COLS ? end - at : JOIN_COLS;
        float sum[SUM_GROUPS_MAX][JOIN_COLS];
        for (uint32_t p = 0; p < job->n_parts; p++)
            memcpy(sum[p], job->part[p].at + x_row * job->part[p].stride + at,
                   cols * sizeof sum[p][0]);
        for (const struct sum_join *j = job->joins; j < job->joins + job->n_joins; j++) {
            for (uint32_t k = 0; k < cols; k++)
                sum[j->into][k] = sum[j->into][k] + sum[j->from][k];
        }
        if (job->bias != NULL) {
            for (uint32_t k = 0; k < cols; k++)
                sum[0][k] = sum[0][k] + job->bias[at + k];
        }
        if (onto != NULL) {
            for (uint32_t k = 0; k < cols; k++)
                sum[0][k] = onto[at + k] + sum[0][k];
        }
        memcpy(out + at, sum[0], cols * sizeof sum[0][0]);
    }
}

static void body_softcap(float *x, size_t count, float cap)
{
    for (size_t k = 0; k < count; k++)
        x[k] = cap * nm_tanh(x[k] / cap);
}

static void body_gate(const float *gate, const float *up, uint32_t cols, enum activation activation,
                      float *restrict y)
{
    if (activation == ACTIVATION_SILU) {
        for (uint32_t k = 0; k < cols; k++)
            y[k] = nm_silu(gate[k]) * up[k];
    } else {
        for (uint32_t k = 0; k < cols; k++)
            y[k] = nm_gelu_tanh(gate[k]) * up[k];
    }
}

static void body_rotate(float *restrict head, const float *restrict table, uint32_t rope_dim,
                        enum rope_style style)
{
    uint32_t pairs = rope_dim / 2;
    if (style == ROPE_STYLE_PAIRS) {
        for (uint32_t i = 0; i < pairs; i++) {
            float x = head[2 * i];
            float y = head[2 * i + 1];
            head[2 * i] = fmaf(x, table[2 * i], -(y * table[2 * i + 1]));
            head[2 * i + 1] = fmaf(y, table[2 * i], x * table[2 * i + 1]);
        }
        return;
    }
    for (uint32_t i = 0; i < pairs; i++) {
        float x = head[i];
        float y = head[i + pairs];
        head[i] = fmaf(x, table[2 * i], -(y * table[2 * i + 1]));
        head[i + pairs] = fmaf(y, table[2 * i], x * table[2 * i + 1]);
    }
}

static void body_scale(const float *restrict x, uint32_t n, float factor, float *restrict y)
{
    for (uint32_t k = 0; k < n; k++)
        y[k] = x[k] * factor;
}

static void body_halves(const float *x, uint32_t n, uint16_t *ret_halves)
{
    uint32_t k = 0;
    for (; k + VEC_LANES <= n; k += VEC_LANES)
        vec_f_store_half(ret_halves + k, vec_f_load(x + k));
    for (; k < n; k++)
        ret_halves[k] = half_from_float(x[k]);
}
