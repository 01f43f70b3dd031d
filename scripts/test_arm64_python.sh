#!/usr/bin/env bash
# Cross-builds the Python extension for 64-bit Arm and verifies a bundle with it in an emulated Debian Python.
#
#   scripts/test_arm64_python.sh BIN      after test_arm64.sh, whose build, bundle and processor it uses
set -euo pipefail
bin=$(realpath "$1")
cd "$(dirname "$0")/.."
build=$PWD/build/arm64
root=$build/python
site=$build/site
wheel=$(echo "$build"/executorch-*)
python=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
say() { echo "[$SECONDS s] $*"; }

# ---- Python: Debian's packages for arm64 from the sources of this machine, unpacked into a folder. apt has its
#      lists in a folder too, so that nothing here becomes a machine of two architectures.
if [ ! -d "$root" ]; then
  rm -rf "$root.part" "$build/apt"
  mkdir -p "$root.part/debs" "$build/apt/lists/partial" "$build/apt/cache/archives/partial"
  : >"$build/apt/status"
  apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root
    -o Dir::State="$build/apt" -o Dir::State::status="$build/apt/status" -o Dir::Cache="$build/apt/cache")
  "${apt[@]}" update
  # Of its libraries only those that numpy, ctypes and zipfile need; the C library is the cross compiler's.
  packages=("python$python-minimal" "libpython$python"-{minimal,stdlib,dev} libexpat1 libffi8 zlib1g)
  if ! (cd "$root.part/debs" && "${apt[@]}" download "${packages[@]}"); then
    echo "Error: Debian here has no Python $python, which $bin has; use a $bin of Debian's Python" >&2
    exit 1
  fi
  for package in "$root.part"/debs/*.deb; do dpkg-deb --extract "$package" "$root.part"; done
  ln -sf /usr/aarch64-linux-gnu/lib/*.so* "$root.part/lib/"
  # The header that chooses between architectures looks for the chosen one where a compiler's own headers are.
  cp "$root.part/usr/include"/{aarch64-linux-gnu,.}/"python$python/pyconfig.h"
  rm -rf "$root.part/debs" "$build/apt"
  mv "$root.part" "$root"
fi
cp -r "$build"/cortex-a72/{proc,sys} "$root/"

# ---- the extension. nanobind names it after the Python that runs here.
cmake -S runtime/native -B "$build/native" --log-level=WARNING -DPARAEDGE_PYTHON=ON \
  -Dnanobind_DIR="$("$bin/python" -m nanobind --cmake_dir)" -DPython_EXECUTABLE="$bin/python" \
  -DPython_INCLUDE_DIR="$root/usr/include/python$python" >/dev/null
cmake --build "$build/native" -- --quiet

# ---- what a device has: the package, numpy, msgspec, the executorch wheel; no torch
rm -rf "$site"
"$bin/python" -m pip install --quiet --quiet --progress-bar off --no-deps --only-binary :all: --target "$site" \
  --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 numpy msgspec
cp -r runtime/paraedge_runtime runtime/paraedge_measure "$site/"
rm -f "$site"/paraedge_runtime/_native*.so
cp "$build"/native/_native.*.so "$site/paraedge_runtime/_native.cpython-${python/./}-aarch64-linux-gnu.so"
say "built the extension for Python $python"

cat >"$build/verify.py" <<'PYTHON'
import platform
import sys

from paraedge_runtime import Bundle
from paraedge_runtime.verification import verify_bundle

report = verify_bundle(Bundle.open(sys.argv[1]), threads=2)
assert platform.machine() == "aarch64" and "torch" not in sys.modules
assert report.engine.endswith("(native core)"), report.engine
assert not report.problems, report.problems
print(f"{report.engine}: {report.num_samples} pictures, SNR {report.prefixes[-1].snr_db} dB")
PYTHON
PYTHONPATH=$site:$wheel PYTHONDONTWRITEBYTECODE=1 timeout 900 qemu-aarch64-static -cpu cortex-a72 -L "$root" \
  "$root/usr/bin/python$python" "$build/verify.py" "$build/test.paraedge" 2>"$build/python.log" || {
  tail -n 20 "$build/python.log" >&2
  exit 1
}
say "Python $python verifies the bundle"

# ---- the demo, as a device has it without its page: the terminal view on the bundle's own pictures
"$bin/python" -m pip install --quiet --quiet --progress-bar off --no-deps --target "$site" \
  click rich markdown-it-py mdurl pygments
cp -r demos/raspberry_pi/paraedge_demo "$site/"
PYTHONPATH=$site:$wheel PYTHONDONTWRITEBYTECODE=1 timeout 900 qemu-aarch64-static -cpu cortex-a72 -L "$root" \
  "$root/usr/bin/python$python" -m paraedge_demo --bundle "$build/test.paraedge" \
  --source packaged --headless --frames 50 2>"$build/demo.log" | tee "$build/demo.txt" || {
  tail -n 20 "$build/demo.log" >&2
  exit 1
}
grep -q '^50 frames at .* right, ' "$build/demo.txt"
say "paraedge-demo answers 50 pictures"
