/*
 * body_attention.h - one page of K and V against a few queries, included by kernel_bodies.h.
 *
 * Scores and weighted values are the same loop: 32 lanes of sums per query, and at each step one
 * row of 32 cells times one factor per query. For scores the lanes are positions, a step is an
 * element of the head, the factor q; for values the lanes are elements, a step is a position, the
 * factor its weight. No sum crosses lanes, and a row is loaded once for all queries.
 */

/* A strip of 32 cells wide: row `step` begins `stride` cells after the row before it. */
struct body_strip {
    const void *cells;
    size_t stride;
    /* q8 only. K: 32 scales per block of 32 steps, one a lane; V: one scale a step. */
    const float *scales;
    size_t scale_stride;
    intptr_t ahead; /* bytes from here to what will be read next; 0: nothing */
};

enum body_source { BODY_SOURCE_F32, BODY_SOURCE_F16, BODY_SOURCE_Q8_K, BODY_SOURCE_Q8_V };

VEC_INLINE vec_f body_strip_load(const enum body_source source, const struct body_strip *strip,
                                 uint32_t step, int v)
{
    size_t at = step * strip->stride + (size_t)(v * VEC_LANES);
    if (source == BODY_SOURCE_F32)
        return vec_f_load((const float *)strip->cells + at);
    if (source == BODY_SOURCE_F16)
        return vec_f_load_half((const uint16_t *)strip->cells + at);
    vec_f q = vec_f_load_i8((const int8_t *)strip->cells + at);
    if (source == BODY_SOURCE_Q8_K)
        return vec_f_mul(vec_f_load(strip->scales + step / 32 * 32 + v * VEC_LANES), q);
    return vec_f_mul(vec_f_set(strip->scales[step * strip->scale_stride]), q);
}

/* The cells of a step in the page that is read next, into the second-level cache: a step at a time,
 * so that fetching and computing go on side by side. */
VEC_INLINE void body_strip_fetch(const enum body_source source, const struct body_strip *strip,
                                 uint32_t step)
{
    if (source == BODY_SOURCE_F32)
        return;
    const size_t width = source == BODY_SOURCE_F16 ? 2 : 1;
    __builtin_prefetch((const uint8_t *)strip->cells + strip->ahead + step * strip->stride * width,
                       0, 2);
}

VEC_INLINE void body_strip_sum(const enum body_source source, const int queries,
                               const struct body_strip *strip, uint32_t begin, uint32_t end,
                               const float *const *factors, float *const *sums)
{
    vec_f acc[VEC_QUERIES_MAX][BODY_VECS];
    BODY_UNROLL
    for (int i = 0; i < queries; i++) {
        BODY_UNROLL
        for (int v = 0; v < BODY_VECS; v++)
            acc[i][v] = vec_f_load(sums[i] + v * VEC_LANES);
    }
    for (uint32_t step = begin; step < end; step++) {
        /* With three queries of four vectors the sums, three factors and one vector of the row are
         * all 16 registers of AVX2. */
        vec_f factor[VEC_QUERIES_MAX];
        body_strip_fetch(source, strip, step);
        BODY_UNROLL
        for (int i = 0; i < queries; i++)
            factor[i] = vec_f_set(factors[i][step]);
        BODY_UNROLL
        for (int v = 0; v < BODY_VECS; v++) {
            vec_f row = body_strip_load(source, strip, step, v);
            BODY_UNROLL
            for (int i = 0; i < queries; i++)
                acc[i][v] = vec_f_fma(factor[i], row, acc[i][v]);
        }
    }
    BODY_UNROLL
    for (int i = 0; i < queries; i++) {
        BODY_UNROLL
        for (int v = 0; v < BODY_VECS; v++)
            vec_f_store(sums[i] + v * VEC_LANES, acc[i][v]);
    }
}

VEC_INLINE void body_strip_source(const enum body_source source, int queries,
                                  const struct body_strip *strip, uint32_t begin, uint32_t end,
                                  const float *const *factors, float *const *sums)
{
    switch (queries) {
    case 1:
        body_strip_sum(source, 1, strip, begin, end, factors, sums);
        break;
    case 2:
        body_strip_sum(source, 2, strip, begin, end, factors, sums);
        break;
    case 3:
        body_strip_sum(source, 3, strip, begin, end, factors, sums);
        break;
#if VEC_QUERIES_MAX > 3
    case 4:
        body_strip_sum(source, 4, strip, begin, end, factors, sums);
        break;
    case 5:
        body_strip_sum(source, 5, strip, begin, end, factors, sums);
        break;
    case 6:
        body_strip_sum(source, 6, strip, begin, end, factors, sums);
        break;
    case 7:
        body_strip_sum(source, 7, strip, begin, end, factors, sums);
        break;
    case 8:
        body_strip_sum(source, 8, strip, begin, end, factors, sums);
        break;
#endif
    default:
        __builtin_unreachable();
    }
}

static void body_strip(enum body_source source, int queries, const struct body_strip *strip,
                       uint32_t begin, uint32_t end, const float *const *factors,
                       float *const *sums)
{
    if (source == BODY_SOURCE_F32)
        body_strip_source(BODY_SOURCE_F32, queries, strip, begin, end, factors, sums);
    else if (source == BODY_SOURCE_F16)
        body_strip_source(BODY_SOURCE_F16, queries, strip, begin, end, factors, sums);
    else if (source == BODY_SOURCE_Q8_K)
        body_strip_source(BODY_SOURCE_Q8_K, queries, strip, begin, end, factors, sums);
    else
        body_strip_source(BODY_SOURCE_Q8_V, queries, strip, begin, end, factors, sums);
}

/* The same rows as floats, for pages that many queries read. */
VEC_INLINE void body_strip_expand(const enum body_source source, const struct body_strip *strip,
                                  uint32_t steps, float *room, size_t room_stride)
{
    for (uint32_t step = 0; step < steps; step++) {
        body_strip_fetch(source, strip, step);
        for (int v = 0; v < BODY_VECS; v++)
            vec_f_store(room + step * room_stride + v * VEC_LANES,
                        body_strip_load(source, strip, step, v));
    }
}

/* Scores become weights: masked, less the maximum, exponentiated; lanes outside begin .. end - 1
 * and scores that are no number weigh 0. */
static void body_softmax(struct kernel_query *query, float softcap)
{
    enum { HALF = BODY_VECS / 2 };
    const float minus_infinity = -half_bits_float(0x7f800000u);
    float *restrict s = query->scores;
    if (softcap > 0.0f) {
        for (int j = 0; j < 32; j++)
            s[j] = softcap * nm_tanh(s[j] / softcap);
    }
    if (query->begin > 0 || query->end < 32) {
        const int begin = (int)query->begin;
        const int end = (int)query->end;
        for (int j = 0; j < 32; j++)
            s[j] = j >= begin && j < end ? s[j] : minus_infinity;
    }
    vec_f t[HALF];
    BODY_UNROLL
    for (int v = 0; v < HALF; v++) {
        const vec_f none = vec_f_set(minus_infinity); /* takes the place of what is no number */
        float *low = s + v * VEC_LANES;
        vec_f a = vec_f_max(vec_f_load(low), none);
        vec_f b = vec_f_max(vec_f_load(low + 16), none);
        vec_f_store(low, a);
        vec_f_store(low + 16, b);
        t[v] = vec_f_max(a, b);
    }
    const float max = vec_f_max16(t);
    for (int j = 0; j < 32; j++)
        s[j] = nm_exp(s[j] - max);
    /* Weights are never -0, so adding those of masked lanes changes nothing. */
    BODY_UNROLL
    for (int v = 0; v < HALF; v++)
        t[v] = vec_f_add(vec_f_load(s + v * VEC_LANES), vec_f_load(s + 16 + v * VEC_LANES));
    query->max = max;
    query->sum = vec_f_sum16(t);
}

/* Weighted values of up to VEC_QUERIES_MAX queries over one strip. A slot outside a query's range
 * must not be touched (0 * infinity; -0 + 0), so what the ranges have in common is summed together
 * and the ends one by one, ascending. */
static void body_values(enum body_source source, int queries, const struct body_strip *strip,
                        const struct kernel_query *query, uint32_t column)
{
    const float *factors[VEC_QUERIES_MAX];
    float *sums[VEC_QUERIES_MAX];
    uint32_t begin = 0;
    uint32_t end = 32;
    for (int i = 0; i < queries; i++) {
        factors[i] = query[i].scores;
        sums[i] = query[i].values + column;
        begin = query[i].begin > begin ? query[i].begin : begin;
        end = query[i].end < end ? query[i].end : end;
    }
    if (begin >= end) {
        for (int i = 0; i < queries; i++)
            body_strip(source, 1, strip, query[i].begin, query[i].end, factors + i, sums + i);
        return;
    }
    for (int i = 0; i < queries; i++) {
        if (query[i].begin < begin)
            body_strip(source, 1, strip, query[i].begin, begin, factors + i, sums + i);
    }
    body_strip(source, queries, strip, begin, end, factors, sums);
    for (int i = 0; i < queries; i++) {
        if (query[i].end > end)
            body_strip(source, 1, strip, end, query[i].end, factors + i, sums + i);
    }
}

static void body_attention_page(const struct kernel_page *page, struct kernel_query *queries,
                                uint32_t n_queries)
{
    const bool q8 = page->type == KV_TYPE_Q8_0;
    enum body_source k_source = q8 ? BODY_SOURCE_Q8_K : BODY_SOURCE_F16;
    enum body_source v_source = q8 ? BODY_SOURCE_Q8_V : BODY_SOURCE_F16;
    struct body_strip k = {
        .cells = page->k, .stride = 32, .scales = page->k_scales, .ahead = page->ahead};
    const bool expand = n_queries > VEC_QUERIES_MAX;
    if (expand) {
        if (q8)
            body_strip_expand(BODY_SOURCE_Q8_K, &k, page->dim_k, page->k_room, 32);
        else
            body_strip_expand(BODY_SOURCE_F16, &k, page->dim_k, page->k_room, 32);
        k.cells = page->k_room;
        k_source = BODY_SOURCE_F32;
    }
    for (uint32_t i = 0; i < n_queries; i += VEC_QUERIES_MAX) {
        uint32_t n = n_queries - i < VEC_QUERIES_MAX ? n_queries - i : VEC_QUERIES_MAX;
        const float *factors[VEC_QUERIES_MAX];
        float *sums[VEC_QUERIES_MAX];
        for (uint32_t j = 0; j < n; j++) {
            factors[j] = queries[i + j].q;
            sums[j] = queries[i + j].scores;
            memset(sums[j], 0, 32 * sizeof(float));
        }
        body_strip(k_source, (int)n, &k, 0, page->dim_k, factors, sums);
    }
    for (uint32_t i = 0; i < n_queries; i++) {
        body_softmax(&queries[i], page->softcap);
        memset(queries[i].values, 0, page->dim_v_padded * sizeof(float));
    }
    for (uint32_t column = 0; column < page->dim_v_padded; column += 32) {
        struct body_strip v = {.stride = page->dim_v_padded, .ahead = page->ahead};
        v.scale_stride = page->dim_v_padded / 32;
        if (q8) {
            v.cells = (const int8_t *)page->v + column;
            v.scales = page->v_scales + column / 32;
        } else {
            v.cells = (const uint16_t *)page->v + column;
        }
        if (expand) {
            if (q8)
                body_strip_expand(BODY_SOURCE_Q8_V, &v, 32, page->v_room, 32);
            else
                body_strip_expand(BODY_SOURCE_F16, &v, 32, page->v_room, 32);
            v.cells = page->v_room;
            v.stride = 32;
            v_source = BODY_SOURCE_F32;
        }
        for (uint32_t i = 0; i < n_queries; i += VEC_QUERIES_MAX) {
            uint32_t n = n_queries - i < VEC_QUERIES_MAX ? n_queries - i : VEC_QUERIES_MAX;
            body_values(v_source, (int)n, &v, queries + i, column);
        }
    }
}

static void body_attention_weights(const float *restrict x, const float *restrict top, uint32_t n,
                                   float *restrict ret_weights)
{
    for (uint32_t i = 0; i < n; i++)
        ret_weights[i] = nm_exp(x[i] - top[i]);
}

static void body_attention_merge(float *sum, float *restrict values, float a, float page_sum,
                                 const float *restrict page_values, float b, uint32_t n)
{
    *sum = fmaf(page_sum, b, *sum * a);
    for (uint32_t d = 0; d < n; d++)
        values[d] = fmaf(page_values[d], b, values[d] * a);
}

static void body_attention_finish(const float *restrict values, float sum, uint32_t n,
                                  float *restrict y)
{
    for (uint32_t d = 0; d < n; d++)
        y[d] = values[d] / sum;
}
