# The ExecuTorch engine, from headers and shared libraries of the ExecuTorch wheel in PARAEDGE_EXECUTORCH.
#
# Its own CMake package defines targets only for CMake 3.28 and newer and writes the build machine's paths
# into what it links; headers and four libraries are all that is needed.
set(PARAEDGE_EXECUTORCH_WANTED 1.5.1)
set(_et "${PARAEDGE_EXECUTORCH}")
if(NOT EXISTS "${_et}/include/executorch/extension/module/module.h" OR NOT EXISTS "${_et}/lib/libexecutorch.so")
  message(FATAL_ERROR "${_et} holds no ExecuTorch headers and libraries")
endif()
file(STRINGS "${_et}/version.py" _version REGEX "^__version__")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" PARAEDGE_EXECUTORCH_VERSION "${_version}")
message(STATUS "ExecuTorch ${PARAEDGE_EXECUTORCH_VERSION} in ${_et}")

add_library(executorch_wheel INTERFACE)
target_include_directories(executorch_wheel SYSTEM INTERFACE
  "${_et}/include" "${_et}/include/executorch/runtime/core/portable_type/c10")
target_compile_definitions(executorch_wheel INTERFACE
  C10_USING_CUSTOM_GENERATED_MACROS ET_USE_THREADPOOL
  PARAEDGE_EXECUTORCH_VERSION="${PARAEDGE_EXECUTORCH_VERSION}")
# Kernels and backends register themselves when they are loaded, though no symbol of theirs is used.
target_link_libraries(executorch_wheel INTERFACE
  "-Wl,--push-state,--no-as-needed,${_et}/lib/libexecutorch.so,${_et}/lib/libexecutorch_kernels_optimized.so,${_et}/lib/libexecutorch_backend_xnnpack.so,${_et}/lib/libexecutorch_threadpool.so,--pop-state")
# Programs run from where they were built find the libraries; what is installed has a path of its own.
set(CMAKE_BUILD_RPATH "${_et}/lib")

# Programs link the engine itself; everybody else loads it as a library.
add_library(paraedge_executorch_objects OBJECT engines/executorch.cpp)
target_include_directories(paraedge_executorch_objects PUBLIC include PRIVATE engines)
target_link_libraries(paraedge_executorch_objects PUBLIC executorch_wheel)
target_compile_options(paraedge_executorch_objects PRIVATE -Wall -Wextra -Wshadow -Wnon-virtual-dtor)
if(PARAEDGE_SANITIZE)
  target_compile_options(paraedge_executorch_objects PUBLIC -fsanitize=${PARAEDGE_SANITIZE} -fno-omit-frame-pointer -g)
endif()
add_library(paraedge_executorch SHARED)
target_link_libraries(paraedge_executorch PRIVATE paraedge_executorch_objects paraedge_linking)
if(PARAEDGE_SANITIZE)
  target_link_options(paraedge_executorch PRIVATE -fsanitize=${PARAEDGE_SANITIZE})
endif()
