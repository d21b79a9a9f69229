# cloister_install_filled(FILE DESTINATION): installs FILE.in as FILE with @CLOISTER_PREFIX@,
# @CLOISTER_BINDIR@, @CLOISTER_LIBDIR@, @CLOISTER_INCLUDEDIR@ and @CLOISTER_VERSION@ filled in. Only when it installs is
# the prefix certain: `cmake --install --prefix` may name another one than the configuration did.
function(cloister_install_filled file destination)
  get_filename_component(name ${file} NAME)
  install(CODE "
    get_filename_component(CLOISTER_PREFIX \"\${CMAKE_INSTALL_PREFIX}\" ABSOLUTE)
    get_filename_component(CLOISTER_BINDIR \"${CMAKE_INSTALL_BINDIR}\" ABSOLUTE BASE_DIR \"\${CLOISTER_PREFIX}\")
    get_filename_component(CLOISTER_LIBDIR \"${CMAKE_INSTALL_LIBDIR}\" ABSOLUTE BASE_DIR \"\${CLOISTER_PREFIX}\")
    get_filename_component(CLOISTER_INCLUDEDIR \"${CMAKE_INSTALL_INCLUDEDIR}\" ABSOLUTE
                           BASE_DIR \"\${CLOISTER_PREFIX}\")
    get_filename_component(destination \"${destination}\" ABSOLUTE BASE_DIR \"\${CLOISTER_PREFIX}\")
    set(CLOISTER_VERSION \"${PROJECT_VERSION}\")
    configure_file(\"${CMAKE_CURRENT_SOURCE_DIR}/${file}.in\" \"${PROJECT_BINARY_DIR}/installed/${name}\"
                   @ONLY)
    file(INSTALL DESTINATION \"\${destination}\" TYPE FILE
         FILES \"${PROJECT_BINARY_DIR}/installed/${name}\")")
endfunction()
