# Whole programs on loopback, driven as a user would. Python 3, standard library only.
find_package(Python3 COMPONENTS Interpreter)
if(NOT Python3_FOUND)
  message(FATAL_ERROR "python3 not found: apt-get install python3")
endif()

function(cloister_integration_test name)
  cmake_parse_arguments(T "" "TIMEOUT" "ARGS" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 600)
  endif()
  add_test(NAME integration_${name}
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/integration/test_${name}.py
                   ${T_ARGS})
  set_tests_properties(integration_${name} PROPERTIES
    ENVIRONMENT "CLOISTER_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY};PYTHONDONTWRITEBYTECODE=1;\
TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp"
    TIMEOUT ${T_TIMEOUT} SKIP_RETURN_CODE 77 LABELS integration)
endfunction()

cloister_integration_test(answer)
# Under a sanitizer a round takes ten times as long.
set(rounds 10)
if(CLOISTER_SANITIZE)
  set(rounds 3)
endif()
cloister_integration_test(kill TIMEOUT 1200 ARGS --rounds ${rounds})
cloister_integration_test(prefix_cache)
cloister_integration_test(errors)
cloister_integration_test(accepted)
cloister_integration_test(disk_full)
cloister_integration_test(tls)
cloister_integration_test(plan)
cloister_integration_test(two_workers)
cloister_integration_test(stopped)
cloister_integration_test(damage)
cloister_integration_test(store_damage)
cloister_integration_test(check_store)
cloister_integration_test(model_replaced)
cloister_integration_test(tiny_models)
cloister_integration_test(examples)
cloister_integration_test(watch_from)
cloister_integration_test(sampling)
cloister_integration_test(gpu)
cloister_integration_test(gang)
cloister_integration_test(gang_gpu TIMEOUT 1200)
cloister_integration_test(gang_shares)
cloister_integration_test(gang_hosts)
