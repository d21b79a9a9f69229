# The agent: leases, memory, the model list, and the conversation with the coordinator.
add_library(cloister_agent STATIC
  agent.c
  bandwidth.c
  catalogue.c
  device.c
  gang_offer.c
  gang_place.c
  gpu/gpu_watch.c
  gpu/nvml.c
  lease.c
  rendezvous.c
  residency.c
  run_job.c
  session.c
  settings.c
  spaces.c)
target_link_libraries(cloister_agent PUBLIC cloister_engine cloister_model cloister_proto
  cloister_transport cloister_config cloister_version cloister_common Threads::Threads
  ${CMAKE_DL_LIBS})
cloister_target(cloister_agent)

add_executable(cloister-worker main.c)
target_link_libraries(cloister-worker PRIVATE cloister_agent cloister_program)
cloister_target(cloister-worker)
install(TARGETS cloister-worker RUNTIME)
