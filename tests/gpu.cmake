# What a GPU says of itself, over a library that stands in for NVML: unit tests of the readings, and
# programs that find it under NVML's own name.
set(nvml_stand_in ${CMAKE_BINARY_DIR}/lib/nvml_stand_in)
foreach(kind stand_in old)
  add_library(nvml_${kind} MODULE nvml_stand_in/nvml_stand_in.c)
  cloister_target(nvml_${kind})
  set_target_properties(nvml_${kind} PROPERTIES C_VISIBILITY_PRESET hidden PREFIX "")
endforeach()
target_compile_definitions(nvml_old PRIVATE NVML_STAND_IN_OLD)
# Prototypes of functions that it does not have are declared all the same.
set_target_properties(nvml_stand_in PROPERTIES OUTPUT_NAME libnvidia-ml SUFFIX .so.1
                      LIBRARY_OUTPUT_DIRECTORY ${nvml_stand_in})

add_library(gpu_stand_in STATIC unit/gpu/stand_in.c)
target_link_libraries(gpu_stand_in PRIVATE PkgConfig::CMOCKA)
cloister_target(gpu_stand_in)
cloister_unit_test(nvml SOURCES unit/gpu/test_nvml.c LIBS gpu_stand_in cloister_agent
                   ARGS $<TARGET_FILE:nvml_stand_in> $<TARGET_FILE:nvml_old>)
cloister_unit_test(gpu_watch SOURCES unit/gpu/test_gpu_watch.c LIBS gpu_stand_in cloister_agent
                   ARGS $<TARGET_FILE:nvml_stand_in>)
add_dependencies(test_nvml nvml_stand_in nvml_old)
add_dependencies(test_gpu_watch nvml_stand_in)

# NVIDIA's header comes with a toolkit, as a rule.
find_path(NVML_HEADER nvml.h HINTS ${CLOISTER_CUDA_INCLUDE} ${cuda_cache}/inspect/include
          NO_DEFAULT_PATH)
if(NVML_HEADER)
  add_executable(test_nvml_abi unit/gpu/test_nvml_abi.c)
  target_include_directories(test_nvml_abi SYSTEM PRIVATE ${NVML_HEADER})
  cloister_target(test_nvml_abi)
  target_compile_options(test_nvml_abi PRIVATE -Wno-deprecated-declarations)
  add_test(NAME nvml_abi COMMAND test_nvml_abi)
endif()

# cloister-worker, but for the CUDA backend.
add_executable(cloister-worker-nvml ${PROJECT_SOURCE_DIR}/worker/main.c
               nvml_stand_in/backend_stand_in.c)
target_link_libraries(cloister-worker-nvml PRIVATE cloister_agent cloister_program)
cloister_target(cloister-worker-nvml)
add_dependencies(cloister-worker-nvml nvml_stand_in)
cloister_unit_test(worker_device SOURCES unit/worker/test_device.c LIBS gpu_stand_in cloister_agent)
