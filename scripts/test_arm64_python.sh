#!/usr/bin/env bash
# Installs the wheel for 64-bit Arm as a device does and runs every engine from it in an emulated Debian Python.
#
#   scripts/test_arm64_python.sh BIN      after test_arm64.sh, whose build, bundle and processor it uses
set -euo pipefail
bin=$(realpath --no-symlinks "$1")
cd "$(dirname "$0")/.."
build=$PWD/build/arm64
site=$build/site
python=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
say() { echo "[$SECONDS s] $*"; }

executorch=$(scripts/executorch_wheel.sh "$bin/python" aarch64)
root=$(scripts/arm64_python.sh "$bin/python")
cp -r "$build"/cortex-a72/{proc,sys} "$root/"
scripts/make_wheels.sh "$bin" "$build/dist" aarch64

# ---- what a device has: the wheel and what it asks for, which is no engine; and then an engine
install() { # FOLDER ARGUMENT...: pip install of wheels for 64-bit Arm
  "$bin/python" -m pip install --quiet --quiet --progress-bar off --only-binary :all: --target "$1" \
    --platform manylinux_2_34_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux2014_aarch64 --platform any "${@:2}"
}
wheel=$(echo "$build"/dist/paraedge-*_aarch64.whl)
rm -rf "$site" "$build"/with-*
install "$site" "$wheel"
for engine in ai_edge_litert tflite_runtime onnxruntime executorch torch; do
  [ ! -e "$site/$engine" ] || { echo "Error: installing paraedge installed $engine too" >&2; exit 1; }
done
install "$build/with-litert" "$wheel[litert]"
size_mib=$(($(du --bytes --summarize "$build/with-litert" | cut -f1) >> 20))
say "installed $(basename "$wheel"): $size_mib MiB with LiteRT"
[ "$size_mib" -le 120 ] || {
  echo "Error: a device's install is to be at most 120 MiB; the largest:" >&2
  du --bytes --summarize "$build"/with-litert/* | sort -rn | head -n 5 >&2
  exit 1
}
install "$build/with-onnxruntime" "$wheel[onnxruntime]"
[ "$python" != 3.11 ] || install "$build/with-tflite-runtime" "$wheel[tflite-runtime]"

# The trial's child is started by this machine's kernel, which runs no Arm program: it starts qemu.
printf '#!/bin/sh\nexec qemu-aarch64-static -cpu cortex-a72 -L "%s" "%s" "$@"\n' \
  "$root" "$root/usr/bin/python$python" >"$build/python-on-arm"
chmod +x "$build/python-on-arm"
export PYTHON_ON_ARM=$build/python-on-arm
on_arm() { # PATHS ARGUMENT...: Python on a Cortex-A72 that finds its packages there
  PYTHONPATH=$1 PYTHONDONTWRITEBYTECODE=1 timeout 900 qemu-aarch64-static -cpu cortex-a72 -L "$root" \
    "$root/usr/bin/python$python" "${@:2}"
}

# ---- a bundle of three branches for each engine; test_arm64.sh made the one for ExecuTorch
for engine in litert onnxruntime; do
  rm -rf "$build/$engine.paraedge"
  "$bin/paraedge" export --target linux --engine "$engine" --branches 3 --out "$build/$engine.paraedge" >/dev/null
done
say "exported bundles for LiteRT and ONNX Runtime"

cat >"$build/verify.py" <<'PYTHON'
"""BUNDLE PACKAGE: the predictions are right, and branches ran in two threads at the same time."""
import os
import platform
import sys

from paraedge_runtime import Bundle, Session
from paraedge_runtime.verification import verify_bundle

sys.executable = os.environ["PYTHON_ON_ARM"]
bundle = Bundle.open(sys.argv[1])
report = verify_bundle(bundle, threads=2)
assert platform.machine() == "aarch64" and "torch" not in sys.modules
assert report.engine.startswith(sys.argv[2]), report.engine
assert not report.problems, report.problems
with Session.open(bundle, threads=2) as session:
    assert session.threads == 2
    timelines = [session.run(image).timeline[1:] for image in bundle.golden().inputs[:4]]
assert any(
    one.thread != other.thread and one.start_ms < other.end_ms and other.start_ms < one.end_ms
    for timeline in timelines for one in timeline for other in timeline
), timelines
print(f"{report.engine}: {report.num_samples} images, SNR {report.prefixes[-1].snr_db} dB")
PYTHON
verify() { # NAME BUNDLE PATHS
  on_arm "$3" "$build/verify.py" "$2" "$1" 2>"$build/$1.log" || {
    tail -n 20 "$build/$1.log" >&2
    exit 1
  }
  say "$1: right, with branches in two threads"
}
verify executorch "$build/test.paraedge" "$site:$executorch" &
first=$!
verify ai-edge-litert "$build/litert.paraedge" "$build/with-litert"
wait $first
verify onnxruntime "$build/onnxruntime.paraedge" "$build/with-onnxruntime" &
first=$!
[ ! -d "$build/with-tflite-runtime" ] || verify tflite-runtime "$build/litert.paraedge" "$build/with-tflite-runtime"
wait $first

# ---- the demo, as a device has it without its page: the terminal view on the bundle's own images
install "$build/with-cli" "$wheel[cli]"
on_arm "$build/with-cli:$executorch" -m paraedge_demo --bundle "$build/test.paraedge" \
  --source packaged --headless --frames 50 2>"$build/demo.log" | tee "$build/demo.txt" || {
  tail -n 20 "$build/demo.log" >&2
  exit 1
}
grep -q '^50 frames at .* right, ' "$build/demo.txt"
say "paraedge-demo runs 50 images"
