cloister_unit_test(worker_lease SOURCES unit/worker/test_lease.c LIBS cloister_agent)
cloister_unit_test(worker_spaces SOURCES unit/worker/test_spaces.c LIBS cloister_agent)
cloister_unit_test(worker_memory SOURCES unit/worker/test_memory.c LIBS cloister_agent)
cloister_unit_test(worker_config SOURCES unit/worker/test_worker_config.c LIBS cloister_agent)
cloister_unit_test(worker_residency
  SOURCES unit/worker/test_residency.c unit/engine/tiny_model.c LIBS cloister_agent)
