# The CUDA backend on an emulated device (cuda_emulation/emulation.h), through the same tests as the
# CPU's: the fixture opens it in place of the instruction sets.
if(NOT CLOISTER_CUDA_EMULATION)
  return()
endif()
enable_language(CXX)
include(${PROJECT_SOURCE_DIR}/worker/kernels/cuda/sources.cmake)

add_library(cuda_emulated_host STATIC ${CLOISTER_CUDA_HOST})
target_link_libraries(cuda_emulated_host PUBLIC cuda_emulation cloister_kernels)
cloister_target(cuda_emulated_host)
add_library(cuda_kernels_fixture STATIC kernels/fixture.c kernels/matrix.c)
target_compile_definitions(cuda_kernels_fixture PUBLIC KERNELS_CUDA=1)
target_link_libraries(cuda_kernels_fixture PUBLIC cuda_emulated_host PkgConfig::CMOCKA)
target_compile_options(cuda_kernels_fixture PRIVATE -O2 -fno-math-errno)
cloister_target(cuda_kernels_fixture)
foreach(mode plain checked)
  cloister_emulated_library(cuda_emulated_kernels_${mode} MODE ${mode} SOURCES ${CLOISTER_CUDA_KERNELS})
  add_library(cuda_emulated_${mode} INTERFACE)
  target_link_libraries(cuda_emulated_${mode} INTERFACE cuda_emulated_host cuda_emulated_kernels_${mode})
endforeach()

# cuda_kernels_test(PART SOURCE [MORE]): under three schedules, which differ in the order of blocks and threads and in
# when queued work runs; at random with every load and store checked, which takes longest. MORE: a run for
# parts that take a share of their cases there (fixture_leaves_out), so that all cases come at random, too.
function(cuda_kernels_test part source)
  foreach(mode plain checked)
    set(test test_kernels_cuda_${part}_${mode})
    add_executable(${test} ${source})
    target_link_libraries(${test} PRIVATE cuda_kernels_fixture cuda_emulated_${mode}
                          cloister_common PkgConfig::CMOCKA m)
    set_target_properties(${test} PROPERTIES LINKER_LANGUAGE CXX)
    cloister_target(${test})
  endforeach()
  foreach(run plain-forward plain-reverse checked-random:1 ${ARGN})
    string(REGEX MATCH "^([a-z]+)-(.*)$" ignored ${run})
    add_test(NAME kernels_cuda_${part}_${CMAKE_MATCH_1}_${CMAKE_MATCH_2}
             COMMAND test_kernels_cuda_${part}_${CMAKE_MATCH_1} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(kernels_cuda_${part}_${CMAKE_MATCH_1}_${CMAKE_MATCH_2} PROPERTIES TIMEOUT 900
      ENVIRONMENT "CUDA_EMULATION_SCHEDULE=${CMAKE_MATCH_2}")
  endforeach()
endfunction()

foreach(part rows norms attention backend source)
  cuda_kernels_test(${part} kernels/test_${part}.c)
endforeach()
foreach(part pick matmul shards)
  cuda_kernels_test(${part} kernels/test_${part}.c plain-random:2)
endforeach()
foreach(part products steps errors)
  cuda_kernels_test(${part} kernels/cuda/test_cuda_${part}.c)
endforeach()

# cloister-engine with an emulated GPU in the place of a real one. Not installed: the product has no
# emulation in it.
get_target_property(sources cloister-engine SOURCES)
list(TRANSFORM sources PREPEND ${PROJECT_SOURCE_DIR}/worker/engine_tool/)
add_executable(cloister-engine-emulated ${sources} nccl_stand_in/queue_emulated.c)
target_compile_definitions(cloister-engine-emulated PRIVATE CLOISTER_CUDA_EMULATED=1)
target_link_libraries(cloister-engine-emulated PRIVATE cloister_engine cloister_model
  cuda_emulation cloister_program cloister_version cloister_common PkgConfig::JANSSON m)
set_target_properties(cloister-engine-emulated PROPERTIES LINKER_LANGUAGE CXX ENABLE_EXPORTS ON
                                                          CLOISTER_CUDA_BACKEND cuda_emulated_plain)
add_dependencies(cloister-engine-emulated nccl_stand_in)
cloister_target(cloister-engine-emulated)
# And cloister-worker, whose GPU's numbers come from the stand-in for NVML (gpu.cmake).
add_executable(cloister-worker-emulated ${PROJECT_SOURCE_DIR}/worker/main.c
               nccl_stand_in/queue_emulated.c)
target_link_libraries(cloister-worker-emulated PRIVATE cloister_agent cloister_program cuda_emulation)
set_target_properties(cloister-worker-emulated PROPERTIES LINKER_LANGUAGE CXX ENABLE_EXPORTS ON
                                                          CLOISTER_CUDA_BACKEND cuda_emulated_plain)
add_dependencies(cloister-worker-emulated nccl_stand_in)
cloister_target(cloister-worker-emulated)
foreach(model tiny smollm2 gemma3)
  add_test(NAME engine_cuda_${model}
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/unit/engine/test_cuda.py
            ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${model})
  set_tests_properties(engine_cuda_${model} PROPERTIES TIMEOUT 900 SKIP_RETURN_CODE 77
    ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
endforeach()

# Steps of sharded models, in this process and those of the other ranks.
add_executable(test_cuda_stretches unit/engine/test_cuda_stretches.c unit/engine/tiny_model.c
               nccl_stand_in/queue_emulated.c ${PROJECT_SOURCE_DIR}/worker/engine_tool/ranks.c
               ${PROJECT_SOURCE_DIR}/worker/engine_tool/rank_cards.c)
target_link_libraries(test_cuda_stretches PRIVATE cloister_engine cuda_emulation cloister_common m)
set_target_properties(test_cuda_stretches PROPERTIES LINKER_LANGUAGE CXX ENABLE_EXPORTS ON
                                                     CLOISTER_CUDA_BACKEND cuda_emulated_plain)
add_dependencies(test_cuda_stretches nccl_stand_in)
cloister_target(test_cuda_stretches)
foreach(run shm-2-1 shm-4-1 shm-1-2 shm-2-2 ucx-2-1 nccl-2-1 nccl-2-2)
  string(REPLACE "-" ";" arguments ${run})
  add_test(NAME engine_cuda_stretches_${run} COMMAND test_cuda_stretches ${arguments})
  set_tests_properties(engine_cuda_stretches_${run} PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77
    ENVIRONMENT "CUDA_EMULATION_SCHEDULE=random:3;LD_LIBRARY_PATH=${CMAKE_BINARY_DIR}/lib/nccl_stand_in")
endforeach()

# What ranks of sharded models hold, by what a GPU takes.
add_executable(test_cuda_rank_room unit/engine/test_rank_room.c)
target_link_libraries(test_cuda_rank_room PRIVATE cloister_engine cuda_emulation cloister_common
                      PkgConfig::CMOCKA m)
set_target_properties(test_cuda_rank_room PROPERTIES LINKER_LANGUAGE CXX
                                                     CLOISTER_CUDA_BACKEND cuda_emulated_plain)
cloister_target(test_cuda_rank_room)
add_test(NAME engine_cuda_rank_room COMMAND test_cuda_rank_room $<TARGET_FILE:synthetic_model> cuda)
set_tests_properties(engine_cuda_rank_room PROPERTIES TIMEOUT 300)

# What a step queues on a device that computes nothing (tests/bench/predict_cuda.py). Not a test.
add_executable(cuda_steps bench/cuda_steps.c ${PROJECT_SOURCE_DIR}/worker/engine_tool/ranks.c
               ${PROJECT_SOURCE_DIR}/worker/engine_tool/rank_cards.c)
target_link_libraries(cuda_steps PRIVATE cloister_engine cuda_emulation cloister_common m)
target_link_options(cuda_steps PRIVATE -Wl,--wrap=backend_cuda_open)
set_target_properties(cuda_steps PROPERTIES LINKER_LANGUAGE CXX
                                            CLOISTER_CUDA_BACKEND cuda_emulated_plain)
cloister_target(cuda_steps)
if(NOT CLOISTER_SANITIZE)
  add_test(NAME cuda_predicted
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cuda_build/check_predicted.py
            ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${PROJECT_SOURCE_DIR}/docs/cuda.md)
  set_tests_properties(cuda_predicted PROPERTIES TIMEOUT 300 ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
endif()
