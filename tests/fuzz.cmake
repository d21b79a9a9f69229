# cloister_fuzz_target(NAME SOURCES... LIBS libraries...): a libFuzzer program. ctest runs each for
# some seconds; what it finds worth keeping goes to the build folder, and begins with the files of
# tests/fuzz/corpus/NAME where there are any. For longer:
#   build/fuzz/bin/fuzz_wire -max_total_time=300 FOLDER tests/fuzz/corpus/fuzz_wire
if(NOT CLOISTER_FUZZ)
  return()
endif()
if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "CLOISTER_FUZZ needs clang: cmake --preset fuzz")
endif()

function(cloister_fuzz_target name)
  cmake_parse_arguments(F "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${F_SOURCES})
  target_link_libraries(${name} PRIVATE ${F_LIBS} cloister_common)
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  cloister_target(${name})
  set(found ${CMAKE_CURRENT_BINARY_DIR}/corpus/${name})
  file(MAKE_DIRECTORY ${found})
  set(corpus ${found})
  if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${name})
    list(APPEND corpus ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${name})
  endif()
  add_test(NAME ${name}
           COMMAND ${name} -max_total_time=5 -timeout=25 -rss_limit_mb=4096 ${corpus})
  set_tests_properties(${name} PROPERTIES TIMEOUT 120)
endfunction()

# One line a target: name, then the libraries it needs.
foreach(target
    "fuzz_wire;cloister_proto"
    "fuzz_gguf;cloister_engine"
    "fuzz_tokenizer;cloister_gguf_build;cloister_model"
    "fuzz_chat;cloister_gguf_build;cloister_model"
    "fuzz_config;cloister_config"
    "fuzz_json;cloister_cli"
    "fuzz_ledger;cloister_ledger")
  list(POP_FRONT target name)
  if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/${name}.c)
    cloister_fuzz_target(${name} SOURCES fuzz/${name}.c LIBS ${target})
  endif()
endforeach()
