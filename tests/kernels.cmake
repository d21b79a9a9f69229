# Kernels: every backend against ref/ bit for bit, ref/ against double precision, and the parts.
add_library(kernels_fixture STATIC kernels/fixture.c kernels/kernels_plain.c)
target_link_libraries(kernels_fixture PUBLIC cloister_kernels PkgConfig::CMOCKA)
target_compile_options(kernels_fixture PRIVATE -O2 -fno-math-errno)
cloister_target(kernels_fixture)
# The flow analysis gives up on arrays of 64-byte structs that loops with a bound fill.
set_source_files_properties(kernels/kernels_plain.c PROPERTIES
  COMPILE_OPTIONS "-Wno-maybe-uninitialized")

foreach(part matmul rows attention bounds backend)
  cloister_unit_test(kernels_${part} SOURCES kernels/test_${part}.c LIBS kernels_fixture)
endforeach()
foreach(part numerics rope_table)
  cloister_unit_test(kernels_${part} SOURCES kernels/test_${part}.c LIBS cloister_kernels)
endforeach()
# Walking millions of floats wants the optimizer, whatever the build type.
target_compile_options(test_kernels_numerics PRIVATE -O2)
