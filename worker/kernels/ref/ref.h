/*
 * ref.h - the scalar backend: the oracle. Written to be read; what it computes is the definition
 * of the bits that every other backend must give (backend.h says the same in words).
 *
 * One thread, one loop after the other, memory laid out as plainly as possible. Internal to ref/.
 */
#ifndef CLOISTER_WORKER_KERNELS_REF_REF_H
#define CLOISTER_WORKER_KERNELS_REF_REF_H

#include "worker/kernels/host.h"

/* As the file has it, from the super-block on in which its groups begin. */
struct weight {
    enum quant_type type;
    uint32_t rows;
    uint32_t cols;
    uint32_t lead; /* blocks in front of the first group's */
    struct sum_cut cut;
    uint64_t row_bytes;
    uint8_t *data; /* [rows][row_bytes] */
};

struct act {
    uint32_t rows_max;
    uint32_t cols_max;
    uint32_t blocks_max; /* blocks of 32 in a row, the last one filled up with zeros */
    int8_t *q;           /* [rows_max][blocks_max * 32] */
    float *scales;       /* [rows_max][blocks_max] */
    float *floats;       /* [rows_max][cols_max], or NULL */
};

struct kv {
    struct kv_shape shape;
    uint64_t bytes;
    /* [page][layer][head][position in page][dim], as they were rounded to the cache's type; the
     * values are held as floats, because that is what reading them back gives. */
    float *k;
    float *v;
};

enum err ref_weights_read(struct backend *b, const struct weight_job *jobs, uint32_t n_jobs,
                          uint32_t *ret_failed, struct errbuf *eb);
void ref_weight_free(struct backend *b, struct weight *w);
void ref_embed(struct backend *b, const struct weight *w, const int32_t *ids, uint32_t n,
               float scale, float *out);
void ref_matmul(struct backend *b, const struct act *x, uint32_t n, const struct matmul_job *jobs,
                uint32_t n_jobs);
void ref_join(struct backend *b, uint32_t n, const struct join_job *job);

struct act *ref_act_new(struct backend *b, uint32_t rows_max, uint32_t cols_max, bool keep_float);
void ref_act_free(struct backend *b, struct act *a);
void ref_act_read(struct backend *b, const struct act *a, uint32_t row, uint32_t cols,
                  int8_t *ret_q, float *ret_scales, float *ret_float);
/* Stores one row: quantized, and as it is where `a` keeps floats. */
void ref_act_store(struct act *a, uint32_t row, const float *x, uint32_t cols);
/* q and scale of up to 32 elements. */
void ref_quantize_block(const float *x, uint32_t n, int8_t *ret_q, float *ret_scale);

enum err ref_kv_new(struct backend *b, const struct kv_shape *shape, struct kv **ret_kv,
                    struct errbuf *eb);
void ref_kv_free(struct backend *b, struct kv *kv);
float *ref_kv_key(const struct kv *kv, uint32_t page, uint32_t layer, uint32_t head, uint32_t slot);
float *ref_kv_value(const struct kv *kv, uint32_t page, uint32_t layer, uint32_t head,
                    uint32_t slot);
void ref_rope_kv(struct backend *b, const struct rope_kv_job *job);
void ref_attention(struct backend *b, const struct attention_job *job);

void ref_quantize(struct backend *b, const float *x, uint32_t n, uint32_t cols, struct act *out);
void ref_norm(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
              float eps, struct act *out);
/* y = (x * r) * gain of one row. */
void ref_norm_row(const float *x, uint32_t cols, const float *gain, float eps, float *ret_y);
void ref_norm_add(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
                  float eps, float *out);
void ref_pick(struct backend *b, const float *x, uint32_t n, uint32_t cols,
              const struct pick *picks, float *ret_picked);
void ref_softcap(struct backend *b, float *x, size_t count, float cap);
void ref_gate(struct backend *b, const float *gate, const float *up, uint32_t n, uint32_t cols,
              enum activation activation, struct act *out);

#endif
