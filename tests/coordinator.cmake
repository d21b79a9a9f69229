# The coordinator: its pure core in tables, the simulated cluster, the loop and the program.

add_executable(test_sim
  sim/sim.c
  sim/sim_check.c
  sim/sim_client.c
  sim/sim_coordinator.c
  sim/sim_worker.c
  sim/test_sim.c)
target_link_libraries(test_sim PRIVATE cloister_coordinator cloister_ledger cloister_store)
cloister_target(test_sim)
add_test(NAME coordinator_sim COMMAND test_sim)
set_tests_properties(coordinator_sim PROPERTIES TIMEOUT 300)
