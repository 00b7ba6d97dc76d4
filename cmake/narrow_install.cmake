# The program, the libraries, their headers, and a package for find_package(narrow).
include(CMakePackageConfigHelpers)
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/narrow)
install(TARGETS narrow_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY src/narrow DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(EXPORT narrow_targets NAMESPACE narrow:: DESTINATION ${package_folder})
configure_package_config_file(cmake/narrow-config.cmake.in ${PROJECT_BINARY_DIR}/narrow-config.cmake
  INSTALL_DESTINATION ${package_folder} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/narrow-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/narrow-config.cmake
  ${PROJECT_BINARY_DIR}/narrow-config-version.cmake DESTINATION ${package_folder})
