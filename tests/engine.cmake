foreach(part stream batch_life sampling_parameters)
  cloister_unit_test(engine_${part} SOURCES unit/engine/test_${part}.c LIBS cloister_engine_core)
endforeach()
foreach(part batch batch_plans)
  cloister_unit_test(engine_${part}
    SOURCES unit/engine/test_${part}.c unit/engine/batch_test.c LIBS cloister_engine_core)
endforeach()
cloister_unit_test(engine_sampling
  SOURCES unit/engine/test_sampling.c unit/engine/sample_wide.c
  LIBS cloister_engine_core)
set_source_files_properties(unit/engine/sample_wide.c PROPERTIES COMPILE_OPTIONS "-Wno-psabi")

# Not a test: `bench_sampling` prints the microseconds a draw takes.
add_executable(bench_sampling bench/bench_sampling.c)
target_link_libraries(bench_sampling PRIVATE cloister_engine_core m)
cloister_target(bench_sampling)

cloister_unit_test(engine_threads
  SOURCES unit/engine/test_engine.c unit/engine/rig.c unit/engine/tiny_model.c
  LIBS cloister_engine)
cloister_unit_test(engine_draws
  SOURCES unit/engine/test_draws.c unit/engine/rig.c unit/engine/tiny_model.c
  LIBS cloister_engine)
cloister_unit_test(engine_picks
  SOURCES unit/engine/test_picks.c unit/engine/rig.c unit/engine/tiny_model.c
  LIBS cloister_engine)
cloister_unit_test(engine_gang
  SOURCES unit/engine/test_gang.c unit/engine/gang_rig.c unit/engine/rig.c unit/engine/tiny_model.c
  LIBS cloister_engine)
target_link_options(test_engine_gang PRIVATE -Wl,--wrap=gang_ready -Wl,--wrap=gang_hear
                                             -Wl,--wrap=gang_rows_least)
cloister_unit_test(engine_stages
  SOURCES unit/engine/test_stages.c unit/engine/gang_rig.c unit/engine/rig.c
          unit/engine/tiny_model.c
  LIBS cloister_engine)
set_tests_properties(engine_stages PROPERTIES TIMEOUT 900)
cloister_unit_test(engine_stages_streams
  SOURCES unit/engine/test_stages_streams.c unit/engine/gang_rig.c unit/engine/rig.c
          unit/engine/tiny_model.c
  LIBS cloister_engine)
set_tests_properties(engine_stages_streams PROPERTIES TIMEOUT 900)
target_link_options(test_engine_stages_streams PRIVATE -Wl,--wrap=gang_tell -Wl,--wrap=gang_logits
                                                     -Wl,--wrap=forward_step)
add_executable(test_engine_gang_hosts unit/engine/test_gang_hosts.c unit/engine/tiny_model.c)
target_link_libraries(test_engine_gang_hosts PRIVATE cloister_coll_crew cloister_engine
                      PkgConfig::CMOCKA m)
cloister_target(test_engine_gang_hosts)
foreach(where loopback netns)
  add_test(NAME engine_gang_hosts_${where} COMMAND test_engine_gang_hosts ${where})
  set_tests_properties(engine_gang_hosts_${where} PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77)
endforeach()
cloister_unit_test(engine_gang_told SOURCES unit/engine/test_gang_told.c LIBS cloister_engine)
cloister_unit_test(engine_events
  SOURCES unit/engine/test_events.c unit/engine/rig.c unit/engine/tiny_model.c
  LIBS cloister_engine)
target_link_options(test_engine_events PRIVATE -Wl,--wrap=realloc)

cloister_unit_test(engine_arch
  SOURCES unit/engine/test_arch.c unit/engine/tiny_model.c
  LIBS cloister_test_vectors cloister_engine)
target_link_options(test_engine_arch PRIVATE -Wl,--wrap=pool_run -Wl,--wrap=pool_run_nodes)
set_tests_properties(engine_arch PROPERTIES TIMEOUT 900
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})

cloister_unit_test(engine_estimate
  SOURCES unit/engine/test_estimate.c unit/engine/rig.c unit/engine/tiny_model.c
  LIBS cloister_gguf_build cloister_engine)
cloister_unit_test(engine_shard_plan
  SOURCES unit/engine/test_shard_plan.c LIBS cloister_engine)
cloister_unit_test(engine_rank_room
  SOURCES unit/engine/test_rank_room.c LIBS cloister_engine ARGS $<TARGET_FILE:synthetic_model>)
cloister_unit_test(engine_loading
  SOURCES unit/engine/test_loading.c unit/engine/tiny_model.c LIBS cloister_engine)

add_executable(write_tiny_model unit/engine/write_tiny_model.c unit/engine/tiny_model.c)
target_link_libraries(write_tiny_model PRIVATE cloister_common m)
cloister_target(write_tiny_model)

# Not a test: `synthetic_model FILE` writes a model of any shape and type to measure.
add_executable(synthetic_model bench/synthetic_model.c)
target_link_libraries(synthetic_model PRIVATE cloister_gguf_build cloister_kernels m)
cloister_target(synthetic_model)

find_package(Python3 COMPONENTS Interpreter REQUIRED)
add_test(NAME engine_cli
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/unit/engine/test_cli.py
          ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
add_test(NAME engine_ranks
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/unit/engine/test_ranks.py
          ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
set(short)
if(CLOISTER_SANITIZE)
  set(short --short)
endif()
# The models come in the environment (CLOISTER_TEST_MODEL, CLOISTER_TEST_GEMMA); without them the
# tests are skipped.
foreach(model smollm2 gemma3)
  add_test(NAME engine_model_${model}
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/unit/engine/test_model.py
            ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${CMAKE_CURRENT_SOURCE_DIR}/vectors ${model} ${short})
  add_test(NAME engine_stages_${model}
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/unit/engine/test_stages.py
            ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${model} ${short})
endforeach()
foreach(model tiny smollm2 gemma3)
  add_test(NAME engine_matrix_${model}
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/unit/engine/test_matrix.py
            ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${model} ${short})
endforeach()
if(NOT CLOISTER_SANITIZE) # what a sanitizer keeps beside everything is not ours to count
  foreach(model smollm2 gemma3)
    add_test(NAME engine_resident_${model}
      COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/unit/engine/test_resident.py
              ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${model})
    set_tests_properties(engine_resident_${model} PROPERTIES TIMEOUT 900 SKIP_RETURN_CODE 77
      ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
  endforeach()
  add_test(NAME engine_large
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/unit/engine/test_large.py
            ${CMAKE_RUNTIME_OUTPUT_DIRECTORY})
  set_tests_properties(engine_large PROPERTIES TIMEOUT 900
    ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
endif()
set_tests_properties(engine_cli engine_model_smollm2 engine_model_gemma3
  engine_stages_smollm2 engine_stages_gemma3
  engine_matrix_tiny engine_matrix_smollm2 engine_matrix_gemma3
  PROPERTIES TIMEOUT 900 SKIP_RETURN_CODE 77
  ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
