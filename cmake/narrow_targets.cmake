# Flags shared by every target, and the functions that make one target for a folder.

find_program(NARROW_CCACHE ccache)
if(NARROW_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${NARROW_CCACHE})
endif()

find_package(Threads REQUIRED)
if(NARROW_WITH_OPENMP)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
endif()

add_library(narrow_flags INTERFACE)
target_include_directories(narrow_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
# No contraction: the integer contract fixes every rounding, also that of a multiply before an add.
target_compile_options(narrow_flags INTERFACE
  -ffp-contract=off -fno-math-errno -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion
  -Wold-style-cast -Wnon-virtual-dtor -Wno-missing-field-initializers)
if(NARROW_WERROR)
  target_compile_options(narrow_flags INTERFACE -Werror)
endif()
if(NARROW_SANITIZE)
  target_compile_options(narrow_flags INTERFACE
    -fsanitize=${NARROW_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
  target_link_options(narrow_flags INTERFACE -fsanitize=${NARROW_SANITIZE})
endif()
if(NARROW_FUZZ)
  target_compile_options(narrow_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(NARROW_WITH_OPENMP)
  target_compile_definitions(narrow_flags INTERFACE NARROW_OPENMP=1)
  target_link_libraries(narrow_flags INTERFACE OpenMP::OpenMP_CXX)
endif()
target_link_libraries(narrow_flags INTERFACE Threads::Threads)

# narrow_library(NAME folder DEPENDS other folders LINK system libraries): every .cpp below the folder.
function(narrow_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  list(TRANSFORM ARG_DEPENDS PREPEND narrow_)
  if(NOT sources)
    add_library(narrow_${name} INTERFACE)
    target_link_libraries(narrow_${name} INTERFACE ${ARG_DEPENDS} narrow_flags ${ARG_LINK})
    return()
  endif()
  add_library(narrow_${name} STATIC ${sources})
  target_link_libraries(narrow_${name} PUBLIC ${ARG_DEPENDS} narrow_flags PRIVATE ${ARG_LINK})
endfunction()
