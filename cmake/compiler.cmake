# Language level, warnings, sanitizers, and the caches that make builds quick.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")

find_program(CCACHE ccache)
if(CCACHE)
  # Relative paths, so that a second checkout finds what the first one compiled.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE})
endif()
find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# Options of the C++ compiler; nvcc gets those that its host compiler knows, through -Xcompiler.
function(fathom_compile_options)
  foreach(option ${ARGN})
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:${option}>)
    add_compile_options($<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${option}>)
  endforeach()
endfunction()

fathom_compile_options(-Wall -Wextra -fno-math-errno)
# Contraction of a*b+c would differ between instruction sets; kernels ask for FMA explicitly.
fathom_compile_options(-ffp-contract=off)
# Only with the compilers of CI: what a newer one warns of must not stop a user's build.
if(FATHOM_WERROR AND "${CMAKE_CXX_COMPILER_ID}${CMAKE_CXX_COMPILER_VERSION}" MATCHES "^(GNU12|Clang16)\\.")
  fathom_compile_options(-Werror)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # False positives of GCC 12 and 13 inside libstdc++, fmt and the AVX-512 headers.
  fathom_compile_options(-Wno-uninitialized -Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-stringop-overread -Wno-restrict -Wno-array-bounds)
endif()
if(FATHOM_SANITIZE)
  add_compile_options(-fsanitize=${FATHOM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${FATHOM_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND FATHOM_SANITIZE MATCHES "thread")
    # Asio has fences that GCC's thread sanitizer does not model; its queues are guarded by mutexes besides.
    add_compile_options(-Wno-tsan)
  endif()
endif()
