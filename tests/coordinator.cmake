# The coordinator: its pure core in tables, the simulated cluster, the loop and the program.

add_executable(test_sim
  sim/even_shape.c
  sim/sim.c
  sim/sim_check.c
  sim/sim_client.c
  sim/sim_coordinator.c
  sim/sim_models.c
  sim/sim_worker.c
  sim/test_sim.c)
target_link_libraries(test_sim PRIVATE cloister_coordinator cloister_ledger cloister_store
                      cloister_engine_core)
cloister_target(test_sim)
add_test(NAME coordinator_sim COMMAND test_sim)
set_tests_properties(coordinator_sim PROPERTIES TIMEOUT 300)

add_library(cloister_core_test STATIC unit/core/core_test.c)
target_link_libraries(cloister_core_test PUBLIC cloister_core cloister_common PkgConfig::CMOCKA)
cloister_target(cloister_core_test)
foreach(part tables bounds explain jobs learned lists placement returns sessions tree workers)
  cloister_unit_test(core_${part} SOURCES unit/core/test_core_${part}.c LIBS cloister_core_test
                     cloister_core)
endforeach()

foreach(name gangs gang_room gang_nccl gang_shares gang_looks)
  cloister_unit_test(core_${name} SOURCES unit/core/test_core_${name}.c unit/core/gang_test.c
                                          sim/even_shape.c
                     LIBS cloister_core_test cloister_core)
endforeach()

# The example file is what the program prints, and the program takes it.
add_test(NAME coordinator_example_config
  COMMAND ${CMAKE_COMMAND} -DPROGRAM=$<TARGET_FILE:cloister-coordinator>
          -DEXAMPLE=${PROJECT_SOURCE_DIR}/deploy/examples/coordinator.cfg
          -P ${CMAKE_CURRENT_SOURCE_DIR}/unit/core/example_config.cmake)

add_library(cloister_stored_test STATIC unit/core/stored_test.c)
target_link_libraries(cloister_stored_test PUBLIC cloister_core_test cloister_store_test
                      cloister_coordinator)
cloister_target(cloister_stored_test)
cloister_unit_test(loop_store SOURCES unit/core/test_loop_store.c LIBS cloister_stored_test)
cloister_unit_test(repair SOURCES unit/core/test_repair.c
                   LIBS cloister_stored_test "-Wl,--wrap=store_commit")

cloister_unit_test(loop_inbox SOURCES unit/core/test_loop_inbox.c LIBS cloister_coordinator)
cloister_unit_test(loop_failures SOURCES unit/core/test_loop_failures.c
                   LIBS cloister_store_test cloister_coordinator)
add_library(cloister_loop_test STATIC unit/core/loop_test.c)
target_link_libraries(cloister_loop_test PUBLIC cloister_store_test cloister_coordinator
                      Threads::Threads)
cloister_target(cloister_loop_test)
cloister_unit_test(loop_replies SOURCES unit/core/test_loop_replies.c LIBS cloister_loop_test)
cloister_unit_test(loop_refused SOURCES unit/core/test_loop_refused.c
                   LIBS cloister_loop_test "-Wl,--wrap=store_put,--wrap=store_commit")

cloister_unit_test(settings SOURCES unit/core/test_settings.c LIBS cloister_coordinator)

# Not run by ctest: numbers need a machine of their own. `bench_submit build/bin/cloister-coordinator`
add_executable(bench_submit bench/bench_submit.c bench/bare_nng.c)
target_link_libraries(bench_submit PRIVATE cloister_store cloister_transport cloister_proto
                      cloister_common nng::nng Threads::Threads)
cloister_target(bench_submit)
add_dependencies(bench_submit cloister-coordinator)

# Not run by ctest either: `bench_restart 100000` prints how long a start takes over so many jobs.
add_executable(bench_restart bench/bench_restart.c)
target_link_libraries(bench_restart PRIVATE cloister_core_test cloister_coordinator)
cloister_target(bench_restart)
