#!/usr/bin/env bash
# Builds the folder that 'paraedge profile' sends to a phone, or to any 64-bit Arm Linux without Python.
#
#   scripts/make_phone_tools.sh PYTHON FOLDER    PYTHON: downloads the executorch wheel; FOLDER: what is made
#
# paraedge-testbed and everything that it needs of a system, glibc's loader included: Android has another C library, and
# a board may have none of the right version. Programs that adb's shell starts may do that; an app may not.
set -euo pipefail
python=$(realpath --no-symlinks "$1")
folder=$(realpath --canonicalize-missing "$2")
cd "$(dirname "$0")/.."
build=$PWD/build/arm64
cross=/usr/aarch64-linux-gnu/lib

scripts/need_debian.sh g++ cmake ninja-build g++-aarch64-linux-gnu
wheel=$(scripts/executorch_wheel.sh "$python" aarch64)
cmake -G Ninja -S runtime/native -B "$build/native" --log-level=WARNING --no-warn-unused-cli -DPARAEDGE_TOOLS=ON \
  -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DPARAEDGE_EXECUTORCH="$wheel/executorch" >/dev/null
cmake --build "$build/native" --target paraedge-testbed -- --quiet

rm -rf "$folder.part"
mkdir -p "$folder.part/licenses"
aarch64-linux-gnu-strip -o "$folder.part/paraedge-testbed.bin" "$build/native/paraedge-testbed"
cp "$wheel"/executorch/lib/libexecutorch{,_kernels_optimized,_backend_xnnpack,_threadpool}.so "$folder.part"
cp "$cross"/{ld-linux-aarch64.so.1,libc.so.6,libm.so.6,libdl.so.2,libpthread.so.0,libstdc++.so.6,libgcc_s.so.1} "$folder.part"
for package in libc6 libstdc++6 libgcc-s1; do
  cp "/usr/share/doc/$package-arm64-cross/copyright" "$folder.part/licenses/$package"
done
cp "$wheel"/executorch-*.dist-info/licenses/LICENSE "$folder.part/licenses/executorch"
cp LICENSE "$folder.part/licenses/paraedge"
# A script without a first line is run by the shell that starts it: /system/bin/sh on a phone, /bin/sh on a board.
cat >"$folder.part/paraedge-testbed" <<'SHELL'
here=${0%/*}
unset LD_LIBRARY_PATH
exec "$here/ld-linux-aarch64.so.1" --library-path "$here" "$here/paraedge-testbed.bin" "$@"
SHELL
chmod 755 "$folder.part/paraedge-testbed"
rm -rf "$folder"
mv "$folder.part" "$folder"
echo "$folder: $(du --summarize --bytes "$folder" | cut -f 1) bytes, $(tar -cz -C "$folder" . | wc -c) packed"
