# Kernels: every backend against ref/ bit for bit, ref/ against double precision, and the parts.
add_library(kernels_fixture STATIC kernels/fixture.c kernels/matrix.c kernels/kernels_plain.c
  kernels/kernels_plain_tmul.c)
target_link_libraries(kernels_fixture PUBLIC cloister_kernels PkgConfig::CMOCKA)
target_compile_options(kernels_fixture PRIVATE -O2 -fno-math-errno)
cloister_target(kernels_fixture)
# The flow analysis gives up on arrays of 64-byte structs that loops with a bound fill.
set_source_files_properties(kernels/kernels_plain.c kernels/kernels_plain_tmul.c PROPERTIES
  COMPILE_OPTIONS "-Wno-maybe-uninitialized")

foreach(part matmul shards rows norms attention bounds backend source pack)
  cloister_unit_test(kernels_${part} SOURCES kernels/test_${part}.c LIBS kernels_fixture)
endforeach()
# Seconds as a rule; minutes under a sanitizer on a machine that does other work as well.
set_tests_properties(kernels_matmul kernels_attention PROPERTIES TIMEOUT 900)
cloister_unit_test(kernels_dequantize SOURCES kernels/test_dequantize.c
                   LIBS kernels_fixture PkgConfig::JANSSON)
foreach(part numerics pool rope_table quant_check)
  cloister_unit_test(kernels_${part} SOURCES kernels/test_${part}.c LIBS cloister_kernels)
endforeach()
# Walking millions of floats wants the optimizer, whatever the build type.
target_compile_options(test_kernels_numerics PRIVATE -O2)

# The wrappers of each instruction set against plain C; AVX-512's also over SIMDe, so that a machine
# without the instructions checks what each intrinsic is asked to do.
include(CheckIncludeFile)
check_include_file(simde/x86/avx512.h CLOISTER_HAVE_SIMDE)
set(vec_sources kernels/test_vec.c kernels/vec_probe_plain.c)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  list(APPEND vec_sources kernels/vec_probe_avx2.c kernels/vec_probe_avx512.c)
  set_source_files_properties(kernels/vec_probe_avx2.c PROPERTIES
    COMPILE_OPTIONS "-O2;-mavx2;-mfma;-mf16c")
  # Shifts take their count from an inlined constant, which there is none of without the optimizer.
  set_source_files_properties(kernels/vec_probe_avx512.c PROPERTIES
    COMPILE_OPTIONS "-O2;-mavx2;-mfma;-mf16c;-mavx512f;-mavx512bw;-mavx512vl;-mavx512vnni")
endif()
cloister_unit_test(kernels_vec SOURCES ${vec_sources} LIBS kernels_fixture)
if(CLOISTER_HAVE_SIMDE)
  add_library(kernels_vec_simde STATIC kernels/vec_probe_simde.c)
  target_include_directories(kernels_vec_simde BEFORE PRIVATE kernels/simde)
  target_compile_options(kernels_vec_simde PRIVATE -O1 -Wno-psabi)
  target_link_libraries(test_kernels_vec PRIVATE kernels_vec_simde)
  target_compile_definitions(test_kernels_vec PRIVATE CLOISTER_TEST_SIMDE=1)
else()
  target_compile_definitions(test_kernels_vec PRIVATE CLOISTER_TEST_SIMDE=0)
endif()

# Not a test: `bench_kernels` prints speeds beside the machine's limits.
add_executable(bench_kernels bench/bench_kernels.c kernels/matrix.c)
target_compile_options(bench_kernels PRIVATE -O3)
target_link_libraries(bench_kernels PRIVATE cloister_kernels)
cloister_target(bench_kernels)
# `bench_cuda` does the same for a GPU.
if(CLOISTER_CUDA_FOUND)
  cloister_cuda_library(bench_cuda_peak SOURCES bench/bench_cuda_peak.cu)
  add_executable(bench_cuda bench/bench_cuda.c kernels/matrix.c)
  target_link_libraries(bench_cuda PRIVATE bench_cuda_peak cloister_cuda)
  cloister_target(bench_cuda)
endif()
