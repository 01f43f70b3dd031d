"""Every figure of the browser runtime, in headless Chromium: docs/lab/web.md has them.

    npm ci --prefix runtime/web --ignore-scripts
    .venv/bin/python benchmarks/web.py [--rounds 200] [--bundles fashion-mnist-litert-fp32 ...]

Exports both packaged models for both engines in float32 and int8-dynamic into build/web, unless they are there, and
measures one after another; a minute and a half each. Only a machine that does nothing else gives figures.
"""

import argparse
import itertools
import os
import shutil
import subprocess
from pathlib import Path

from paraedge.exporting import export

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "web"
WEB = ROOT / "runtime" / "web"
BUNDLES = {
    f"{model}-{engine}-{recipe}": (model, engine, recipe)
    for model, engine, recipe in itertools.product(
        ("fashion-mnist", "cifar10"), ("litert", "onnxruntime"), ("fp32", "int8-dynamic")
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--bundles", nargs="+", choices=BUNDLES, default=list(BUNDLES))
    arguments = parser.parse_args()
    node = shutil.which("node")
    if node is None or not (WEB / "node_modules").is_dir():
        parser.error("node and the npm packages are missing: npm ci --prefix runtime/web --ignore-scripts")
    for engine in ("litert", "onnxruntime"):
        subprocess.run([node, "bin/copy-engine.js", engine, str(BUILD / "engines" / engine)], cwd=WEB, check=True)
    paths = []
    for name in arguments.bundles:
        model, engine, recipe = BUNDLES[name]
        path = BUILD / f"{name}.paraedge"
        if not path.exists():
            export(model, target="web", engine=engine, quantize=recipe, fused=True, out=path)
        paths.append(str(path))
    environment = {**os.environ, "ROUNDS": str(arguments.rounds), "ENGINES": str(BUILD / "engines")}
    subprocess.run([node, "bench/bench.js", *paths], cwd=WEB, check=True, env=environment)


if __name__ == "__main__":
    main()
