execute_process(COMMAND ${PROGRAM} --print-config OUTPUT_VARIABLE printed RESULT_VARIABLE status)
file(READ ${EXAMPLE} stored)
if(NOT status EQUAL 0 OR NOT printed STREQUAL stored)
  message(FATAL_ERROR "${EXAMPLE} is not what --print-config prints: "
                      "run cloister-coordinator --print-config > deploy/examples/coordinator.cfg")
endif()
execute_process(COMMAND ${PROGRAM} --check-config --config ${EXAMPLE} --data /tmp
                RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "the example is refused")
endif()
