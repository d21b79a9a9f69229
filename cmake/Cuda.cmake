# The CUDA compiler, where there is one, and how kernels are compiled with it.
#
# Found are, in this order: CLOISTER_CUDA_ROOT, nvcc in PATH, /usr/local/cuda, what deploy/cuda-toolkit
# brought. Set are
#   CLOISTER_CUDA_FOUND    whether kernels are compiled
#   CLOISTER_CUDA_WHY_NOT  one line, where they are not
#   CLOISTER_HAVE_CUDA     the same for the sources, 0 or 1
#
# CMake's own CUDA language is not used: it would make g++ the linker of every program that a kernel
# gets into, and versions before 3.30 do not know the architectures of a compiler newer than they.
set(CLOISTER_CUDA AUTO CACHE STRING "compile CUDA kernels: AUTO (where there is a compiler), ON or OFF")
set_property(CACHE CLOISTER_CUDA PROPERTY STRINGS AUTO ON OFF)
set(CLOISTER_CUDA_ROOT "" CACHE PATH "folder of the CUDA toolkit, instead of looking for one")
set(CLOISTER_CUDA_ARCHITECTURES "90" CACHE STRING
    "machine code for these compute capabilities, as 80;90, or all; PTX for the oldest is added")

# Data centre and desktop generations since Ampere: A100, L4 and RTX 40, H100, B200, RTX 50.
set(CLOISTER_CUDA_ALL 80 89 90 100 120)
# The oldest that kernels are written for; its PTX is what newer GPUs without code of their own use.
set(CLOISTER_CUDA_PTX 80)
set(CLOISTER_CUDA_RELEASE_MIN 12.8) # the first that knows 100 and 120

set(CLOISTER_CUDA_FOUND OFF)
set(CLOISTER_CUDA_WHY_NOT "")

if(DEFINED ENV{CLOISTER_CACHE})
  set(cuda_cache $ENV{CLOISTER_CACHE}/cuda)
elseif(DEFINED ENV{XDG_CACHE_HOME})
  set(cuda_cache $ENV{XDG_CACHE_HOME}/cloister/cuda)
else()
  set(cuda_cache $ENV{HOME}/.cache/cloister/cuda)
endif()

# The candidate's folder and release, or an empty folder.
function(cuda_probe nvcc ret_root ret_release)
  set(${ret_root} "" PARENT_SCOPE)
  set(${ret_release} "" PARENT_SCOPE)
  execute_process(COMMAND ${nvcc} --version OUTPUT_VARIABLE text ERROR_QUIET RESULT_VARIABLE status)
  if(NOT status EQUAL 0 OR NOT text MATCHES "release ([0-9]+\\.[0-9]+)")
    return()
  endif()
  set(release ${CMAKE_MATCH_1})
  # nvcc may be a link or a script: it says itself where its toolkit is.
  execute_process(COMMAND ${nvcc} -v __none ERROR_VARIABLE text OUTPUT_QUIET)
  if(text MATCHES "#\\$ TOP=([^\r\n]*)")
    get_filename_component(root ${CMAKE_MATCH_1} ABSOLUTE)
    set(${ret_root} ${root} PARENT_SCOPE)
    set(${ret_release} ${release} PARENT_SCOPE)
  endif()
endfunction()

function(cuda_find)
  find_program(host_compiler g++ NO_CACHE)
  if(NOT host_compiler)
    set(CLOISTER_CUDA_WHY_NOT "no g++ here, which nvcc works with (apt-get install g++)" PARENT_SCOPE)
    return()
  endif()
  set(why "no nvcc here (deploy/cuda-toolkit brings one)")
  if(CLOISTER_CUDA_ROOT)
    set(candidates ${CLOISTER_CUDA_ROOT}/bin/nvcc)
    set(why "no nvcc in ${CLOISTER_CUDA_ROOT}/bin, the CLOISTER_CUDA_ROOT")
  else()
    find_program(nvcc_in_path nvcc NO_CACHE)
    set(candidates /usr/local/cuda/bin/nvcc ${cuda_cache}/compiler/bin/nvcc)
    if(nvcc_in_path)
      list(PREPEND candidates ${nvcc_in_path})
    endif()
  endif()
  foreach(nvcc ${candidates})
    if(NOT EXISTS ${nvcc})
      continue()
    endif()
    cuda_probe(${nvcc} root release)
    if(NOT root)
      set(why "${nvcc} does not work")
    elseif(release VERSION_LESS CLOISTER_CUDA_RELEASE_MIN)
      set(why "${nvcc} is release ${release}, older than ${CLOISTER_CUDA_RELEASE_MIN}")
    else()
      set(suffixes include targets/${CMAKE_SYSTEM_PROCESSOR}-linux/include)
      find_path(include cuda_runtime_api.h PATHS ${root} PATH_SUFFIXES ${suffixes}
                NO_DEFAULT_PATH NO_CACHE)
      find_library(runtime libcudart_static.a PATHS ${root}
                   PATH_SUFFIXES lib64 lib targets/${CMAKE_SYSTEM_PROCESSOR}-linux/lib
                   NO_DEFAULT_PATH NO_CACHE)
      if(include AND runtime)
        set(CLOISTER_CUDA_FOUND ON PARENT_SCOPE)
        set(CLOISTER_NVCC ${nvcc} PARENT_SCOPE)
        set(CLOISTER_CUDA_RELEASE ${release} PARENT_SCOPE)
        set(CLOISTER_CUDA_INCLUDE ${include} PARENT_SCOPE)
        set(CLOISTER_CUDA_RUNTIME ${runtime} PARENT_SCOPE)
        set(CLOISTER_CUDA_TOP ${root} PARENT_SCOPE)
        return()
      endif()
      set(why "the toolkit at ${root} lacks cuda_runtime_api.h or libcudart_static.a")
    endif()
  endforeach()
  set(CLOISTER_CUDA_WHY_NOT "${why}" PARENT_SCOPE)
endfunction()

if(NOT CLOISTER_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "CLOISTER_CUDA is AUTO, ON or OFF, not ${CLOISTER_CUDA}")
elseif(CLOISTER_CUDA STREQUAL OFF)
  set(CLOISTER_CUDA_WHY_NOT "CLOISTER_CUDA is OFF")
elseif(CLOISTER_CUDA STREQUAL AUTO AND (CLOISTER_SANITIZE OR CLOISTER_FUZZ OR CLOISTER_COVERAGE))
  # nothing there can run the kernels but their emulation, which is compiled like any other source
  set(CLOISTER_CUDA_WHY_NOT "an instrumented build")
else()
  cuda_find()
endif()

set(CLOISTER_CUDA_REAL ${CLOISTER_CUDA_ARCHITECTURES})
if(CLOISTER_CUDA_REAL STREQUAL all)
  set(CLOISTER_CUDA_REAL ${CLOISTER_CUDA_ALL})
endif()
foreach(architecture ${CLOISTER_CUDA_REAL})
  if(NOT architecture IN_LIST CLOISTER_CUDA_ALL)
    message(FATAL_ERROR "CLOISTER_CUDA_ARCHITECTURES: ${architecture} is none of ${CLOISTER_CUDA_ALL}")
  endif()
endforeach()

if(CLOISTER_CUDA_FOUND)
  set(CLOISTER_HAVE_CUDA 1)
  message(STATUS "CUDA: ${CLOISTER_NVCC}, release ${CLOISTER_CUDA_RELEASE}; code for "
                 "${CLOISTER_CUDA_REAL}, PTX for ${CLOISTER_CUDA_PTX}")
  find_program(CLOISTER_CUOBJDUMP cuobjdump NO_CACHE
               HINTS ${CLOISTER_CUDA_TOP}/bin /usr/local/cuda/bin ${cuda_cache}/inspect/bin)
  # Static, so that one program runs with and without a GPU: what it needs of NVIDIA's (libcuda) the
  # runtime opens itself when it is first called.
  add_library(cloister_cudart INTERFACE)
  target_include_directories(cloister_cudart SYSTEM INTERFACE ${CLOISTER_CUDA_INCLUDE})
  target_link_libraries(cloister_cudart INTERFACE ${CLOISTER_CUDA_RUNTIME} Threads::Threads
                                                  ${CMAKE_DL_LIBS} rt)
else()
  set(CLOISTER_HAVE_CUDA 0)
  if(CLOISTER_CUDA STREQUAL ON)
    message(FATAL_ERROR "CLOISTER_CUDA is ON, but ${CLOISTER_CUDA_WHY_NOT}")
  endif()
  message(STATUS "CUDA is off: ${CLOISTER_CUDA_WHY_NOT}")
endif()
add_compile_definitions(CLOISTER_HAVE_CUDA=${CLOISTER_HAVE_CUDA})

# Arithmetic to the reference's bits: nothing fused, flushed or approximated that the source does not say.
set(CLOISTER_NVCC_FLAGS -std=c++17 -fmad=false -ftz=false -prec-div=true -prec-sqrt=true
    -lineinfo -Werror all-warnings -Xptxas -v)
foreach(architecture ${CLOISTER_CUDA_REAL})
  list(APPEND CLOISTER_NVCC_FLAGS -gencode arch=compute_${architecture},code=sm_${architecture})
endforeach()
list(APPEND CLOISTER_NVCC_FLAGS
     -gencode arch=compute_${CLOISTER_CUDA_PTX},code=compute_${CLOISTER_CUDA_PTX})
# The host's part of a .cu file is its launchers: no exceptions, no RTTI, and so no libstdc++.
set(cuda_host_flags -fPIC -ffp-contract=off -fno-fast-math -fno-exceptions -fno-rtti
    -fno-threadsafe-statics -Wall -Wextra -Wshadow -Werror)
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  list(APPEND cuda_host_flags -O0 -g)
else()
  list(APPEND cuda_host_flags -O2 -g)
endif()
if(CLOISTER_SANITIZE)
  string(REPLACE "," "\\," sanitize ${CLOISTER_SANITIZE})
  list(APPEND cuda_host_flags -fsanitize=${sanitize})
endif()
foreach(flag ${cuda_host_flags})
  list(APPEND CLOISTER_NVCC_FLAGS -Xcompiler ${flag})
endforeach()

# cloister_cuda_library(NAME SOURCES a.cu ... [LIBS ...]): a static library of kernels and their launchers. Beside each
# object lies OBJECT.ptxas, what ptxas said of it; tests/cuda_build reads both (global properties
# CLOISTER_CUDA_OBJECTS, CLOISTER_CUDA_PTXAS).
function(cloister_cuda_library name)
  cmake_parse_arguments(L "" "" "SOURCES;LIBS" ${ARGN})
  set(objects "")
  foreach(source ${L_SOURCES})
    get_filename_component(path ${source} ABSOLUTE)
    get_filename_component(stem ${source} NAME)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.dir/${stem}.o)
    file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/${name}.dir)
    add_custom_command(
      OUTPUT ${object} ${object}.ptxas
      COMMAND ${PROJECT_SOURCE_DIR}/cmake/nvcc_logged.sh ${object}.ptxas ${CLOISTER_NVCC}
              ${CLOISTER_NVCC_FLAGS} -DCLOISTER_HAVE_CUDA=1
              -I${PROJECT_SOURCE_DIR} -I${PROJECT_BINARY_DIR}/generated
              -MD -MF ${object}.d -MT ${object} -c ${path} -o ${object}
      DEPENDS ${path} ${PROJECT_SOURCE_DIR}/cmake/nvcc_logged.sh
      DEPFILE ${object}.d
      COMMENT "Building CUDA object ${stem}.o"
      VERBATIM)
    list(APPEND objects ${object})
    set_property(GLOBAL APPEND PROPERTY CLOISTER_CUDA_PTXAS ${object}.ptxas)
  endforeach()
  set_property(GLOBAL APPEND PROPERTY CLOISTER_CUDA_OBJECTS ${objects})
  set_source_files_properties(${objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  add_library(${name} STATIC ${objects})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE C)
  target_link_libraries(${name} PUBLIC ${L_LIBS} cloister_cudart)
endfunction()
