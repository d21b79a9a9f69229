# Store and ledger: unit tests, tests of broken disks and files, and the commands of docs/ledger.md.
if(NOT CLOISTER_TESTS)
  return()
endif()

add_library(cloister_store_test STATIC unit/store/store_test.c)
target_link_libraries(cloister_store_test PUBLIC cloister_store cloister_common PkgConfig::CMOCKA)
cloister_target(cloister_store_test)

cloister_unit_test(store SOURCES unit/store/test_store.c
                   LIBS cloister_store_test cloister_store Threads::Threads)
cloister_unit_test(store_damage SOURCES unit/store/test_store_damage.c
                   LIBS cloister_store_test cloister_store PkgConfig::LMDB)
cloister_unit_test(store_pages SOURCES unit/store/test_store_pages.c
                   LIBS cloister_store_test cloister_store)
set_tests_properties(store_pages PROPERTIES TIMEOUT 900) # some thousand commits
cloister_unit_test(store_faults SOURCES unit/store/test_store_faults.c
                   LIBS cloister_store_test cloister_store)
cloister_unit_test(store_disk_full SOURCES unit/store/test_store_disk_full.c
                   LIBS cloister_store_test cloister_store)
set_tests_properties(store_disk_full PROPERTIES SKIP_RETURN_CODE 77)

cloister_unit_test(merkle SOURCES unit/ledger/test_merkle.c LIBS cloister_ledger_verify)
cloister_unit_test(note SOURCES unit/ledger/test_note.c LIBS cloister_ledger_verify)

add_library(cloister_ledger_test STATIC unit/ledger/ledger_test.c)
target_link_libraries(cloister_ledger_test PUBLIC cloister_ledger cloister_store_test)
cloister_target(cloister_ledger_test)

cloister_unit_test(ledger SOURCES unit/ledger/test_ledger.c
                   LIBS cloister_ledger_test cloister_ledger PkgConfig::LIBCRYPTO Threads::Threads)
# Exported files: good ones, records that break a rule, files changed after signing.
foreach(part export export_rules export_changed)
  cloister_unit_test(ledger_${part} SOURCES unit/ledger/test_${part}.c unit/ledger/export_file.c
                     LIBS cloister_ledger_test cloister_ledger cloister_ledger_verify
                          PkgConfig::JANSSON)
endforeach()

add_executable(ledger_make_export unit/ledger/make_export.c)
target_link_libraries(ledger_make_export PRIVATE cloister_ledger_test cloister_ledger)
cloister_target(ledger_make_export)
add_test(NAME ledger_docs_commands
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/ledger/test_docs_commands.sh
                 $<TARGET_FILE:ledger_make_export> ${PROJECT_SOURCE_DIR})
set_tests_properties(ledger_docs_commands PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 120)
# Its every bit is flipped, which takes a while under a sanitizer on a busy machine.
set_tests_properties(ledger_export_changed PROPERTIES TIMEOUT 900)

# Not a test: `bench_store` prints commits a second beside those of bare LMDB.
add_executable(bench_store bench/bench_store.c)
target_link_libraries(bench_store PRIVATE cloister_ledger cloister_store PkgConfig::LMDB)
cloister_target(bench_store)
