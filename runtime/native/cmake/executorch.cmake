# The target executorch_wheel: headers and shared libraries of the ExecuTorch wheel.
#
# Its own CMake package defines targets only for CMake 3.28 and newer and writes the build machine's paths
# into what it links; headers and four libraries are all that is needed.
set(PARAEDGE_EXECUTORCH_WANTED 1.5.1)
set(_et "${PARAEDGE_EXECUTORCH}")
if(NOT _et AND PARAEDGE_PYTHON)
  # The package beside which the extension will be installed. While pip builds in isolation Python does
  # not import from there, so it is asked for the place instead.
  find_package(Python 3.11 COMPONENTS Interpreter Development.Module REQUIRED)
  execute_process(COMMAND "${Python_EXECUTABLE}" -c "import sysconfig; print(sysconfig.get_path('platlib'))"
    OUTPUT_VARIABLE _platlib OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(_et "${_platlib}/executorch")
  if(NOT EXISTS "${_et}/lib/libexecutorch.so")
    # Not there yet: pip builds first and installs what it needs later. -I: the pip of the environment,
    # which knows its indexes.
    set(_et "${CMAKE_BINARY_DIR}/wheel/executorch")
    if(NOT EXISTS "${_et}/lib/libexecutorch.so")
      message(STATUS "fetching executorch ${PARAEDGE_EXECUTORCH_WANTED} for its headers and libraries")
      execute_process(COMMAND "${Python_EXECUTABLE}" -I -m pip download --quiet --no-deps --only-binary :all:
        --dest "${CMAKE_BINARY_DIR}/wheel" "executorch==${PARAEDGE_EXECUTORCH_WANTED}" COMMAND_ERROR_IS_FATAL ANY)
      file(GLOB _wheel "${CMAKE_BINARY_DIR}/wheel/executorch-*.whl")
      file(ARCHIVE_EXTRACT INPUT "${_wheel}" DESTINATION "${CMAKE_BINARY_DIR}/wheel")
    endif()
  endif()
endif()
if(NOT _et)
  message(FATAL_ERROR "-DPARAEDGE_EXECUTORCH=<folder of the executorch wheel> is missing; "
                      "'pip install --no-deps executorch==${PARAEDGE_EXECUTORCH_WANTED}' puts it into site-packages/executorch")
endif()
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
