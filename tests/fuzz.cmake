# What takes bytes from outside, as targets for libFuzzer, and what fuzzing found worth keeping:
# tests/fuzz/corpus/NAME.
#
# With CLOISTER_FUZZ, ctest fuzzes each target for some seconds, beginning with its corpus; what that
# finds goes to the build folder. Without, it runs each file of the corpus once (corpus_NAME).
if(CLOISTER_FUZZ AND NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "CLOISTER_FUZZ needs clang: cmake --preset fuzz")
endif()

# cloister_fuzz_target(NAME libraries...): fuzz/fuzz_NAME.c.
function(cloister_fuzz_target name)
  set(program replay_${name})
  set(sources fuzz/fuzz_${name}.c fuzz/replay.c)
  set(corpus ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/fuzz_${name})
  if(CLOISTER_FUZZ)
    set(program fuzz_${name})
    set(sources fuzz/fuzz_${name}.c)
  endif()
  add_executable(${program} ${sources})
  target_link_libraries(${program} PRIVATE ${ARGN} cloister_common)
  cloister_target(${program})
  if(CLOISTER_FUZZ)
    target_compile_options(${program} PRIVATE -fsanitize=fuzzer)
    target_link_options(${program} PRIVATE -fsanitize=fuzzer)
    set(found ${CMAKE_CURRENT_BINARY_DIR}/corpus/fuzz_${name})
    file(MAKE_DIRECTORY ${found})
    add_test(NAME fuzz_${name} COMMAND ${program} -max_total_time=5 -timeout=25
                                       -rss_limit_mb=4096 ${found} ${corpus})
    set_tests_properties(fuzz_${name} PROPERTIES TIMEOUT 120)
  else()
    add_test(NAME corpus_${name} COMMAND ${program} ${corpus})
    set_tests_properties(corpus_${name} PROPERTIES TIMEOUT 300)
  endif()
endfunction()

cloister_fuzz_target(wire cloister_proto)
cloister_fuzz_target(gguf cloister_engine)
cloister_fuzz_target(gang cloister_engine)
cloister_fuzz_target(tokenizer cloister_gguf_build cloister_model)
cloister_fuzz_target(chat cloister_gguf_build cloister_model)
cloister_fuzz_target(config cloister_config)
cloister_fuzz_target(json cloister_cli)
cloister_fuzz_target(ledger cloister_ledger)
