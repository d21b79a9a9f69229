#ifndef CLOISTER_TESTS_UNIT_ENGINE_SAMPLE_WIDE_H
#define CLOISTER_TESTS_UNIT_ENGINE_SAMPLE_WIDE_H

#include "worker/kernels/sample.h"

extern const struct sample_kernels sample_kernels_wide;

#endif
