#!/usr/bin/env bash
# Downloads and unpacks the executorch wheel of a machine, for its headers and libraries; prints the folder.
#
#   scripts/executorch_wheel.sh PYTHON ARCH      ARCH: x86_64 or aarch64 of Linux, or macos (arm64)
set -euo pipefail
python=$(realpath --no-symlinks "$1")
cd "$(dirname "$0")/.."
version=$(sed -n 's/^set(PARAEDGE_EXECUTORCH_WANTED \(.*\))$/\1/p' runtime/native/cmake/executorch.cmake)
folder=$PWD/build/executorch-$version-$2
platform=manylinux_2_28_$2
[ "$2" != macos ] || platform=macosx_14_0_arm64
if [ ! -d "$folder" ]; then
  rm -rf "$folder.part"
  # Its native libraries are the same for every Python.
  "$python" -m pip download --quiet --quiet --progress-bar off --no-deps --only-binary :all: \
    --platform "$platform" --python-version 3.11 --dest "$folder.part" "executorch==$version"
  "$python" -m zipfile -e "$folder.part"/executorch-*.whl "$folder.part"
  rm "$folder.part"/executorch-*.whl
  mv "$folder.part" "$folder"
fi
echo "$folder"
