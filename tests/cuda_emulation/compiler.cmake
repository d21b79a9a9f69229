# Whether CUDA can be emulated here: CLOISTER_CUDA_EMULATION. It needs a C++ compiler, which nothing else
# in the tree does, and which is enabled in the folder that includes this, for all below it.
set(CLOISTER_CUDA_EMULATION OFF)
include(CheckLanguage)
check_language(CXX)
if(NOT CMAKE_CXX_COMPILER)
  message(WARNING "no C++ compiler: the CUDA kernels are not tested under emulation "
                  "(apt-get install g++)")
elseif(CLOISTER_SANITIZE MATCHES "thread")
  # ThreadSanitizer takes fibers for one thread with a broken stack, and its hooks are the ones that
  # checked mode answers itself.
  message(STATUS "CUDA emulation: left out under ThreadSanitizer")
else()
  enable_language(CXX)
  set(CLOISTER_CUDA_EMULATION ON)
endif()
