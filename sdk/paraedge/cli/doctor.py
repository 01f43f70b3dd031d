"""``paraedge doctor``: what is installed, what works here, and what to install otherwise."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil

import click

from paraedge.cli.output import console, json_option, print_json, size_text, table, working

# What a package is for -> packages, in the order of the table.
_PACKAGES = {
    "device": ("numpy", "msgspec"),
    "cli": ("click", "rich", "pillow"),
    "engine": ("ai-edge-litert", "tflite-runtime", "onnxruntime", "executorch"),
    "train": ("torch", "safetensors", "scikit-learn", "matplotlib"),
    "sign": ("cryptography",),
    "export": ("litert-torch", "onnx", "onnxscript"),
}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check the installation.

    Loads each engine in a process of its own, and shows what works here and what to install otherwise.

    \b
    Example:
      paraedge doctor
    """
    from paraedge_converters.recipes import TFLITE_RUNTIME_RECIPES
    from paraedge_runtime.core import core_problem
    from paraedge_runtime.cores import available_cores
    from paraedge_runtime.engines import ENGINES
    from paraedge_runtime.errors import EngineError
    from paraedge_runtime.trial import try_engine

    without_core = core_problem()
    versions = {package: _version(package) for packages in _PACKAGES.values() for package in packages}
    engines: dict[str, dict[str, object]] = {}
    for name in ENGINES:
        try:
            with working(f"loading {name}"):
                engine = try_engine(name)
            detail = engine.description
            if engine.distribution == "tflite-runtime":
                detail += (
                    f"; bundles of {', '.join(TFLITE_RUNTIME_RECIPES)} only, pip install ai-edge-litert for others"
                )
            engines[name] = {"works": True, "parallel": engine.parallel and not without_core, "detail": detail}
        except EngineError as error:
            engines[name] = {"works": False, "parallel": False, "detail": str(error)}
    cache_bytes, cache_path, without_cache = _cache()
    document = {
        "paraedge": importlib.metadata.version("paraedge"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": available_cores(),
        "compiler": shutil.which("c++"),
        "native_core": {"works": not without_core, "detail": without_core},
        "packages": versions,
        "engines": engines,
        "cache": {"path": cache_path, "size_bytes": cache_bytes, "problem": without_cache},
    }
    if as_json:
        print_json(document)
        return
    console().print(
        f"paraedge {document['paraedge']}, Python {document['python']}, {document['machine']}, "
        f"{document['cores']} core(s)\n",
    )
    if without_core:
        console().print(f"branches run one after another: {without_core}\n")
    rows = table("engine", "works", "parallel", "~detail")
    for name, state in engines.items():
        works, parallel = bool(state["works"]), bool(state["parallel"])
        rows.add_row(name, "yes" if works else "no", "yes" if parallel else "no", str(state["detail"]))
    console().print(rows)
    console().print()
    rows = table("for", "package", "version", "~")
    for purpose, packages in _PACKAGES.items():
        for package in packages:
            found = versions[package]
            hint = "" if found or purpose in ("device", "engine") else f"pip install 'paraedge[{purpose}]'"
            rows.add_row(purpose, package, found or "–", hint)
    console().print(rows)
    kept = f"kept in {cache_path} ({size_text(cache_bytes)}; safe to delete)" if cache_path else "not kept"
    console().print(f"\nlowered parts are {kept}{f': {without_cache}' if without_cache else ''}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cache() -> tuple[int, str | None, str]:
    """Bytes in the cache, its folder, and why there is none."""
    from paraedge_runtime.cache_folder import cache_folder, own_folder
    from paraedge_runtime.errors import InputError

    try:
        folder = cache_folder()
        if folder.exists():
            own_folder("parts")
    except InputError as error:
        return 0, None, str(error)
    try:
        size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    except OSError as error:  # of another user
        return 0, str(folder), f"it cannot be read: {error.strerror}"
    return size_bytes, str(folder), ""
