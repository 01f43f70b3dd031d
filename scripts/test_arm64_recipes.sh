#!/usr/bin/env bash
# Every engine and recipe on 64-bit Arm: bundles made here are verified and run in an emulated Debian Python.
#
#   scripts/test_arm64_recipes.sh BIN      after test_arm64_python.sh, whose packages it uses
#
# Ends with the table of docs/lab/recipes.md. The answers count; what is emulated has no timing.
set -euo pipefail
bin=$(realpath --no-symlinks "$1")
cd "$(dirname "$0")/.."
build=$PWD/build/arm64
work=$build/recipes
python=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
root=$(scripts/arm64_python.sh "$bin/python")
say() { echo "[$SECONDS s] $*"; }

# ---- a bundle of one branch for each engine and recipe, with the answers that this machine gives. Half of the
#      golden images, one branch: emulation takes hundreds of times as long.
rm -rf "$work"
mkdir -p "$work"
cat >"$work/export.py" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np

from paraedge.exporting import export
from paraedge.model import load_checkpoint
from paraedge.packaged import DEFAULT_MODEL, resolve_checkpoint
from paraedge_converters.recipes import RECIPES
from paraedge_runtime import Session

checkpoint = load_checkpoint(resolve_checkpoint(DEFAULT_MODEL))
for engine in sys.argv[2:]:
    for recipe in RECIPES:
        if engine not in RECIPES[recipe].refused:
            path = Path(sys.argv[1], engine, f"{recipe}.paraedge")
            path.parent.mkdir(exist_ok=True, parents=True)
            bundle = export(checkpoint, target="linux", engine=engine, quantize=recipe, branches=1, out=path)
            with Session.open(bundle, threads=1) as session:
                answers = [session.run(image).output for image in bundle.golden().inputs]
            np.save(path.with_suffix(".npy"), np.stack(answers))
PYTHON
"$bin/python" "$work/export.py" "$work" executorch &
first=$!
"$bin/python" "$work/export.py" "$work" litert onnxruntime
wait $first
say "exported $(find "$work" -maxdepth 2 -name '*.paraedge' | wc -l) bundles"

cat >"$work/check.py" <<'PYTHON'
"""ENGINE FOLDER NAME: verify and run every bundle in FOLDER, compare with the answers beside it, note a row for each."""
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np

from paraedge_runtime import Bundle, EngineError, Session
from paraedge_runtime.verification import verify_bundle

sys.executable = os.environ["PYTHON_ON_ARM"]
assert platform.machine() == "aarch64" and "torch" not in sys.modules
engine, folder, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
rows = []
for path in sorted(folder.glob("*.paraedge")):
    bundle = Bundle.open(path)
    images, there = bundle.golden().inputs[:16], np.load(path.with_suffix(".npy"))[:16]
    try:
        report = verify_bundle(bundle, threads=1)
        assert not report.problems, (path.stem, report.problems)
        with Session.open(bundle, threads=1) as session:
            here = np.stack([session.run(image).output for image in images])
    except EngineError as error:
        rows.append({"engine": name, "recipe": path.stem, "refused": str(error)})
        continue
    snr_db = report.prefixes[-1].snr_db
    same, off = float((here.argmax(1) == there.argmax(1)).mean()), float(np.abs(here - there).max())
    assert same == 1.0, (path.stem, "other labels than on x86", same)
    rows.append({"engine": report.engine, "recipe": path.stem, "snr_db": snr_db, "same": same, "off": off})
Path(folder, f"{name}.json").write_text(json.dumps(rows))
PYTHON

# The trial's child is started by this machine's kernel, which runs no Arm program: it starts qemu.
printf '#!/bin/sh\nexec qemu-aarch64-static -cpu cortex-a72 -L "%s" "%s" "$@"\n' \
  "$root" "$root/usr/bin/python$python" >"$build/python-on-arm"
chmod +x "$build/python-on-arm"
export PYTHON_ON_ARM=$build/python-on-arm
on_arm() { # ENGINE NAME PATHS: the engine's bundles in one process
  PYTHONPATH=$3 PYTHONDONTWRITEBYTECODE=1 timeout 900 qemu-aarch64-static -cpu cortex-a72 -L "$root" \
    "$root/usr/bin/python$python" "$work/check.py" "$1" "$work/$1" "$2" >"$work/$2.log" 2>&1 || {
    tail -n 20 "$work/$2.log" >&2
    return 1
  }
}
on_arm litert litert "$build/with-litert" &
first=$!
on_arm executorch executorch "$build/site:$(scripts/executorch_wheel.sh "$bin/python" aarch64)"
on_arm onnxruntime onnxruntime "$build/with-onnxruntime"
wait $first
[ ! -d "$build/with-tflite-runtime" ] || on_arm litert tflite-runtime "$build/with-tflite-runtime"
say 'verified and run on Arm; against torch, and against x86:'

"$bin/python" - "$work" <<'PYTHON'
import json
import sys
from pathlib import Path

print("| engine on Arm | recipe | SNR against torch | same labels as x86 | largest difference from x86 |")
print("|---|---|---|---|---|")
for file in sorted(Path(sys.argv[1]).glob("*/*.json")):
    for row in json.loads(file.read_text()):
        start = f"| {row['engine']} | `{row['recipe']}` |"
        if "refused" in row:
            print(f"{start} refused: {row['refused']} | | |")
        else:
            print(f"{start} {row['snr_db']:.0f} dB | {100 * row['same']:.0f} % | {row['off']:.1e} |")
PYTHON
