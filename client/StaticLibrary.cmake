# Links the library's objects and what they need of ours into one, keeps only the API's names global
# (those of cloister.map), and archives it.
file(STRINGS ${MAP} LINES REGEX "^    cloister_")
set(KEEP "")
foreach(line ${LINES})
  string(REGEX REPLACE "[ ;]" "" name "${line}")
  string(APPEND KEEP "${name}\n")
endforeach()
# The lines end with a semicolon, which cmake takes for a separator of its own lists.
file(WRITE ${OUTPUT}.names "${KEEP}")
string(REPLACE "," ";" PARTS "${PARTS}")
execute_process(COMMAND ${LINKER} -r -o ${OUTPUT}.o --whole-archive ${WHOLE} --no-whole-archive
                        --start-group ${PARTS} --end-group
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${OBJCOPY} --keep-global-symbols=${OUTPUT}.names ${OUTPUT}.o
                COMMAND_ERROR_IS_FATAL ANY)
file(REMOVE ${OUTPUT})
execute_process(COMMAND ${AR} rcs ${OUTPUT} ${OUTPUT}.o COMMAND_ERROR_IS_FATAL ANY)
file(REMOVE ${OUTPUT}.o ${OUTPUT}.names)
