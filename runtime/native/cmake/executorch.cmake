# The ExecuTorch engine, from headers and shared libraries of the ExecuTorch wheel in PARAEDGE_EXECUTORCH; or, where
# ExecuTorch was installed from its sources there, from its static libraries: Android and iOS have no wheel.
set(PARAEDGE_EXECUTORCH_WANTED 1.5.1)
set(_et "${PARAEDGE_EXECUTORCH}")
add_library(executorch_libraries INTERFACE)
if(EXISTS "${_et}/lib/libexecutorch.a")
  set(PARAEDGE_EXECUTORCH_IS_STATIC ON)
  set(PARAEDGE_EXECUTORCH_VERSION ${PARAEDGE_EXECUTORCH_WANTED})  # an installation does not say which one it is
  message(STATUS "static ExecuTorch in ${_et}")
  find_package(executorch CONFIG REQUIRED PATHS "${_et}" NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
  # Its targets of kernels and backends carry the options that keep what registers itself.
  target_link_libraries(executorch_libraries INTERFACE extension_module_static extension_tensor extension_data_loader
    extension_threadpool optimized_native_cpu_ops_lib xnnpack_backend executorch)
  target_include_directories(executorch_libraries SYSTEM INTERFACE
    "${_et}/include" "${_et}/include/executorch/runtime/core/portable_type/c10")
else()
  # The wheel's own CMake package defines targets only for CMake 3.28 and newer and writes the build machine's paths
  # into what it links; headers and four libraries are all that is needed.
  if(NOT EXISTS "${_et}/include/executorch/extension/module/module.h" OR NOT EXISTS "${_et}/lib/libexecutorch.so")
    message(FATAL_ERROR "${_et} holds no ExecuTorch headers and libraries")
  endif()
  file(STRINGS "${_et}/version.py" _version REGEX "^__version__")
  string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" PARAEDGE_EXECUTORCH_VERSION "${_version}")
  message(STATUS "ExecuTorch ${PARAEDGE_EXECUTORCH_VERSION} in ${_et}")
  target_include_directories(executorch_libraries SYSTEM INTERFACE
    "${_et}/include" "${_et}/include/executorch/runtime/core/portable_type/c10")
  # Kernels and backends register themselves when they are loaded, though no symbol of theirs is used.
  target_link_libraries(executorch_libraries INTERFACE
    "-Wl,--push-state,--no-as-needed,${_et}/lib/libexecutorch.so,${_et}/lib/libexecutorch_kernels_optimized.so,${_et}/lib/libexecutorch_backend_xnnpack.so,${_et}/lib/libexecutorch_threadpool.so,--pop-state")
  # Programs run from where they were built find the libraries; what is installed has a path of its own.
  set(CMAKE_BUILD_RPATH "${_et}/lib")
endif()
target_compile_definitions(executorch_libraries INTERFACE
  C10_USING_CUSTOM_GENERATED_MACROS ET_USE_THREADPOOL
  PARAEDGE_EXECUTORCH_VERSION="${PARAEDGE_EXECUTORCH_VERSION}")

# Programs link the engine itself; everybody else loads it as a library.
add_library(paraedge_executorch_objects OBJECT engines/executorch.cpp)
target_include_directories(paraedge_executorch_objects PUBLIC include PRIVATE engines)
target_link_libraries(paraedge_executorch_objects PUBLIC executorch_libraries)
target_compile_options(paraedge_executorch_objects PRIVATE -Wall -Wextra -Wshadow -Wnon-virtual-dtor)
if(PARAEDGE_SANITIZE)
  target_compile_options(paraedge_executorch_objects PUBLIC -fsanitize=${PARAEDGE_SANITIZE} -fno-omit-frame-pointer -g)
endif()
add_library(paraedge_executorch SHARED)
target_link_libraries(paraedge_executorch PRIVATE paraedge_executorch_objects paraedge_linking)
if(PARAEDGE_SANITIZE)
  target_link_options(paraedge_executorch PRIVATE -fsanitize=${PARAEDGE_SANITIZE})
endif()
