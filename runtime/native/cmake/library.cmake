# libparaedge.so and its installation: find_package(paraedge) gives paraedge::paraedge and, where the ExecuTorch engine
# was built, paraedge::executorch.
include(CMakePackageConfigHelpers)

add_library(paraedge SHARED core/capi.cpp)
add_library(paraedge::paraedge ALIAS paraedge)
target_compile_features(paraedge INTERFACE cxx_std_20)  # of paraedge.hpp; paraedge.h is C99
target_compile_definitions(paraedge PRIVATE PARAEDGE_VERSION="${PROJECT_VERSION}")
target_compile_options(paraedge PRIVATE -Wall -Wextra -Wshadow)
target_include_directories(paraedge
  PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}> PRIVATE core)
target_link_libraries(paraedge PRIVATE paraedge_core paraedge_linking)
set_target_properties(paraedge PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})

set(_package "${CMAKE_INSTALL_LIBDIR}/cmake/paraedge")
install(TARGETS paraedge EXPORT paraedge)
install(DIRECTORY include/paraedge DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
if(TARGET paraedge_executorch)
  # ExecuTorch's libraries are taken from beside the engine, else from where it was built against them.
  set_target_properties(paraedge_executorch PROPERTIES
    EXPORT_NAME executorch INSTALL_RPATH "$ORIGIN;${PARAEDGE_EXECUTORCH}/lib")
  install(TARGETS paraedge_executorch EXPORT paraedge)
endif()
install(EXPORT paraedge NAMESPACE paraedge:: FILE paraedgeConfig.cmake DESTINATION "${_package}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/paraedgeConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/paraedgeConfigVersion.cmake" DESTINATION "${_package}")
