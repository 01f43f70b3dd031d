#!/usr/bin/env bash
# Cross-builds the native core for 64-bit Arm and runs its tests and programs under qemu-user: 'make test-arm64'.
#
#   scripts/test_arm64.sh BIN      BIN: the folder of the python and paraedge that export the bundle
#
# This is about correct answers and about packaging. What is emulated has no timing, and no Arm memory order.
set -euo pipefail
bin=$(realpath "$1")
cd "$(dirname "$0")/.."
build=$PWD/build/arm64
mkdir -p "$build"
say() { echo "[$SECONDS s] $*"; }

scripts/need_debian.sh g++ cmake ninja-build doctest-dev g++-aarch64-linux-gnu qemu-user-static

# ---- headers and libraries: the wheel that an Arm device installs
wheel=$(scripts/executorch_wheel.sh "$bin/python" aarch64)

# ---- library, programs, tests
cmake -G Ninja -S runtime/native -B "$build/native" --log-level=WARNING -DPARAEDGE_TESTS=ON -DPARAEDGE_TOOLS=ON \
  -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DPARAEDGE_EXECUTORCH="$wheel/executorch" >/dev/null
cmake --build "$build/native" -- --quiet
say "built for $(aarch64-linux-gnu-g++ -dumpmachine) with ${wheel##*/}"

# ---- a bundle made here, and images with the answers that this machine gives. Three branches: emulation
#      takes hundreds of times as long, and more of them are more of the same.
bundle=$build/test.paraedge
rm -rf "$bundle" "$build/images"
"$bin/paraedge" export --target android --branches 3 --out "$bundle" >/dev/null
"$bin/python" - "$bundle" "$build/images" <<'PYTHON'
import sys
from pathlib import Path

import paraedge_runtime as runtime

folder = Path(sys.argv[2])
folder.mkdir()
bundle = runtime.Bundle.open(sys.argv[1])
with runtime.Session.open(bundle) as session:
    for number, image in enumerate(bundle.golden().inputs[:8]):
        (folder / f"{number}.pgm").write_bytes(b"P5 %d %d 255\n" % image.shape[1::-1] + image.tobytes())
        (folder / f"{number}.label").write_text(session.run(image).label)
PYTHON
say "exported $(basename "$bundle")"

# ---- processors. The wheel reads /proc/cpuinfo and /sys to choose its kernels, and qemu would show it this
#      machine's. The description must agree with -cpu: an instruction that only one of them has ends the process.
machine() { # CPU PART VARIANT REVISION FEATURES: a folder that stands in for / where it has a file
  local root=$build/$1 count core
  count=$(getconf _NPROCESSORS_CONF)
  rm -rf "$root"
  mkdir -p "$root/proc" "$root/sys/devices/system/cpu"
  ln -s /usr/aarch64-linux-gnu/lib "$root/lib"
  for ((core = 0; core < count; core++)); do
    printf 'processor\t: %d\nBogoMIPS\t: 108.00\nFeatures\t: %s\nCPU implementer\t: 0x41\n' "$core" "$5"
    printf 'CPU architecture: 8\nCPU variant\t: 0x%x\nCPU part\t: 0x%x\nCPU revision\t: %d\n\n' "$3" "$2" "$4"
    mkdir -p "$root/sys/devices/system/cpu/cpu$core/regs/identification"
    printf '0x%016x\n' $((0x41 << 24 | $3 << 20 | 0xf << 16 | $2 << 4 | $4)) \
      >"$root/sys/devices/system/cpu/cpu$core/regs/identification/midr_el1"
  done >"$root/proc/cpuinfo"
  for list in possible present online; do
    echo "0-$((count - 1))" >"$root/sys/devices/system/cpu/$list"
  done
}
pi4="fp asimd evtstrm crc32 cpuid"
pi5="$pi4 aes pmull sha1 sha2 atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
machine cortex-a72 0xd08 0x0 3 "$pi4"
machine cortex-a76 0xd0b 0x4 1 "$pi5"

# A time limit: what waits for ever is ended. ExecuTorch's notes about the processor go to a file.
on() { # CPU PROGRAM ARGUMENT...
  timeout 900 qemu-aarch64-static -cpu "$1" -L "$build/$1" "$build/native/${@:2}" 2>>"$build/$1.log"
}

wrong() { # CPU MESSAGE
  echo "Error: $1: $2; stderr is in build/arm64/$1.log" >&2
  exit 1
}

classify() { # CPU: the labels of this machine; with a budget that is over at once, the first branch alone
  local image label answer
  for image in "$build"/images/*.pgm; do
    label=$(cat "${image%.pgm}.label")
    answer=$(on "$1" classify "$bundle" "$image") || wrong "$1" "classify failed"
    [[ $answer == "$label ("*"branches 0,1,2 of 3"* ]] || wrong "$1" "classify says '$answer', this machine '$label'"
  done
  answer=$(on "$1" classify "$bundle" "$image" 0.001) || wrong "$1" "classify failed"
  [[ $answer == *"branches 0 of 3"* ]] || wrong "$1" "classify says '$answer' with no time"
}

export PARAEDGE_TEST_BUNDLE=$bundle PARAEDGE_STRESS_REQUESTS=150
on_processor() { # CPU
  local cpu=$1 skipped
  : >"$build/$cpu.log"
  # The two with hundreds of requests run on one of them: the processors differ in the kernels that the wheel
  # takes, which 'golden' checks, and not in what this project's threads do.
  skipped="only so many threads*" # qemu does not enforce the limit of memory that this one sets
  [ "$cpu" = cortex-a72 ] || skipped+=",threads*spinning*,several threads*"
  on "$cpu" paraedge-tests --no-version -tce="$skipped" || wrong "$cpu" "paraedge-tests failed"
  say "$cpu: paraedge-tests passed"
  classify "$cpu"
  say "$cpu: classify gives this machine's labels, and with no time the first branch's"
  on "$cpu" paraedge-bench "$bundle" --requests 2 --threads 2 >/dev/null || wrong "$cpu" "paraedge-bench failed"
  say "$cpu: paraedge-bench runs"
}
on_processor cortex-a72 &
first=$!
on_processor cortex-a76
wait $first
