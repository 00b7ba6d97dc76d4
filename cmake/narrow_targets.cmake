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
target_include_directories(narrow_flags INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(narrow_flags INTERFACE cxx_std_20)
# No contraction: the integer contract fixes every rounding, also that of a multiply before an add.
target_compile_options(narrow_flags INTERFACE -ffp-contract=off)
# What only concerns this project's own files; users of the installed package choose for themselves.
set(own_options
  -fno-math-errno -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion
  -Wold-style-cast -Wnon-virtual-dtor -Wno-missing-field-initializers)
if(NARROW_WERROR)
  list(APPEND own_options -Werror)
endif()
target_compile_options(narrow_flags INTERFACE $<BUILD_INTERFACE:${own_options}>)
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
set_target_properties(narrow_flags PROPERTIES EXPORT_NAME flags)
install(TARGETS narrow_flags EXPORT narrow_targets)

# narrow_library(NAME folder DEPENDS other folders LINK system libraries): every .cpp below the folder.
function(narrow_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  list(TRANSFORM ARG_DEPENDS PREPEND narrow_)
  if(NOT sources)
    add_library(narrow_${name} INTERFACE)
    target_link_libraries(narrow_${name} INTERFACE ${ARG_DEPENDS} narrow_flags ${ARG_LINK})
  else()
    add_library(narrow_${name} STATIC ${sources})
    target_link_libraries(narrow_${name} PUBLIC ${ARG_DEPENDS} narrow_flags PRIVATE ${ARG_LINK})
  endif()
  set_target_properties(narrow_${name} PROPERTIES EXPORT_NAME ${name})
  install(TARGETS narrow_${name} EXPORT narrow_targets)
endfunction()
