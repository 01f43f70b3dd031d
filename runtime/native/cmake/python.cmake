# The Python extension. scikit-build-core runs this with the interpreter that the package is built for.
find_package(Python 3.11 COMPONENTS Interpreter Development.Module REQUIRED)
find_package(nanobind CONFIG REQUIRED)

nanobind_add_module(_native STABLE_ABI NB_STATIC python/native.cpp python/gil.cpp python/python_engine.cpp)
target_include_directories(_native PRIVATE core programs)
target_link_libraries(_native PRIVATE paraedge_core)
if(NOT APPLE)
  # Whatever standard library is linked in stays its own: exported, its symbols would be bound to those of another one that
  # the process loaded before, of another version perhaps.
  target_link_options(_native PRIVATE
    "-Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/python_exports.map" -Wl,-z,max-page-size=16384)
endif()
install(TARGETS _native LIBRARY DESTINATION paraedge_runtime)

if(TARGET paraedge_executorch)
  # paraedge_runtime and executorch are neighbours in site-packages; where they are not,
  # engines/executorch.py loads the libraries by their paths first.
  set_target_properties(paraedge_executorch PROPERTIES
    BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN/../../executorch/lib" INSTALL_RPATH_USE_LINK_PATH OFF)
  install(TARGETS paraedge_executorch LIBRARY DESTINATION paraedge_runtime/lib)
endif()

if(SKBUILD_METADATA_DIR AND TARGET paraedge_executorch)  # as the wheels are built: PEP 770
  configure_file(sbom.cdx.json.in ${CMAKE_CURRENT_BINARY_DIR}/paraedge.cdx.json @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/paraedge.cdx.json DESTINATION ${SKBUILD_METADATA_DIR}/sboms)
endif()
