#!/usr/bin/env bash
# Builds the native core three times (as it is, with ThreadSanitizer, with AddressSanitizer) and runs its tests.
#
#   scripts/test_native.sh PYTHON      PYTHON: of an environment with paraedge and executorch
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1

executorch=$("$python" -c 'import importlib.util as u; print(u.find_spec("executorch").submodule_search_locations[0])')
export PARAEDGE_TEST_BUNDLE=build/native/test.paraedge
mkdir -p build/native
"$(dirname "$python")/paraedge" export --target android --out "$PARAEDGE_TEST_BUNDLE"

for sanitizer in "" thread address; do
    folder=build/native${sanitizer:+-$sanitizer}
    echo "== paraedge-tests ${sanitizer:-as they are}"
    cmake -S runtime/native -B "$folder" -G Ninja -DPARAEDGE_EXECUTORCH="$executorch" \
        -DPARAEDGE_TESTS=ON -DPARAEDGE_TOOLS=$([ -z "$sanitizer" ] && echo ON || echo OFF) \
        -DPARAEDGE_SANITIZE="$sanitizer" >"$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
    cmake --build "$folder" >>"$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
    # ExecuTorch logs to stderr what it refuses, and the tests give it much to refuse.
    "$folder/paraedge-tests" 2>"$folder.stderr" || { cat "$folder.stderr"; exit 1; }
    # What a sanitizer finds in a thread that ends with the process does not change the exit status.
    if grep -E 'WARNING: ThreadSanitizer|ERROR: (Address|Leak)Sanitizer' "$folder.stderr"; then exit 1; fi
done

echo "== the example and paraedge-bench"
picture=build/native/picture.pgm
"$python" - "$PARAEDGE_TEST_BUNDLE" "$picture" <<'END'
import sys
from PIL import Image
from paraedge_runtime import Bundle
Image.fromarray(Bundle.open(sys.argv[1]).golden().images[0, :, :, 0]).save(sys.argv[2])
END
build/native/classify "$PARAEDGE_TEST_BUNDLE" "$picture" 2>/dev/null
build/native/classify "$PARAEDGE_TEST_BUNDLE" "$picture" 50 2>/dev/null
build/native/paraedge-bench "$PARAEDGE_TEST_BUNDLE" --requests 50 2>/dev/null
