#!/usr/bin/env bash
# Builds the native core three times (as it is, with ThreadSanitizer, with AddressSanitizer) and runs its tests, and those
# of the Python session on the core with each sanitizer.
#
#   scripts/test_native.sh PYTHON      PYTHON: of an environment with paraedge and executorch
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1

executorch=$("$python" -c 'import importlib.util as u; print(u.find_spec("executorch").submodule_search_locations[0])')
export PARAEDGE_TEST_BUNDLE=build/native/test.paraedge
mkdir -p build/native
"$(dirname "$python")/paraedge" export --target android --out "$PARAEDGE_TEST_BUNDLE"

# Builds with one sanitizer have the core's options in common, so that a compiler's cache (.ci/run has one) knows it again.
sanitized=(-DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_C_FLAGS_RELWITHDEBINFO=-O1 -DNDEBUG" "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -DNDEBUG")

say() { echo "[$SECONDS s] == $*"; }

# Most of these tests wait for threads, so two run at a time.
at_once() { # FUNCTION ARGUMENT...: FUNCTION with each argument
    printf '%s\n' "${@:2}" | xargs -P 2 -I ARGUMENT bash -euo pipefail -c "$1 ARGUMENT"
}
run_tests() { # FOLDER PROGRAM
    # ExecuTorch logs to stderr what it refuses, and the tests give it much to refuse.
    "$1/$2" >"$1.stdout" 2>"$1.stderr" || { cat "$1.stdout" "$1.stderr"; return 1; }
    tail -n 3 "$1.stdout"
    # What a sanitizer finds in a thread that ends with the process does not change the exit status.
    if grep -E 'WARNING: ThreadSanitizer|ERROR: (Address|Leak)Sanitizer' "$1.stderr"; then return 1; fi
    say "$2 in $1"
}
paraedge_tests() { run_tests "$1" paraedge-tests; }
interface_tests() { run_tests "$1" paraedge-interface-tests; }
export -f say run_tests paraedge_tests interface_tests
builds=(build/native build/native-thread build/native-address)

for folder in "${builds[@]}"; do
    sanitizer=${folder#build/native}
    sanitizer=${sanitizer#-}
    kind=()
    [ -z "$sanitizer" ] || kind=("${sanitized[@]}" -DPARAEDGE_SANITIZE="$sanitizer")
    cmake -S runtime/native -B "$folder" -G Ninja -DPARAEDGE_EXECUTORCH="$executorch" \
        -DPARAEDGE_TESTS=ON -DPARAEDGE_TOOLS=$([ -z "$sanitizer" ] && echo ON || echo OFF) \
        "${kind[@]}" >"$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
    cmake --build "$folder" >>"$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
    say "built $folder"
done
at_once paraedge_tests "${builds[@]}"

# The core under Python: the scheduler's tests through the fake engine. One test exports bundles for engines, and is left out.
nanobind=$("$python" -c 'import nanobind; print(nanobind.cmake_dir())')
for sanitizer in thread address; do
    folder=build/python-$sanitizer
    cmake -S runtime/native -B "$folder" -G Ninja -DPARAEDGE_PYTHON=ON "${sanitized[@]}" -DPARAEDGE_SANITIZE="$sanitizer" \
        -DPython_EXECUTABLE="$(realpath -s "$python")" -Dnanobind_DIR="$nanobind" \
        >"$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
    cmake --build "$folder" --target _native >>"$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
    say "built $folder"
done
python_tests() { # SANITIZER
    local folder=build/python-$1 options library
    rm -f "$folder".report*
    options="exitcode=0:log_path=$PWD/$folder.report" # a report is found below, whichever process made it
    library=$(gcc -print-file-name="lib${1:0:1}san.so") # libtsan, libasan; found before what it watches
    # libstdc++ beside it: ASan looks for __cxa_throw when the process starts. Leaks would be the interpreter's own.
    # ThreadSanitizer of GCC 12 needs addresses that are not shuffled.
    PYTHONPATH=tests PARAEDGE_TEST_NATIVE=$(echo "$folder"/_native*.so) \
        TSAN_OPTIONS=$options ASAN_OPTIONS=$options:detect_leaks=0 \
        setarch -R env LD_PRELOAD="$library $(gcc -print-file-name=libstdc++.so)" \
        "$python" -m pytest -p support.other_native -p no:cacheprovider -q -o timeout=0 \
        tests/runtime/test_session.py tests/runtime/test_anytime.py \
        --deselect tests/runtime/test_anytime.py::test_early_stop_is_the_same_in_c_and_in_python >"$folder.tests" 2>&1 ||
        { cat "$folder.tests"; return 1; }
    if ls "$folder".report* 2>/dev/null; then cat "$folder".report*; return 1; fi
    say "test_session and test_anytime with $1: $(tail -n 1 "$folder.tests")"
}
export -f python_tests
export python
at_once python_tests thread address

say "the example and the tools"
image=build/native/image.pgm
refused=build/native/refused.paraedge # its checksums are right, and its first branch is no program
sensor=build/native/sensor.paraedge # the same programs read a tensor and make a vector
rm -rf "$refused" "$sensor"
"$python" - "$PARAEDGE_TEST_BUNDLE" "$image" "$refused" "$sensor" <<'END'
import hashlib, json, shutil, sys
from pathlib import Path
from PIL import Image
from paraedge_runtime import Bundle
def write_manifest(folder, manifest):
    text = json.dumps(manifest)
    (folder / "manifest.json").write_text(text)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  manifest.json\n")
Image.fromarray(Bundle.open(sys.argv[1]).golden().inputs[0, :, :, 0]).save(sys.argv[2])
refused = Path(shutil.copytree(sys.argv[1], sys.argv[3]))
manifest = json.loads((refused / "manifest.json").read_text())
branch = manifest["branches"][0]
zeros = bytes(branch["size_bytes"])
(refused / branch["file"]).write_bytes(zeros)
branch["sha256"] = hashlib.sha256(zeros).hexdigest()
write_manifest(refused, manifest)
sensor = Path(shutil.copytree(sys.argv[1], sys.argv[4]))
manifest = json.loads((sensor / "manifest.json").read_text())
manifest["input"] |= {"kind": "tensor", "axes": ["channel", "row", "column"], "normalized_axis": "channel"}
manifest["output"] = {"kind": "vector", "name": "embedding", "size": len(manifest["output"]["labels"])}
manifest["stop_rules"] = None
write_manifest(sensor, manifest)
END
build/native/classify "$PARAEDGE_TEST_BUNDLE" "$image" 2>/dev/null
build/native/classify "$PARAEDGE_TEST_BUNDLE" "$image" 50 2>/dev/null
build/native/paraedge-bench "$PARAEDGE_TEST_BUNDLE" --requests 50 2>/dev/null
build/native/paraedge-bench "$sensor" --requests 50 2>/dev/null
echo "run 1 8 3" | build/native/paraedge-testbed "$sensor" 1 2>/dev/null

test_interfaces() { # what applications see: tests through the shared library, its symbols, its installation
    local library
    export PARAEDGE_TEST_ONNX_BUNDLE=build/native/onnx.paraedge
    PARAEDGE_TEST_ONNXRUNTIME=$("$python" -c 'import importlib.util as u, pathlib
print(*pathlib.Path(u.find_spec("onnxruntime").submodule_search_locations[0]).glob("capi/libonnxruntime.so.1.*"))')
    export PARAEDGE_TEST_ONNXRUNTIME
    "$(dirname "$python")/paraedge" export --target linux --engine onnxruntime --out "$PARAEDGE_TEST_ONNX_BUNDLE"
    at_once interface_tests "${builds[@]}"

    say "exported symbols are pe_* and no others; installation, and a project outside that uses it"
    cmake --install build/native --prefix "$PWD/build/prefix" >build/native.log
    for library in build/prefix/lib*/libparaedge.so build/prefix/lib*/libparaedge_executorch.so; do
        nm -D --defined-only "$library" | grep -q ' T pe_'
        if nm -D --defined-only "$library" | grep -v ' T pe_'; then echo "$library exports these too"; exit 1; fi
    done
    rm -rf build/outside
    cmake -S runtime/native/examples/outside -B build/outside -DCMAKE_PREFIX_PATH="$PWD/build/prefix" >build/outside.log
    cmake --build build/outside >>build/outside.log 2>&1 || { cat build/outside.log; exit 1; }
    # What docs/tutorial-cpp.md shows; how many predictions come before the last one is up to the machine.
    { build/outside/in_c "$PARAEDGE_TEST_BUNDLE"; build/outside/in_cpp "$PARAEDGE_TEST_BUNDLE"; } >build/outside.txt
    sed -n '/^```text$/,/^```$/p' docs/tutorial-cpp.md | grep -v -e '^```' -e '^so far ' >build/outside-shown.txt
    grep -v '^so far ' build/outside.txt | diff build/outside-shown.txt -
}
test_interfaces

say "paraedge profile over adb: this machine plays the phone, paraedge-testbed is the real one"
phone=$PWD/build/phone
rm -rf "$phone" && mkdir -p "$phone/bin" "$phone/tools"
cp build/native/paraedge-testbed "$phone/tools"
"$python" - "$phone" <<'END'
import sys
from pathlib import Path
from paraedge_measure.device import Adb, Device, write_device
sys.path.insert(0, "tests")
from support import fake_adb
phone = Path(sys.argv[1])
fake_adb.install(phone / "bin", "device")
connection = Adb(serial=fake_adb.SERIAL, tools=str(phone / "tools"), folder=str(phone / "storage"))
write_device(Device(name="phone", connection=connection), phone / "device.json")
END
PATH=$phone/bin:$PATH "$(dirname "$python")/paraedge" profile "$phone/device.json" "$PARAEDGE_TEST_BUNDLE" --threads 2
PATH=$phone/bin:$PATH "$(dirname "$python")/paraedge" verify "$PARAEDGE_TEST_BUNDLE" --profile "$phone/device.json"

say "what they refuse: 2 for a mistake of the user's, 1 for a failure"
fails() { # STATUS MESSAGE PROGRAM ARGUMENT...
    local status=0 output
    output=$("build/native/${@:3}" 2>&1 >/dev/null) || status=$?
    [[ $status = "$1" && $output == *"Error: $2"* ]] || { echo "$status instead of $1 '$2': ${*:3}: $output"; exit 1; }
}
for budget in 5abc nan inf -3 0 ""; do
    fails 2 "BUDGET_MS must be above 0 and below 1e9, got '$budget'" classify "$PARAEDGE_TEST_BUNDLE" "$image" "$budget"
done
fails 2 "README.md is not a binary PGM" classify "$PARAEDGE_TEST_BUNDLE" README.md
fails 2 "nowhere.paraedge does not exist; " classify nowhere.paraedge "$image"
fails 2 "$sensor does not classify images; " classify "$sensor" "$image"
fails 2 "branch_00.pte is damaged or hostile" classify "$refused" "$image"
fails 2 "the bundle's folder is missing" paraedge-bench
fails 2 "nowhere.paraedge does not exist; " paraedge-bench nowhere.paraedge
fails 2 "9 branches requested, 8 available" paraedge-bench "$PARAEDGE_TEST_BUNDLE" --branches 9
fails 2 "--threads must be a number from" paraedge-bench "$PARAEDGE_TEST_BUNDLE" --threads 2x
fails 2 "--spin-us must be a number from" paraedge-bench "$PARAEDGE_TEST_BUNDLE" --spin-us 99999999999
fails 2 "unknown placement 'moon'; " paraedge-bench "$PARAEDGE_TEST_BUNDLE" --placement moon
fails 2 "branch_00.pte is damaged or hostile" paraedge-bench "$refused"
fails 2 "give a bundle's folder and numbers of threads" paraedge-testbed
fails 2 "nowhere.paraedge does not exist; " paraedge-testbed nowhere.paraedge 2
fails 2 "THREADS must be a number from" paraedge-testbed "$PARAEDGE_TEST_BUNDLE" 2x
fails 2 "branch_00.pte is damaged or hostile" paraedge-testbed "$refused" 1
for line in "run 3 1 1" "run 1 9 1" "walk"; do
    echo "$line" | fails 2 "" paraedge-testbed "$PARAEDGE_TEST_BUNDLE" 1
done
