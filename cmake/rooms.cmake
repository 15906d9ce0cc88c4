# fathom_room(NAME ROOMS <rooms it may include> USES <external targets>)
#
# One static library a folder of src/, from every .cc below it except
#   *_test.cc   -> the executable NAME_test, one ctest entry
#   *_bench.cc  -> the executable NAME_<stem>
#   *_fuzz.cc   -> the executable NAME_<stem>, with libFuzzer when FATHOM_FUZZ is on
#   main.cc     -> the executable fathom
# A file's suffix says which instruction set it may use; everything else is built for plain x86-64, and the
# kernels are chosen at run time (src/device/cpu/isa.h).
set(FATHOM_ISA_avx2 -mavx2 -mfma -mf16c -mbmi2)
set(FATHOM_ISA_avx512 ${FATHOM_ISA_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
set(FATHOM_ISA_avx512bf16 ${FATHOM_ISA_avx512} -mavx512bf16 -mavx512vnni)
set(FATHOM_ISA_amx ${FATHOM_ISA_avx512bf16} -mamx-tile -mamx-bf16 -mamx-int8)

add_custom_target(tests)    # every test executable
add_custom_target(fuzzers)  # every fuzz target

function(fathom_isa_flags)
  foreach(file ${ARGN})
    foreach(isa avx2 avx512 avx512bf16 amx)
      if(file MATCHES "_${isa}\\.cc$")
        set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "-O3;${FATHOM_ISA_${isa}}")
      endif()
    endforeach()
  endforeach()
endfunction()

function(fathom_room NAME)
  cmake_parse_arguments(ARG "" "" "ROOMS;USES" ${ARGN})
  file(GLOB_RECURSE all CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${NAME}/*.cc)
  set(tests ${all})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  set(benches ${all})
  list(FILTER benches INCLUDE REGEX "_bench\\.cc$")
  set(fuzzers ${all})
  list(FILTER fuzzers INCLUDE REGEX "_fuzz\\.cc$")
  list(FILTER all EXCLUDE REGEX "(_test|_bench|_fuzz|/main)\\.cc$")
  fathom_isa_flags(${all})

  if(all)
    add_library(fathom_${NAME} STATIC ${all})
    set(scope PUBLIC)
  else()
    add_library(fathom_${NAME} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(fathom_${NAME} ${scope} ${CMAKE_SOURCE_DIR}/src)
  list(TRANSFORM ARG_ROOMS PREPEND fathom_)
  target_link_libraries(fathom_${NAME} ${scope} ${ARG_ROOMS} ${ARG_USES})

  if(EXISTS ${CMAKE_SOURCE_DIR}/src/${NAME}/main.cc)
    add_executable(fathom ${CMAKE_SOURCE_DIR}/src/${NAME}/main.cc)
    target_link_libraries(fathom PRIVATE fathom_${NAME})
    set_target_properties(fathom PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
  endif()
  if(FATHOM_TESTS AND tests)
    add_executable(${NAME}_test ${tests})
    target_compile_definitions(${NAME}_test PRIVATE FATHOM_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    target_link_libraries(${NAME}_test PRIVATE fathom_${NAME} GTest::gtest GTest::gtest_main)
    add_dependencies(tests ${NAME}_test)
    add_test(NAME ${NAME} COMMAND ${NAME}_test)
    set_tests_properties(${NAME} PROPERTIES TIMEOUT 1200)
    if(NAME STREQUAL "http")
      set_tests_properties(http PROPERTIES RUN_SERIAL ON)  # it measures time-outs
    endif()
  endif()
  foreach(file ${benches})
    get_filename_component(stem ${file} NAME_WE)
    add_executable(${NAME}_${stem} ${file})
    target_link_libraries(${NAME}_${stem} PRIVATE fathom_${NAME})
  endforeach()
  if(FATHOM_FUZZ)
    foreach(file ${fuzzers})
      get_filename_component(stem ${file} NAME_WE)
      add_executable(${NAME}_${stem} ${file})
      target_link_libraries(${NAME}_${stem} PRIVATE fathom_${NAME})
      target_link_options(${NAME}_${stem} PRIVATE -fsanitize=fuzzer)
      add_dependencies(fuzzers ${NAME}_${stem})
    endforeach()
  endif()
endfunction()

# Tests that cross rooms live in tests/ and may use every room.
function(fathom_cross_room_tests DIR)
  file(GLOB tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${DIR}/*_test.cc)
  if(FATHOM_TESTS AND tests)
    add_executable(cross_room_test ${tests})
    target_compile_definitions(cross_room_test PRIVATE FATHOM_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    target_link_libraries(cross_room_test PRIVATE fathom_app GTest::gtest GTest::gtest_main)
    add_dependencies(tests cross_room_test)
    add_test(NAME cross_room COMMAND cross_room_test)
    set_tests_properties(cross_room PROPERTIES TIMEOUT 2400)
  endif()
endfunction()
