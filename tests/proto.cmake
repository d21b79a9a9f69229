# Messages: packed bytes against those that protoc makes, and what is refused.
set(PROTO_TEST_PARTS unit/proto/samples.c unit/proto/walk.c)
foreach(part wire wire_bytes wire_refused wire_hostile record)
  cloister_unit_test(${part}
    SOURCES unit/proto/test_${part}.c ${PROTO_TEST_PARTS}
    LIBS cloister_proto)
endforeach()

# Key files: who may read them, and many processes that make one at once.
cloister_unit_test(crypto SOURCES unit/transport/test_crypto.c)

# Requests and replies: transport.h over nng.
cloister_unit_test(transport
  SOURCES unit/transport/test_transport.c unit/transport/fixture.c
  LIBS cloister_transport)
cloister_unit_test(transport_tls
  SOURCES unit/transport/test_transport_tls.c unit/transport/fixture.c unit/transport/tls_files.c
  LIBS cloister_transport)
cloister_unit_test(transport_close
  SOURCES unit/transport/test_transport_close.c unit/transport/fixture.c unit/transport/tls_files.c
  LIBS cloister_transport)
cloister_unit_test(transport_slow
  SOURCES unit/transport/test_transport_slow.c unit/transport/fixture.c
  LIBS cloister_transport)
cloister_unit_test(transport_bounds
  SOURCES unit/transport/test_transport_bounds.c unit/transport/fixture.c
  LIBS cloister_transport nng::nng)

# Measured by hand, not by ctest.
add_executable(bench_wire bench/bench_wire.c)
target_link_libraries(bench_wire PRIVATE cloister_proto)
cloister_target(bench_wire)
add_executable(bench_transport bench/bench_transport.c bench/bare_nng.c)
target_link_libraries(bench_transport PRIVATE cloister_transport nng::nng)
cloister_target(bench_transport)

# Which part may know which; also that every header compiles alone.
find_program(PYTHON3 NAMES python3 REQUIRED)
add_test(NAME include_direction
         COMMAND ${PYTHON3} ${PROJECT_SOURCE_DIR}/tests/check_includes.py --cc ${CMAKE_C_COMPILER}
                 --root ${PROJECT_SOURCE_DIR})
add_test(NAME include_direction_self_test
         COMMAND ${PYTHON3} ${PROJECT_SOURCE_DIR}/tests/check_includes.py --self-test)
