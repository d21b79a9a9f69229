foreach(part sampling stream batch)
  cloister_unit_test(engine_${part} SOURCES unit/engine/test_${part}.c LIBS cloister_engine_core)
endforeach()
