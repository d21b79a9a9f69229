# That kernels compile as they should: their budgets, their machine code, and programs that start
# without a GPU. The numbers are in cuda_build/budgets.txt and cuda_build/sass.txt.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(cuda_build ${CMAKE_CURRENT_SOURCE_DIR}/cuda_build)

function(cloister_cuda_check name)
  add_test(NAME cuda_${name} COMMAND ${Python3_EXECUTABLE} ${ARGN})
  set_tests_properties(cuda_${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900
                       ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)
endfunction()

cloister_cuda_check(budgets_self ${cuda_build}/check_ptxas.py --self-test)
cloister_cuda_check(sass_self ${cuda_build}/check_sass.py --self-test)
cloister_cuda_check(not_needed ${cuda_build}/check_needed.py $<TARGET_FILE:cloister-worker>
                    $<TARGET_FILE:cloister-engine>)

set(programs_off)
if(NOT CLOISTER_CUDA_FOUND)
  set(programs_off $<TARGET_FILE:cloister-engine> $<TARGET_FILE:cloister-worker>)
endif()
cloister_cuda_check(off_is_said ${cuda_build}/check_off.py ${CMAKE_COMMAND} ${PROJECT_SOURCE_DIR} ${programs_off})

if(CLOISTER_CUDA_FOUND)
  cloister_cuda_library(cuda_probe SOURCES cuda_build/probe.cu)
  cloister_unit_test(cuda_probe SOURCES cuda_build/test_probe.c LIBS cuda_probe)
  cloister_cuda_check(probe_not_needed ${cuda_build}/check_needed.py $<TARGET_FILE:test_cuda_probe>)
  get_property(logs GLOBAL PROPERTY CLOISTER_CUDA_PTXAS)
  get_property(objects GLOBAL PROPERTY CLOISTER_CUDA_OBJECTS)
  cloister_cuda_check(budgets ${cuda_build}/check_ptxas.py --budgets ${cuda_build}/budgets.txt ${logs})
else()
  cloister_cuda_check(budgets ${cuda_build}/check_ptxas.py --off "${CLOISTER_CUDA_WHY_NOT}")
endif()

if(CLOISTER_CUDA_FOUND AND CLOISTER_CUOBJDUMP)
  cloister_cuda_check(sass ${cuda_build}/check_sass.py --expected ${cuda_build}/sass.txt
                      --cuobjdump ${CLOISTER_CUOBJDUMP} ${objects})
elseif(CLOISTER_CUDA_FOUND)
  cloister_cuda_check(sass ${cuda_build}/check_sass.py
                      --off "no cuobjdump here: deploy/cuda-toolkit brings it")
else()
  cloister_cuda_check(sass ${cuda_build}/check_sass.py --off "CUDA is off: ${CLOISTER_CUDA_WHY_NOT}")
endif()
