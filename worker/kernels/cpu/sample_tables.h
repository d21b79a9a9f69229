/* sample_tables.h - the tables of sample.h. Internal to worker/kernels. */
#ifndef CLOISTER_WORKER_KERNELS_CPU_SAMPLE_TABLES_H
#define CLOISTER_WORKER_KERNELS_CPU_SAMPLE_TABLES_H

#include "worker/kernels/sample.h"

extern const struct sample_kernels sample_kernels_scalar;
extern const struct sample_kernels sample_kernels_avx2;
extern const struct sample_kernels sample_kernels_avx512;

#endif
