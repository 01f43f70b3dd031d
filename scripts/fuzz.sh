#!/usr/bin/env bash
# Fuzzes the readers of files from outside, FUZZ_SECONDS (60) each, two at a time: 'make fuzz'.
#
#   scripts/fuzz.sh PYTHON [TARGET...]      TARGET: native-archive, bundle, ...; all when none is given
#
# libFuzzer with AddressSanitizer for the readers of the native core, atheris for those of Python. What they find is in
# build/fuzz/findings; mend it, and put the file into tests/fuzz/corpus under a name that says what it is.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
seconds=${FUZZ_SECONDS:-60}
native=(native-archive native-manifest native-program native-signature)
# The slowest to start first.
targets=(checkpoint data image "${native[@]}" bundle archive signature program update device plan recording)
[ $# -eq 1 ] || targets=("${@:2}")

scripts/need_debian.sh clang-19 libclang-rt-19-dev cmake ninja-build
mkdir -p build/fuzz/findings
cmake -S runtime/native -B build/fuzz/native -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19 -DPARAEDGE_FUZZ=ON >build/fuzz/native.log 2>&1 &&
  cmake --build build/fuzz/native --target "${native[@]/#native/fuzz}" >>build/fuzz/native.log 2>&1 ||
  { cat build/fuzz/native.log; exit 1; }

fuzz() { # TARGET
  local target=$1 command
  local corpus=${target#native-} grown=build/fuzz/corpus/$target
  mkdir -p "$grown"
  case $target in
    native-*) command=("build/fuzz/native/fuzz-$corpus" -malloc_limit_mb=256 -rss_limit_mb=512) ;;
    *) command=("$python" tests/fuzz/run.py "$target" -rss_limit_mb=3072) ;;
  esac
  # The first folder is where inputs are added that reach something new.
  if "${command[@]}" -max_total_time="$seconds" -timeout=10 -len_control=0 -artifact_prefix="build/fuzz/findings/$target-" \
    -print_final_stats=1 "$grown" "tests/fuzz/corpus/$corpus" >"build/fuzz/$target.log" 2>&1; then
    echo "$target: nothing found in $(sed -n 's/^stat::number_of_executed_units: *//p' "build/fuzz/$target.log") inputs"
  else
    tail -n 40 "build/fuzz/$target.log"
    echo "$target: a finding; its input is in build/fuzz/findings, the whole output in build/fuzz/$target.log"
    return 1
  fi
}
export -f fuzz
export python seconds
printf '%s\n' "${targets[@]}" | xargs -P 2 -I TARGET bash -euo pipefail -c 'fuzz TARGET'
