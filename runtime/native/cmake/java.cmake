# libparaedge_jni.so: the core and its C interface for Java, in one library that exports JNI_OnLoad only.
# Its Java classes are in runtime/android/paraedge; scripts/make_java.sh puts both into a jar.
add_library(paraedge_jni SHARED java/paraedge_jni.cpp core/capi.cpp)
target_include_directories(paraedge_jni PRIVATE core)
target_compile_definitions(paraedge_jni PRIVATE PARAEDGE_VERSION="${PROJECT_VERSION}")
target_compile_options(paraedge_jni PRIVATE -Wall -Wextra -Wshadow)
target_link_libraries(paraedge_jni PRIVATE paraedge_core)
target_link_options(paraedge_jni PRIVATE "-Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/jni_exports.map"
  -Wl,-z,max-page-size=16384)
if(PARAEDGE_EXECUTORCH_IS_STATIC)  # an application has one library: the engine is in it
  target_compile_definitions(paraedge_jni PRIVATE PARAEDGE_JNI_EXECUTORCH)
  target_link_libraries(paraedge_jni PRIVATE paraedge_executorch_objects)
  target_link_options(paraedge_jni PRIVATE -Wl,--exclude-libs,ALL)  # another ExecuTorch of the application's stays its own
endif()
if(ANDROID)  # jni.h is the NDK's
  target_link_libraries(paraedge_jni PRIVATE log)
else()
  target_link_options(paraedge_jni PRIVATE -static-libstdc++)  # a JVM's machine may have an older one
  find_package(JNI)  # its other parts, a window toolkit among them, are not needed
  if(NOT JAVA_INCLUDE_PATH OR NOT JAVA_INCLUDE_PATH2)
    message(FATAL_ERROR "jni.h was not found: install a JDK (Debian's default-jdk-headless), or set JAVA_HOME to one")
  endif()
  target_include_directories(paraedge_jni SYSTEM PRIVATE "${JAVA_INCLUDE_PATH}" "${JAVA_INCLUDE_PATH2}")
endif()
