# Collectives. Each test runs once for a transport; that of libucx is skipped, saying why, where the
# build or the machine lacks it.
add_library(cloister_coll_crew STATIC unit/coll/crew.c unit/coll/host_device.c unit/coll/netns.c
                                       unit/common/fake_groups.c)
target_link_libraries(cloister_coll_crew PUBLIC cloister_coll)
cloister_target(cloister_coll_crew)

# In NCCL's place, under its name: what it is asked for goes between processes, on a device that the
# program has (nccl_stand_in.c).
set(nccl_stand_in ${CMAKE_BINARY_DIR}/lib/nccl_stand_in)
add_library(nccl_stand_in MODULE nccl_stand_in/nccl_stand_in.c)
cloister_target(nccl_stand_in)
target_link_libraries(nccl_stand_in PRIVATE ${CMAKE_DL_LIBS})
set_target_properties(nccl_stand_in PROPERTIES C_VISIBILITY_PRESET hidden PREFIX "" OUTPUT_NAME libnccl
                      SUFFIX .so.2 LIBRARY_OUTPUT_DIRECTORY ${nccl_stand_in})

function(cloister_coll_test name)
  add_executable(test_coll_${name} unit/coll/test_${name}.c)
  target_link_libraries(test_coll_${name} PRIVATE cloister_coll_crew cloister_common PkgConfig::CMOCKA)
  set_target_properties(test_coll_${name} PROPERTIES ENABLE_EXPORTS ON)
  add_dependencies(test_coll_${name} nccl_stand_in)
  cloister_target(test_coll_${name})
  foreach(transport ${ARGN})
    add_test(NAME coll_${transport}_${name} COMMAND test_coll_${name} ${transport}
             WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(coll_${transport}_${name} PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77
      ENVIRONMENT "TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp;LD_LIBRARY_PATH=${nccl_stand_in}")
  endforeach()
endfunction()

cloister_coll_test(operations shm ucx nccl)
cloister_coll_test(broken shm ucx nccl)
cloister_coll_test(meeting shm ucx)
cloister_coll_test(strangers shm ucx)
cloister_coll_test(host shm)
cloister_coll_test(netns ucx)
cloister_coll_test(nccl nccl)
cloister_coll_test(port ucx)
cloister_coll_test(split shm ucx hosts nccl)

# NVIDIA's header comes with some toolkits, and with deploy/cuda-toolkit --nccl.
if(CLOISTER_CUDA_FOUND)
  find_path(NCCL_HEADER nccl.h HINTS ${CLOISTER_CUDA_INCLUDE} ${cuda_cache}/nccl/include NO_DEFAULT_PATH)
endif()
if(NCCL_HEADER)
  add_executable(test_nccl_abi unit/coll/test_nccl_abi.c)
  target_include_directories(test_nccl_abi SYSTEM PRIVATE ${NCCL_HEADER} ${CLOISTER_CUDA_INCLUDE})
  target_link_libraries(test_nccl_abi PRIVATE cloister_coll)
  cloister_target(test_nccl_abi)
  target_compile_options(test_nccl_abi PRIVATE -Wno-strict-prototypes)
  add_test(NAME nccl_abi COMMAND test_nccl_abi)
  set_tests_properties(nccl_abi PROPERTIES SKIP_RETURN_CODE 77
    ENVIRONMENT "LD_LIBRARY_PATH=${cuda_cache}/nccl/lib")
endif()

# Not a test: `bench_coll` prints microseconds an operation beside those of a memcpy.
add_executable(bench_coll bench/bench_coll.c)
target_link_libraries(bench_coll PRIVATE cloister_coll_crew cloister_kernels cloister_common)
cloister_target(bench_coll)
