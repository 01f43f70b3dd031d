#!/usr/bin/env bash
# Downloads and unpacks the package that holds a Kotlin compiler and coroutines (80 MB); prints the folder of its jars.
#
#   scripts/kotlin_compiler.sh PYTHON
set -euo pipefail
python=$(realpath --no-symlinks "$1")
cd "$(dirname "$0")/.."
version=0.19.0.944
folder=$PWD/build/kotlin-$version
if [ ! -d "$folder" ]; then
  rm -rf "$folder.part"
  "$python" -m pip download --quiet --quiet --progress-bar off --no-deps --only-binary :all: \
    --dest "$folder.part" "kotlin-jupyter-kernel==$version"
  "$python" -m zipfile -e "$folder.part"/kotlin_jupyter_kernel-*.whl "$folder.part"
  rm "$folder.part"/kotlin_jupyter_kernel-*.whl
  mv "$folder.part" "$folder"
fi
echo "$folder/run_kotlin_kernel/jars"
