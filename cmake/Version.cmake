# The git revision is looked up at every build, not at configuration, so that
# `cloister --version` never names an older commit than the one it was made from.
set(CLOISTER_VERSION_C ${PROJECT_BINARY_DIR}/generated/version_generated.c)
add_custom_target(cloister_version_generate
  COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${PROJECT_SOURCE_DIR} -DOUTPUT=${CLOISTER_VERSION_C}
          -DVERSION=${PROJECT_VERSION} -P ${PROJECT_SOURCE_DIR}/cmake/WriteVersion.cmake
  BYPRODUCTS ${CLOISTER_VERSION_C}
  COMMENT "")
