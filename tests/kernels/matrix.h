/* matrix.h - a matrix that is in memory, as a weight: for tests and benches of kernels. */
#ifndef CLOISTER_TESTS_KERNELS_MATRIX_H
#define CLOISTER_TESTS_KERNELS_MATRIX_H

#include "worker/kernels/backend.h"

/* `data` [rows] of weight_row_bytes each; `cut` NULL: a whole matrix in one group. Errors are those
 * of backend_ops.weights_read. */
enum err matrix_load(struct backend *b, enum quant_type type, const void *data, uint32_t rows,
                     uint32_t cols, const struct sum_cut *cut, struct weight **ret_weight,
                     struct errbuf *eb);

#endif
