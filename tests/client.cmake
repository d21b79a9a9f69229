# Configuration reader, libcloister and the command line.
cloister_unit_test(units SOURCES unit/config/test_units.c)
cloister_unit_test(memory SOURCES unit/common/test_memory.c unit/common/fake_groups.c)
cloister_unit_test(fair_split SOURCES unit/common/test_fair_split.c)
cloister_unit_test(shard_cut SOURCES unit/common/test_shard_cut.c)
cloister_unit_test(flags SOURCES unit/config/test_flags.c)
cloister_unit_test(program SOURCES unit/config/test_program.c LIBS cloister_program)
cloister_unit_test(config SOURCES unit/config/test_config.c LIBS cloister_config)

# libcloister over real transport on loopback, against a coordinator that misbehaves on request.
add_library(cloister_fake_coordinator STATIC unit/client/fake_coordinator.c)
target_include_directories(cloister_fake_coordinator PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(cloister_fake_coordinator PUBLIC cloister_proto cloister_transport
                                                       cloister_common)
cloister_target(cloister_fake_coordinator)
cloister_unit_test(client SOURCES unit/client/test_connection.c
                   LIBS cloister_client cloister_fake_coordinator)

# What the commands are made of.
foreach(part output batch_line)
  cloister_unit_test(cli_${part} SOURCES unit/client/test_${part}.c LIBS cloister_cli)
endforeach()

# The program itself, run as a user runs it.
foreach(part cli batch)
  cloister_unit_test(program_${part}
    SOURCES unit/client/test_${part}.c unit/client/run.c
    LIBS cloister_cli cloister_fake_coordinator)
  target_compile_definitions(test_program_${part}
    PRIVATE CLOISTER_PROGRAM="$<TARGET_FILE:cloister>")
  add_dependencies(test_program_${part} cloister)
endforeach()

# The documents say what the programs do; the libraries show what the header says.
find_package(Python3 COMPONENTS Interpreter)
add_test(NAME documents
         COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/unit/client/test_documents.py
                 ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${PROJECT_SOURCE_DIR})
set(library_test_flags "")
if(CLOISTER_SANITIZE)
  set(library_test_flags "-fsanitize=${CLOISTER_SANITIZE}")
elseif(CLOISTER_COVERAGE)
  set(library_test_flags "--coverage")
endif()
add_test(NAME client_library
         COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/unit/client/test_library.py
                 ${CMAKE_LIBRARY_OUTPUT_DIRECTORY} ${PROJECT_SOURCE_DIR} ${CMAKE_C_COMPILER}
                 "${library_test_flags}")
add_test(NAME install
         COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/unit/client/test_install.py
                 ${CMAKE_COMMAND} ${PROJECT_BINARY_DIR} ${PROJECT_SOURCE_DIR} ${CMAKE_C_COMPILER}
                 "${library_test_flags}")
set_tests_properties(documents client_library install PROPERTIES
  ENVIRONMENT PYTHONDONTWRITEBYTECODE=1 TIMEOUT 300)
