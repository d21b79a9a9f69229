# Model files: loader, architecture table, tokenizers, chat templates. Tests that
# need a real model skip (exit 77) and say which variable was not set.
cloister_unit_test(model_gguf SOURCES unit/model/test_gguf.c LIBS cloister_gguf_build cloister_model)
cloister_unit_test(model_hparams SOURCES unit/model/test_hparams.c
                   LIBS cloister_gguf_build cloister_model)
cloister_unit_test(model_file_type SOURCES unit/model/test_file_type.c
                   LIBS cloister_gguf_build cloister_model)
cloister_unit_test(model_arch SOURCES unit/model/test_arch.c LIBS cloister_gguf_build cloister_model)
cloister_unit_test(model_split SOURCES unit/model/test_split.c
                   LIBS cloister_gguf_build cloister_model)

add_library(cloister_test_vectors STATIC unit/model/vectors.c)
target_link_libraries(cloister_test_vectors PUBLIC cloister_gguf_build cloister_model
                                                   PkgConfig::JANSSON PkgConfig::CMOCKA)
cloister_target(cloister_test_vectors)

cloister_unit_test(model_vectors SOURCES unit/model/test_vectors.c LIBS cloister_test_vectors)
foreach(model smollm2 gemma3)
  add_test(NAME model_vectors_${model} COMMAND test_model_vectors ${model}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(model_vectors_${model} PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77)
endforeach()
cloister_unit_test(model_tokenizer SOURCES unit/model/test_tokenizer.c
                   LIBS cloister_gguf_build cloister_model)

cloister_unit_test(model_prompt_bound SOURCES unit/model/test_prompt_bound.c
                   LIBS cloister_gguf_build cloister_model)
cloister_unit_test(model_tokenizer_merge SOURCES unit/model/test_tokenizer_merge.c
                   LIBS cloister_gguf_build cloister_model)

cloister_unit_test(model_chat SOURCES unit/model/test_chat.c LIBS cloister_test_vectors)
add_test(NAME model_chat_smollm2 COMMAND test_model_chat smollm2
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(model_chat_smollm2 PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77)

# The same without PCRE2's JIT: the interpreter must be as exact, and as linear.
cloister_unit_test(model_tokenizer_no_jit SOURCES unit/model/test_tokenizer.c unit/model/no_jit.c
                   LIBS cloister_gguf_build cloister_model)
cloister_unit_test(model_vectors_no_jit SOURCES unit/model/test_vectors.c unit/model/no_jit.c
                   LIBS cloister_test_vectors)

# Not a test: `bench_tokenizer FILE...` prints the megabytes a second of each kind of text.
add_executable(bench_tokenizer bench/bench_tokenizer.c)
target_link_libraries(bench_tokenizer PRIVATE cloister_model)
cloister_target(bench_tokenizer)
