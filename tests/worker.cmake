cloister_unit_test(worker_lease SOURCES unit/worker/test_lease.c LIBS cloister_agent)
cloister_unit_test(worker_spaces SOURCES unit/worker/test_spaces.c LIBS cloister_agent)
cloister_unit_test(worker_bandwidth SOURCES unit/worker/test_bandwidth.c LIBS cloister_agent)
cloister_unit_test(worker_settings SOURCES unit/worker/test_settings.c LIBS cloister_agent)
cloister_unit_test(worker_residency
  SOURCES unit/worker/test_residency.c unit/worker/resident.c unit/engine/tiny_model.c
  LIBS cloister_agent)
cloister_unit_test(worker_gangs
  SOURCES unit/worker/test_gangs.c unit/worker/resident.c unit/engine/tiny_model.c
  LIBS cloister_agent)
cloister_unit_test(worker_gang_offer
  SOURCES unit/worker/test_gang_offer.c unit/worker/resident.c unit/engine/tiny_model.c
  LIBS cloister_agent)
# NCCL is there for its test: the library that stands in for it (coll.cmake).
set_property(TEST worker_gang_offer APPEND PROPERTY
             ENVIRONMENT "LD_LIBRARY_PATH=${CMAKE_BINARY_DIR}/lib/nccl_stand_in")
add_dependencies(test_worker_gang_offer nccl_stand_in)
cloister_unit_test(worker_rendezvous SOURCES unit/worker/test_rendezvous.c LIBS cloister_agent)
# Files that are to be refused, by the worker's path and by the program's.
cloister_unit_test(worker_bad_files
  SOURCES unit/worker/test_bad_files.c unit/worker/bad_files.c
  LIBS cloister_gguf_build cloister_agent ARGS $<TARGET_FILE:cloister-engine>)
