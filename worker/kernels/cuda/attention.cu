/*
 * attention.cu - attention over pages: a step's last rows of long sequences (decode) and whole runs
 * of rows (prefill) with the same code, so that they agree.
 *
 * Work. A block has the queries of up to `tile_rows` rows that stand one behind another in a
 * sequence, times up to `tile_heads` query heads of one KV head: up to M queries that read the same
 * K and V. It walks the pages of these rows, ascending; each page is fetched into shared memory
 * while the one before it is computed (cp.async, two stages where they fit). Where there are few
 * rows and many pages, pages are shared out over blocks (`split_pages`), each leaves the partial
 * sums of its pages, and attention_merge.cu folds them in the same order. A page's partial sums
 * depend on nothing but the page and the query, and the fold is the same either way, so all of this
 * is free of choice (docs/numerics.md).
 *
 * Scores of a page: a lane is a position (two positions for large M, so that a q that was read
 * serves twice), a warp has M / 4 queries. The sum runs over dim_k in the lane; 16 bytes of K are
 * read at a time, q is broadcast. Maximum and sum are the warp's; where a lane has positions l and
 * l + 16 the sum's 16 lanes by slot are its 16 lanes. Values: a lane is an element of dim_v and has
 * it for M * COLS / 128 queries and NV such elements; the sum runs over positions. Partial and
 * running sums are registers.
 *
 * Bounds. Decode: the cache's bytes. A page of 128 + 128 elements in f16 is 16 KB, some 1,130
 * cycles of a multiprocessor's share of an H100's memory; four queries cost some 600 cycles of each
 * scheduler for it. Prefill: FP32 units, 2 * 32 * dim fmaf a page and query, since the definition
 * multiplies floats; and shared memory, a load of 16 bytes for each 5 to 6 fmaf.
 */
#include "worker/kernels/cuda/kernels.h"
#include "worker/kernels/cuda/quantize.h"

#define ATTENTION_THREADS 128

/* What is done with a page's partial sums of a query. */
enum attention_mode { ATTENTION_SKIP, ATTENTION_FIRST, ATTENTION_MERGE };

struct attention_fold {
    float a, b;
    uint32_t mode;
    uint32_t range; /* positions of the page: first | behind the last << 8 */
};

/* Where a query stands: positions first .. last. */
struct attention_query {
    uint32_t first, last;
};

/* ---- elements of 16 bytes -------------------------------------------------------------------- */

DEVICE_INLINE void attention_unpack(uint4 raw, float (&x)[8])
{
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = device_half_to_float((uint16_t)(words[i] & 0xffffu));
        x[2 * i + 1] = device_half_to_float((uint16_t)(words[i] >> 16));
    }
}

/* Signed bytes by way of 2^23: the byte is put, shifted to unsigned, into the mantissa of 8388608,
 * and what is too much is taken away. Exact, and the conversion unit is not asked. */
DEVICE_INLINE void attention_unpack(uint4 raw, float (&x)[16])
{
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t shifted = words[i] ^ 0x80808080u;
        x[4 * i] = half_bits_float(__byte_perm(shifted, 0x4b000000u, 0x7440)) - 8388736.0f;
        x[4 * i + 1] = half_bits_float(__byte_perm(shifted, 0x4b000000u, 0x7441)) - 8388736.0f;
        x[4 * i + 2] = half_bits_float(__byte_perm(shifted, 0x4b000000u, 0x7442)) - 8388736.0f;
        x[4 * i + 3] = half_bits_float(__byte_perm(shifted, 0x4b000000u, 0x7443)) - 8388736.0f;
    }
}

DEVICE_INLINE void attention_load4(const float *at, float (&x)[4])
{
    const uint4 v = device_load16(at);
    x[0] = half_bits_float(v.x);
    x[1] = half_bits_float(v.y);
    x[2] = half_bits_float(v.z);
    x[3] = half_bits_float(v.w);
}

/* ---- shared memory --------------------------------------------------------------------------- */

/* Of the block's dynamic shared memory, in this order. */
struct attention_shared {
    uint8_t *pages;                /* [stages][head_bytes] */
    float *q;                      /* [M][dim_k up to 16], scaled, 0 behind its end */
    float *weights;                /* [M][32] */
    struct attention_fold *folds;  /* [M] */
    struct attention_query *where; /* [M] */
    uint32_t q_stride;
};

static __host__ __device__ __forceinline__ uint32_t attention_q_stride(uint32_t dim_k)
{
    return (dim_k + 15) / 16 * 16;
}

static __host__ __device__ __forceinline__ uint32_t attention_shared_bytes(uint32_t stages,
                                                                           uint32_t head_bytes,
                                                                           uint32_t queries,
                                                                           uint32_t dim_k)
{
    return stages * head_bytes + queries * (attention_q_stride(dim_k) * 4 + 32 * 4 +
                                            (uint32_t)sizeof(struct attention_fold) +
                                            (uint32_t)sizeof(struct attention_query));
}

DEVICE_INLINE struct attention_shared attention_carve(uint8_t *memory, uint32_t stages,
                                                      uint32_t queries, const struct cuda_kv &kv)
{
    struct attention_shared s;
    s.q_stride = attention_q_stride(kv.dim_k);
    s.pages = memory;
    s.q = reinterpret_cast<float *>(s.pages + stages * kv.head_bytes);
    s.weights = s.q + queries * s.q_stride;
    s.folds = reinterpret_cast<struct attention_fold *>(s.weights + queries * 32);
    s.where = reinterpret_cast<struct attention_query *>(s.folds + queries);
    return s;
}

/* ---- a tile ---------------------------------------------------------------------------------- */

/* The rows and heads of a block; the same for all its threads. */
struct attention_tile {
    uint32_t row;       /* of the step */
    uint32_t position;  /* of the first row */
    uint32_t head;      /* query head of the first query */
    uint32_t heads;     /* of a row */
    uint32_t n_queries; /* query m is row m / heads, head m % heads */
    uint32_t kv_head;
    uint32_t page_first, page_last; /* of the sequence, those of this block */
    uint32_t page_base;             /* first page of the tile's first row */
    const uint32_t *pages;
};

DEVICE_INLINE uint32_t attention_first(uint32_t position, uint32_t window)
{
    return window > 0 && position >= window ? position + 1 - window : 0;
}

/* False where the block has nothing to do: its row is not the first of a tile, its heads are those
 * of another shard, or its pages are behind the row's last. */
DEVICE_INLINE bool attention_tile_of(const struct cuda_attention &a, struct attention_tile &t)
{
    const uint32_t chunks = (a.group + a.tile_heads - 1) / a.tile_heads;
    /* The heads of this block, counted from the first that reads KV head 0, here or elsewhere. */
    const uint32_t group_first = blockIdx.y / chunks * a.group;
    const uint32_t chunk_first = group_first + blockIdx.y % chunks * a.tile_heads;
    const uint32_t heads_first = max(chunk_first, a.skip);
    const uint32_t heads_end =
        min(min(chunk_first + a.tile_heads, group_first + a.group), a.skip + a.n_heads);
    t.row = a.rows.first + blockIdx.x;
    const struct cuda_row where = a.rows.row[t.row];
    const uint32_t run_begin = max(where.run_begin, a.rows.first);
    const uint32_t run_end = min(where.run_end, a.rows.first + a.rows.count);
    if ((t.row - run_begin) % a.tile_rows != 0 || heads_first >= heads_end)
        return false;
    const uint32_t n_rows = min(a.tile_rows, run_end - t.row);
    t.position = where.position;
    t.kv_head = blockIdx.y / chunks;
    t.head = heads_first - a.skip;
    t.heads = heads_end - heads_first;
    t.n_queries = n_rows * t.heads;
    t.pages = a.rows.pages + where.pages_at;
    t.page_base = attention_first(where.position, a.window) / CUDA_KV_POSITIONS;
    t.page_first = t.page_base;
    t.page_last = (where.position + n_rows - 1) / CUDA_KV_POSITIONS;
    if (a.split_pages > 0) {
        t.page_first += blockIdx.z * a.split_pages;
        t.page_last = min(t.page_last, t.page_first + a.split_pages - 1);
    }
    return t.page_first <= t.page_last;
}

/* Queries, scaled, into shared memory. */
template <int M>
DEVICE_INLINE void attention_fetch_q(const struct cuda_attention &a, const struct attention_tile &t,
                                     const struct attention_shared &s)
{
    const uint32_t first_row = t.row - a.rows.first;
    for (uint32_t m = threadIdx.x / 32; m < M; m += ATTENTION_THREADS / 32) {
        const uint32_t row = m / t.heads;
        const uint32_t head = t.head + m % t.heads;
        const float *q = a.q + ((size_t)(first_row + row) * a.n_heads + head) * a.kv.dim_k;
        for (uint32_t d = threadIdx.x % 32; d < s.q_stride; d += 32)
            s.q[m * s.q_stride + d] = m < t.n_queries && d < a.kv.dim_k ? q[d] * a.scale : 0.0f;
        if (threadIdx.x % 32 == 0) {
            s.where[m].last = t.position + row;
            s.where[m].first = attention_first(t.position + row, a.window);
        }
    }
}

DEVICE_INLINE void attention_fetch_page(const struct cuda_kv &kv, uint32_t page, uint32_t head,
                                        uint8_t *to)
{
    const uint8_t *from = cuda_kv_head(&kv, page, head);
    for (uint32_t at = threadIdx.x * 16; at < kv.head_bytes; at += ATTENTION_THREADS * 16)
        device_async_copy16(to + at, from + at);
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* What shape M gives the scores: sets of lanes, each with queries of its own and all positions. */
template <int M> struct attention_sets {
    static constexpr int POSITIONS = M >= 16 ? 2 : 1; /* of a lane, 16 apart */
    static constexpr int LANES = 32 / POSITIONS;
    static constexpr int SETS = ATTENTION_THREADS / LANES;
    static constexpr int QUERIES = M / SETS; /* query i of set s is s + i * SETS */
};

/* Adds `N` elements of dim_k from `d` on to the scores; PER in 16 bytes of K. */
template <int M, int PER, bool Whole>
DEVICE_INLINE void
attention_score_piece(const struct cuda_kv &kv, const struct attention_shared &s, const uint8_t *k,
                      uint32_t d, uint32_t n_queries,
                      float (&score)[attention_sets<M>::QUERIES][attention_sets<M>::POSITIONS])
{
    typedef attention_sets<M> sets;
    const uint32_t lane = threadIdx.x % sets::LANES;
    const uint32_t set = threadIdx.x / sets::LANES;
    float x[sets::POSITIONS][PER];
#pragma unroll
    for (int p = 0; p < sets::POSITIONS; p++) {
        const uint32_t slot = lane + 16 * p;
        attention_unpack(device_load16(k + (d / PER * CUDA_KV_POSITIONS + slot) * 16), x[p]);
        if (PER == 16) {
            const float *scales = reinterpret_cast<const float *>(k + kv.k_scales_at);
            const float scale = scales[d / 32 * CUDA_KV_POSITIONS + slot];
#pragma unroll
            for (int j = 0; j < PER; j++)
                x[p][j] = scale * x[p][j];
        }
    }
#pragma unroll
    for (int i = 0; i < sets::QUERIES; i++) {
        const uint32_t m = set + i * sets::SETS;
        if (m >= n_queries)
            break;
        const float *q = s.q + m * s.q_stride + d;
#pragma unroll
        for (int j = 0; j < PER; j += 4) {
            float qj[4];
            attention_load4(q + j, qj);
#pragma unroll
            for (int l = 0; l < 4; l++) {
#pragma unroll
                for (int p = 0; p < sets::POSITIONS; p++) {
                    if (Whole || d + j + l < kv.dim_k)
                        score[i][p] = fmaf(qj[l], x[p][j + l], score[i][p]);
                }
            }
        }
    }
}

/* Score to weight, by the lanes of a set; leaves the page's maximum and sum in all of them. */
template <int M>
DEVICE_INLINE void attention_softmax(const struct cuda_attention &a, uint32_t begin, uint32_t end,
                                     float *weights, float (&score)[attention_sets<M>::POSITIONS],
                                     float *ret_max, float *ret_sum)
{
    typedef attention_sets<M> sets;
    const uint32_t lane = threadIdx.x % sets::LANES;
    const float minus_infinity = half_bits_float(0xff800000u);
    float top = minus_infinity;
#pragma unroll
    for (int p = 0; p < sets::POSITIONS; p++) {
        const uint32_t slot = lane + 16 * p;
        float x = score[p];
        if (a.softcap > 0.0f)
            x = a.softcap * nm_tanh(x / a.softcap);
        /* A score that is no number weighs nothing. */
        score[p] = x == x && slot >= begin && slot < end ? x : minus_infinity;
        top = score[p] > top ? score[p] : top;
    }
    for (int step = sets::LANES / 2; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, top, step);
        top = other > top ? other : top;
    }
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < sets::POSITIONS; p++) {
        const uint32_t slot = lane + 16 * p;
        const float e = slot >= begin && slot < end ? nm_exp(score[p] - top) : 0.0f;
        weights[slot] = e;
        sum = sum + e; /* weights are never -0, so what is left out adds nothing */
    }
    if (sets::POSITIONS == 1)
        sum = sum + __shfl_xor_sync(0xffffffffu, sum, 16);
    for (int step = 8; step > 0; step /= 2)
        sum = sum + __shfl_xor_sync(0xffffffffu, sum, step);
    *ret_max = top;
    *ret_sum = sum;
}

/* Where the partial sums of a split page go. */
DEVICE_INLINE size_t attention_partial_at(const struct cuda_attention &a,
                                          const struct attention_tile &t, uint32_t m, uint32_t page)
{
    const size_t row = t.row - a.rows.first + m / t.heads;
    const size_t head = t.head + m % t.heads;
    return (row * a.n_heads + head) * (a.splits * a.split_pages) + (page - t.page_base);
}

/* Scores of one page; then each query's page maximum and sum go into its fold. `top` and `total`
 * are the running ones of the set's queries, alike in all its lanes. */
template <int M, bool Q8>
DEVICE_INLINE void attention_scores(const struct cuda_attention &a, const struct attention_tile &t,
                                    const struct attention_shared &s, const uint8_t *k,
                                    uint32_t page, float (&top)[attention_sets<M>::QUERIES],
                                    float (&total)[attention_sets<M>::QUERIES])
{
    typedef attention_sets<M> sets;
    constexpr int PER = Q8 ? 16 : 8;
    const uint32_t lane = threadIdx.x % sets::LANES;
    const uint32_t set = threadIdx.x / sets::LANES;
    float score[sets::QUERIES][sets::POSITIONS];
#pragma unroll
    for (int i = 0; i < sets::QUERIES; i++) {
#pragma unroll
        for (int p = 0; p < sets::POSITIONS; p++)
            score[i][p] = 0.0f;
    }
    uint32_t d = 0;
    for (; d + PER <= a.kv.dim_k; d += PER)
        attention_score_piece<M, PER, true>(a.kv, s, k, d, t.n_queries, score);
    if (d < a.kv.dim_k)
        attention_score_piece<M, PER, false>(a.kv, s, k, d, t.n_queries, score);

    const uint32_t base = page * CUDA_KV_POSITIONS;
#pragma unroll
    for (int i = 0; i < sets::QUERIES; i++) {
        const uint32_t m = set + i * sets::SETS;
        /* Lanes of both halves of a warp take part, whether their queries are there or not. */
        const struct attention_query where = s.where[m];
        const bool is_in = m < t.n_queries && page >= where.first / CUDA_KV_POSITIONS &&
                           page <= where.last / CUDA_KV_POSITIONS;
        const uint32_t begin = where.first > base ? where.first - base : 0;
        const uint32_t end = is_in ? min(where.last - base + 1, CUDA_KV_POSITIONS) : 0;
        float page_top, page_sum;
        attention_softmax<M>(a, begin, end, s.weights + m * 32, score[i], &page_top, &page_sum);
        struct attention_fold fold = {0.0f, 0.0f, ATTENTION_SKIP, begin | end << 8};
        if (is_in && a.split_pages > 0) {
            fold.mode = ATTENTION_FIRST;
            if (lane == 0) {
                float *to = a.partials + 2 * attention_partial_at(a, t, m, page);
                to[0] = page_top;
                to[1] = page_sum;
            }
        } else if (is_in && page == where.first / CUDA_KV_POSITIONS) {
            fold.mode = ATTENTION_FIRST;
            top[i] = page_top;
            total[i] = page_sum;
        } else if (is_in) {
            const float next = page_top > top[i] ? page_top : top[i];
            fold.mode = ATTENTION_MERGE;
            fold.a = nm_exp(top[i] - next);
            fold.b = nm_exp(page_top - next);
            top[i] = next;
            total[i] = fmaf(page_sum, fold.b, total[i] * fold.a);
        }
        if (lane == 0)
            s.folds[m] = fold;
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

/* A thread has elements col + v * COLS of dim_v, for queries group + i * GROUPS. */
template <int M, int COLS, int NV> struct attention_values_of {
    static constexpr int GROUPS = ATTENTION_THREADS / COLS;
    static constexpr int QUERIES = M / GROUPS;
};

template <int M, int COLS, int NV, bool Q8, bool Whole>
DEVICE_INLINE void attention_values(const struct cuda_kv &kv, const struct attention_shared &s,
                                    const uint8_t *head, uint32_t n_queries,
                                    float (&sum)[attention_values_of<M, COLS, NV>::QUERIES][NV])
{
    typedef attention_values_of<M, COLS, NV> of;
    constexpr uint32_t PER = Q8 ? 16 : 8;
    const uint32_t col = threadIdx.x % COLS;
    const uint32_t group = threadIdx.x / COLS;
    for (uint32_t slot = 0; slot < CUDA_KV_POSITIONS; slot += PER) {
        float x[NV][PER];
#pragma unroll
        for (int v = 0; v < NV; v++) {
            const uint32_t d = min(col + v * COLS, kv.dim_v - 1);
            attention_unpack(device_load16(head + kv.v_at + (slot / PER * kv.dim_v + d) * 16),
                             x[v]);
            if (Q8) {
                const float *scales = reinterpret_cast<const float *>(head + kv.v_scales_at) +
                                      d / 32 * CUDA_KV_POSITIONS + slot;
#pragma unroll
                for (uint32_t j = 0; j < PER; j += 4) {
                    float scale[4];
                    attention_load4(scales + j, scale);
#pragma unroll
                    for (int l = 0; l < 4; l++)
                        x[v][j + l] = scale[l] * x[v][j + l];
                }
            }
        }
#pragma unroll
        for (int i = 0; i < of::QUERIES; i++) {
            const uint32_t m = group + i * of::GROUPS;
            if (m >= n_queries)
                break;
            const uint32_t range = Whole ? 0 : s.folds[m].range;
            const uint32_t begin = range & 0xffu;
            const uint32_t end = range >> 8;
#pragma unroll
            for (uint32_t j = 0; j < PER; j += 4) {
                float e[4];
                attention_load4(s.weights + m * 32 + slot + j, e);
#pragma unroll
                for (int l = 0; l < 4; l++) {
#pragma unroll
                    for (int v = 0; v < NV; v++) {
                        /* Left out, not multiplied by 0: stale cells may hold an infinity. */
                        const float next = fmaf(e[l], x[v][j + l], sum[i][v]);
                        if (Whole || (slot + j + l >= begin && slot + j + l < end))
                            sum[i][v] = next;
                    }
                }
            }
        }
    }
}

/* One page's values, folded into the running ones or left as partial sums. */
template <int M, int COLS, int NV, bool Q8>
DEVICE_INLINE void
attention_page_values(const struct cuda_attention &a, const struct attention_tile &t,
                      const struct attention_shared &s, const uint8_t *head, uint32_t page,
                      bool is_whole, float (&out)[attention_values_of<M, COLS, NV>::QUERIES][NV])
{
    typedef attention_values_of<M, COLS, NV> of;
    const uint32_t col = threadIdx.x % COLS;
    const uint32_t group = threadIdx.x / COLS;
    float sum[of::QUERIES][NV];
#pragma unroll
    for (int i = 0; i < of::QUERIES; i++) {
#pragma unroll
        for (int v = 0; v < NV; v++)
            sum[i][v] = 0.0f;
    }
    if (is_whole)
        attention_values<M, COLS, NV, Q8, true>(a.kv, s, head, t.n_queries, sum);
    else
        attention_values<M, COLS, NV, Q8, false>(a.kv, s, head, t.n_queries, sum);
#pragma unroll
    for (int i = 0; i < of::QUERIES; i++) {
        const uint32_t m = group + i * of::GROUPS;
        if (m >= t.n_queries)
            break;
        const struct attention_fold fold = s.folds[m];
        if (fold.mode == ATTENTION_SKIP)
            continue;
#pragma unroll
        for (int v = 0; v < NV; v++)
            out[i][v] = fold.mode == ATTENTION_FIRST ? sum[i][v]
                                                     : fmaf(sum[i][v], fold.b, out[i][v] * fold.a);
        if (a.split_pages == 0)
            continue;
        const size_t count = (size_t)a.rows.count * a.n_heads * (a.splits * a.split_pages);
        float *to = a.partials + 2 * count + attention_partial_at(a, t, m, page) * a.kv.dim_v;
#pragma unroll
        for (int v = 0; v < NV; v++) {
            if (col + v * COLS < a.kv.dim_v)
                to[col + v * COLS] = sum[i][v];
        }
    }
}

/* ---- the walk -------------------------------------------------------------------------------- */

/* Blocks that a multiprocessor's registers are to be enough for: 128, 168 or 255 of them a thread.
 * Left alone, ptxas saves one more than it should, and spills. */
template <int M, int COLS, int NV> static constexpr int attention_blocks(void)
{
    return NV == 2 ? (M <= 8 ? 4 : 3) : M * COLS <= 256 ? 3 : 2;
}

template <int M, int COLS, int NV, bool Q8>
__global__ void __launch_bounds__(ATTENTION_THREADS, (attention_blocks<M, COLS, NV>()))
    attention_walk(struct cuda_attention a, uint32_t stages)
{
    typedef attention_sets<M> sets;
    typedef attention_values_of<M, COLS, NV> of;
    CUDA_SHARED_DYNAMIC(uint8_t, memory);
    struct attention_tile t;
    if (!attention_tile_of(a, t))
        return;
    const struct attention_shared s = attention_carve(memory, stages, M, a.kv);
    const uint32_t window_first =
        attention_first(t.position + (t.n_queries - 1) / t.heads, a.window);
    float top[sets::QUERIES], total[sets::QUERIES], out[of::QUERIES][NV];
    for (int i = 0; i < sets::QUERIES; i++)
        top[i] = total[i] = 0.0f;
    for (int i = 0; i < of::QUERIES; i++) {
        for (int v = 0; v < NV; v++)
            out[i][v] = 0.0f;
    }
    attention_fetch_q<M>(a, t, s);
    if (stages == 2) {
        attention_fetch_page(a.kv, t.pages[t.page_first], t.kv_head, s.pages);
        device_async_commit();
    }
    for (uint32_t page = t.page_first; page <= t.page_last; page++) {
        const uint8_t *head = s.pages;
        if (stages == 2) {
            const uint32_t turn = (page - t.page_first) % 2;
            device_async_wait<0>();
            __syncthreads(); /* this page is here, and the one before it has been read */
            if (page < t.page_last)
                attention_fetch_page(a.kv, t.pages[page + 1], t.kv_head,
                                     s.pages + (1 - turn) * a.kv.head_bytes);
            device_async_commit();
            head += turn * a.kv.head_bytes;
        } else {
            __syncthreads();
            attention_fetch_page(a.kv, t.pages[page], t.kv_head, s.pages);
            device_async_commit();
            device_async_wait<0>();
            __syncthreads();
        }
        attention_scores<M, Q8>(a, t, s, head, page, top, total);
        __syncthreads();
        /* All positions of the page for all queries. */
        const bool is_whole = page * CUDA_KV_POSITIONS >= window_first &&
                              (page + 1) * CUDA_KV_POSITIONS <= t.position + 1;
        attention_page_values<M, COLS, NV, Q8>(a, t, s, head, page, is_whole, out);
    }
    if (a.split_pages > 0)
        return;
    /* The sums go to those who have the values. */
    __syncthreads();
    for (int i = 0; i < sets::QUERIES; i++) {
        if (threadIdx.x % sets::LANES == 0)
            s.weights[threadIdx.x / sets::LANES + i * sets::SETS] = total[i];
    }
    __syncthreads();
    const uint32_t col = threadIdx.x % COLS;
    const uint32_t group = threadIdx.x / COLS;
#pragma unroll
    for (int i = 0; i < of::QUERIES; i++) {
        const uint32_t m = group + i * of::GROUPS;
        if (m >= t.n_queries)
            break;
        const uint32_t row = t.row - a.rows.first + m / t.heads;
        const uint32_t head = t.head + m % t.heads;
#pragma unroll
        for (int v = 0; v < NV; v++) {
            const uint32_t d = col + v * COLS;
            if (d / 32 * 32 >= a.kv.dim_v)
                break;
            const float y = out[i][v] / s.weights[m];
            const uint32_t at = head * a.kv.dim_v + d;
            if (a.floats != NULL) {
                if (d < a.kv.dim_v)
                    a.floats[(size_t)row * a.n_heads * a.kv.dim_v + at] = y;
                continue;
            }
            quantize_lanes_store(a.out, row, at / 32, y);
            if (a.out.floats != NULL)
                a.out.floats[(size_t)row * a.out.cols_max + at] = y;
        }
    }
}

/* ---- launching ------------------------------------------------------------------------------- */

/* What every GPU since Ampere gives a block. */
#define ATTENTION_SHARED_MAX (99u * 1024)

template <int M, int COLS, int NV, bool Q8>
static struct cuda_launched attention_launch(cudaStream_t stream, const struct cuda_attention *a)
{
    const uint32_t chunks = (a->group + a->tile_heads - 1) / a->tile_heads;
    uint32_t stages = 2;
    if (attention_shared_bytes(stages, a->kv.head_bytes, M, a->kv.dim_k) > ATTENTION_SHARED_MAX)
        stages = 1;
    const uint32_t bytes = attention_shared_bytes(stages, a->kv.head_bytes, M, a->kv.dim_k);
    struct cuda_launched launched = {cudaSuccess, "attention_walk"};
    if (bytes > 48 * 1024)
        launched.error =
            cudaFuncSetAttribute(attention_walk<M, COLS, NV, Q8>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (launched.error != cudaSuccess)
        return launched;
    return CUDA_LAUNCH(
        (attention_walk<M, COLS, NV, Q8>),
        dim3(a->rows.count, a->kv.n_kv_heads * chunks, a->split_pages > 0 ? a->splits : 1),
        dim3(ATTENTION_THREADS), bytes, stream, *a, stages);
}

/* Registers for values are tile * dim_v / 128 twice, 32 at most. */
template <bool Q8>
static struct cuda_launched attention_choose(cudaStream_t stream, const struct cuda_attention *a,
                                             enum cuda_tile tile)
{
    const uint32_t dim = a->kv.dim_v;
    if (dim <= 64)
        return tile == CUDA_TILE_4   ? attention_launch<4, 32, 2, Q8>(stream, a)
               : tile == CUDA_TILE_8 ? attention_launch<8, 32, 2, Q8>(stream, a)
                                     : attention_launch<32, 32, 2, Q8>(stream, a);
    if (dim <= 128)
        return tile == CUDA_TILE_4   ? attention_launch<4, 64, 2, Q8>(stream, a)
               : tile == CUDA_TILE_8 ? attention_launch<8, 64, 2, Q8>(stream, a)
                                     : attention_launch<32, 64, 2, Q8>(stream, a);
    if (dim <= 256)
        return tile == CUDA_TILE_4   ? attention_launch<4, 64, 4, Q8>(stream, a)
               : tile == CUDA_TILE_8 ? attention_launch<8, 64, 4, Q8>(stream, a)
                                     : attention_launch<16, 64, 4, Q8>(stream, a);
    return tile == CUDA_TILE_4 ? attention_launch<4, 128, 4, Q8>(stream, a)
                               : attention_launch<8, 128, 4, Q8>(stream, a);
}

extern "C" enum cuda_tile cuda_attention_tile_max(uint32_t dim_v)
{
    return dim_v <= 128 ? CUDA_TILE_32 : dim_v <= 256 ? CUDA_TILE_16 : CUDA_TILE_8;
}

extern "C" struct cuda_launched
cuda_launch_attention(cudaStream_t stream, const struct cuda_attention *a, enum cuda_tile tile)
{
    return a->kv.is_q8 ? attention_choose<true>(stream, a, tile)
                       : attention_choose<false>(stream, a, tile);
}
