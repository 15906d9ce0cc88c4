# The CUDA backend is built where nvcc is found, and left out otherwise (FATHOM_CUDA=OFF forces that).
#
# A room's *.cu files, and the .cc files in its folders named cuda/ and of the name cuda.cc or *_cuda.cc, belong to the backend.
# A file named *_sm90.cu is compiled for sm_90a alone; every other one for FATHOM_CUDA_ARCHITECTURES, real code only:
# nothing is compiled at run time.
option(FATHOM_CUDA "Build the CUDA backend" ON)
set(FATHOM_CUDA_ARCHITECTURES "80-real;90a-real" CACHE STRING "Architectures of the portable GPU kernels")

set(FATHOM_HAS_CUDA OFF)
if(FATHOM_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES ${FATHOM_CUDA_ARCHITECTURES})
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # no CUDA library is needed where the binary runs
    enable_language(CUDA)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake before 3.26 does not know that nvcc 12 and later speak C++20
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
    set(CMAKE_CUDA_FLAGS "${CMAKE_CUDA_FLAGS} --expt-relaxed-constexpr -lineinfo -DFMT_CONSTEVAL= -DFMT_USE_CONSTEXPR=1 -Xcudafe --display_error_number")
    find_package(CUDAToolkit REQUIRED)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
    set(FATHOM_HAS_CUDA ON)
  else()
    message(STATUS "no nvcc: the CUDA backend is left out")
  endif()
endif()
