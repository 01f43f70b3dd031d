#!/usr/bin/env bash
# Builds the Java library: classes, and natives for Linux with the ExecuTorch engine, in one jar: 'make java'.
#
#   scripts/make_java.sh PYTHON JAR [ARCH...]    PYTHON: downloads the executorch wheels; JAR: the file that is made;
#                                                ARCH: x86_64, aarch64, or both when none is given
set -euo pipefail
python=$(realpath --no-symlinks "$1")
jar=$(realpath --canonicalize-missing "$2")
cd "$(dirname "$0")/.."
archs=("${@:3}")
[ ${#archs[@]} -gt 0 ] || archs=(x86_64 aarch64)
version=$(sed -n 's/^project(paraedge VERSION \([0-9.]*\).*/\1/p' runtime/native/CMakeLists.txt)
build=$PWD/build/java

scripts/need_debian.sh g++ cmake ninja-build default-jdk-headless
rm -rf "$build/classes"
mkdir -p "$build/classes" "$(dirname "$jar")"
javac --release 8 -Xlint:all,-options -Werror -d "$build/classes" runtime/android/paraedge/src/main/java/ai/paraedge/*.java

for arch in "${archs[@]}"; do
  toolchain=()
  if [ "$arch" != "$(uname -m)" ]; then
    [ "$arch" = aarch64 ] || { echo "Error: no cross compiler is known for '$arch'; there is one for aarch64" >&2; exit 2; }
    scripts/need_debian.sh g++-aarch64-linux-gnu
    toolchain=(-DCMAKE_TOOLCHAIN_FILE="cmake/$arch-linux-gnu.cmake")
  fi
  executorch=$(scripts/executorch_wheel.sh "$python" "$arch")
  cmake -G Ninja -S runtime/native -B "$build/$arch" --log-level=WARNING --no-warn-unused-cli -DPARAEDGE_JAVA=ON \
    -DPARAEDGE_EXECUTORCH="$executorch/executorch" "${toolchain[@]}" >/dev/null
  cmake --build "$build/$arch" --target paraedge_jni paraedge_executorch -- --quiet
  # The engine looks for ExecuTorch's libraries beside it.
  natives=$build/classes/ai/paraedge/native/linux-$arch
  mkdir -p "$natives"
  cp "$build/$arch"/libparaedge_{jni,executorch}.so "$natives"
  for library in "" _kernels_optimized _backend_xnnpack _threadpool; do
    cp "$executorch/executorch/lib/libexecutorch$library.so" "$natives"
  done
  (cd "$natives" && ls >../files && mv ../files files)
done
mkdir -p "$build/classes/META-INF"
cp LICENSE NOTICE "$build/classes/META-INF"
cp "$executorch"/executorch-*.dist-info/licenses/LICENSE "$build/classes/META-INF/LICENSE.executorch"
printf 'Implementation-Title: paraedge\nImplementation-Version: %s\nAutomatic-Module-Name: ai.paraedge\n' "$version" >"$build/manifest"
rm -f "$jar"
jar --create --file "$jar" --manifest "$build/manifest" -C "$build/classes" .
stat --format='%s bytes: %n' "$jar"
