foreach(part sampling stream batch)
  cloister_unit_test(engine_${part} SOURCES unit/engine/test_${part}.c LIBS cloister_engine_core)
endforeach()
cloister_unit_test(engine_threads
  SOURCES unit/engine/test_engine.c unit/engine/rig.c unit/engine/tiny_model.c
  LIBS cloister_engine)
