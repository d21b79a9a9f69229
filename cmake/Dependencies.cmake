# Every library we stand on, by the name its Debian package gives it. A missing
# one ends the configuration with the package to install.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

function(cloister_need_pkg target module package)
  pkg_check_modules(${target} QUIET IMPORTED_TARGET ${module})
  if(NOT ${target}_FOUND)
    message(FATAL_ERROR "${module} not found: apt-get install ${package} (or run deploy/build, "
                        "which installs all that is missing)")
  endif()
endfunction()

cloister_need_pkg(PROTOBUF_C libprotobuf-c libprotobuf-c-dev)
cloister_need_pkg(LIBCONFIG libconfig libconfig-dev)
cloister_need_pkg(LIBCRYPTO libcrypto libssl-dev)
cloister_need_pkg(PCRE2 libpcre2-8 libpcre2-dev)
cloister_need_pkg(JANSSON jansson libjansson-dev)
cloister_need_pkg(LMDB lmdb liblmdb-dev)
cloister_need_pkg(XXHASH libxxhash libxxhash-dev)

find_package(nng QUIET CONFIG)
if(NOT TARGET nng::nng)
  message(FATAL_ERROR "nng not found: apt-get install libnng-dev (1.5 or newer)")
endif()

find_program(PROTOC_C NAMES protoc-c)
if(NOT PROTOC_C)
  message(FATAL_ERROR "protoc-c not found: apt-get install protobuf-c-compiler protobuf-compiler")
endif()

# Collectives between hosts. Without it gangs are of one host, and `ucx` is refused with that reason.
pkg_check_modules(UCX QUIET ucx)
if(NOT UCX_FOUND)
  message(STATUS "libucx not found (libucx-dev): no collectives between hosts")
endif()
