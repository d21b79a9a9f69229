execute_process(COMMAND git -C ${SOURCE_DIR} describe --always --dirty --abbrev=12 --exclude=*
                OUTPUT_VARIABLE REVISION OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET
                RESULT_VARIABLE STATUS)
if(NOT STATUS EQUAL 0 OR REVISION STREQUAL "")
  set(REVISION "unknown")
endif()
set(TEXT "#include \"common/version.h\"\n\nconst char cloister_version[] = \"${VERSION}\";\nconst char cloister_revision[] = \"${REVISION}\";\n")
set(OLD "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} OLD)
endif()
if(NOT OLD STREQUAL TEXT)
  file(WRITE ${OUTPUT} "${TEXT}")
endif()
