# Collectives. Each test runs once for a transport; that of libucx is skipped, saying why, where the
# build or the machine lacks it.
add_library(cloister_coll_crew STATIC unit/coll/crew.c unit/coll/netns.c)
target_link_libraries(cloister_coll_crew PUBLIC cloister_coll)
cloister_target(cloister_coll_crew)

function(cloister_coll_test name)
  add_executable(test_coll_${name} unit/coll/test_${name}.c)
  target_link_libraries(test_coll_${name} PRIVATE cloister_coll_crew cloister_common PkgConfig::CMOCKA)
  cloister_target(test_coll_${name})
  foreach(transport ${ARGN})
    add_test(NAME coll_${transport}_${name} COMMAND test_coll_${name} ${transport}
             WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(coll_${transport}_${name} PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77
      ENVIRONMENT "TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp")
  endforeach()
endfunction()

cloister_coll_test(operations shm ucx)
cloister_coll_test(broken shm ucx)
cloister_coll_test(meeting shm ucx)
cloister_coll_test(netns ucx)
cloister_coll_test(port ucx)
cloister_coll_test(split shm ucx hosts)

# Not a test: `bench_coll` prints microseconds an operation beside those of a memcpy.
add_executable(bench_coll bench/bench_coll.c)
target_link_libraries(bench_coll PRIVATE cloister_coll_crew cloister_kernels cloister_common)
cloister_target(bench_coll)
