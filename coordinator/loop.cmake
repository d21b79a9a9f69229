# The loop around the core, and the program.
add_library(cloister_coordinator STATIC
  loop.c
  loop_apply.c
  loop_commit.c
  loop_failures.c
  loop_fill.c
  loop_finish.c
  loop_gather.c
  loop_inbox.c
  loop_prepare.c
  loop_recover.c
  loop_replies.c
  loop_restore.c
  loop_turn.c
  repair.c
  repair_fold.c
  repair_texts.c
  settings.c)
target_link_libraries(cloister_coordinator PUBLIC cloister_core cloister_ledger cloister_store
                      cloister_proto cloister_transport cloister_config cloister_common
                      Threads::Threads)
cloister_target(cloister_coordinator)

add_executable(cloister-coordinator main.c)
target_link_libraries(cloister-coordinator PRIVATE cloister_coordinator cloister_program
                                                      cloister_version)
cloister_target(cloister-coordinator)
install(TARGETS cloister-coordinator RUNTIME)
