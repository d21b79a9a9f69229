# Requests and replies: transport.h over nng.
cloister_unit_test(transport
  SOURCES unit/transport/test_transport.c unit/transport/fixture.c
  LIBS cloister_transport)
