"""A page that runs bundles in a browser: one folder with everything, ready to be served."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from paraedge_converters.request import fitting_name
from paraedge_runtime.atomic import new_folder
from paraedge_runtime.bundle import Bundle
from paraedge_runtime.cache_folder import own_folder
from paraedge_runtime.errors import EngineUnavailable, InputError
from paraedge_runtime.manifest import ImageInput
from paraedge_runtime.signature import TrustedKeys, read_trusted_keys

__all__ = ["WEB_ENGINES", "make_site"]

WEB_ENGINES = ("litert", "onnxruntime")
_INSTALL_LIMIT_S = 600
_PHOTOGRAPH_SIDE = 64  # pixels; smaller ones are drawings and thumbnails
_PACKAGE_FILES = (
    "package.json",
    "package-lock.json",
    "bin/copy-engine.js",
    *(f"src/engines/{name}.js" for name in (*WEB_ENGINES, "memory", "parts")),
)


def make_site(
    out: str | os.PathLike[str],
    bundles: Sequence[str | os.PathLike[str]],
    *,
    trusted_keys: TrustedKeys | None = None,
    on_progress: Callable[[str], None] = lambda step: None,
) -> Path:
    """Write a folder with the page, the browser runtime, the bundles and the files of their engines.

    Args:
        out: a folder that does not exist yet, or is empty.
        bundles: of the engines in ``WEB_ENGINES``; their names in the folder are those of their models, or
            those of their own folders where several are of one model.
        trusted_keys: take only bundles that one of these keys signed; see ``Bundle.open``. The page opens no others
            either: their texts are in it.
        on_progress: called with what is done next.

    Raises:
        InputError: ``out`` is taken or cannot be written, no bundle or two of one name are given, a bundle is for
            another engine, or a trusted key cannot be read.
        BundleError: a bundle cannot be trusted.
        EngineUnavailable: the files of an engine are not here, and npm cannot fetch them.
    """
    target = Path(out).absolute()
    if (target / "manifest.json").exists() or (target.is_file() and target.suffix == ".zip"):
        raise InputError(f"{target} is a bundle; name the folder to write first: paraedge web site {Path(out).name}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists; remove it, or choose another folder")
    opened = _named([Bundle.open(bundle, trusted_keys=trusted_keys) for bundle in bundles])
    package, page = _sources()
    engines = sorted({bundle.manifest.engine for bundle in opened.values()})
    try:
        with new_folder(target) as building:
            shutil.copytree(page, building, dirs_exist_ok=True)
            # Engines bring their modules: below.
            shutil.copytree(package / "src", building / "paraedge", ignore=shutil.ignore_patterns("engines"))
            for name, bundle in opened.items():
                on_progress(f"copying {name}")
                for file, data in bundle.files().items():
                    path = building / "bundles" / name / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
            for engine in engines:
                on_progress(f"copying {engine}")
                _copy_engine(package, engine, building / "engines" / engine, on_progress)
            _write_index(building, opened, [key.text for key in read_trusted_keys(trusted_keys)])
    except OSError as error:
        # copytree tells of all files that it could not copy; the first says why.
        problem = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror or error
        raise InputError(f"{target} cannot be written: {problem}; choose another folder") from error
    return target


def _named(bundles: Sequence[Bundle]) -> dict[str, Bundle]:
    if not bundles:
        raise InputError("no bundle given; export one: paraedge export --target web")
    named: dict[str, Bundle] = {}
    for bundle in bundles:
        manifest = bundle.manifest
        if manifest.engine not in WEB_ENGINES:
            raise InputError(
                f"{bundle.path} is for {manifest.engine!r}, browsers run {', '.join(WEB_ENGINES)}; "
                "export it again with --target web"
            )
        several = [other.manifest.name for other in bundles].count(manifest.name) > 1
        name = fitting_name(_stem(bundle.path)) if several else manifest.name
        if name in named:
            raise InputError(f"two bundles are called {name!r}; rename one of them")
        named[name] = bundle
    return named


def _stem(path: Path) -> str:
    """The name of a bundle's folder or zip without its endings."""
    return Path(os.path.realpath(path)).name.removesuffix(".zip").removesuffix(".paraedge")


def _sources() -> tuple[Path, Path]:
    """The npm package and the page: as they lie in the repository, or inside a wheel."""
    here = Path(__file__).parent
    places = [(here.parents[1] / "runtime", here.parents[1] / "demos"), (here / "_runtime", here / "_demos")]
    for runtime, demos in places:
        if (runtime / "web" / "package.json").is_file():
            return runtime / "web", demos / "web"
    raise InputError("the browser runtime is not part of this installation; install paraedge again")


def _copy_engine(package: Path, engine: str, out: Path, on_progress: Callable[[str], None]) -> None:
    node = shutil.which("node")
    if node is None:
        raise EngineUnavailable(
            "the files of an engine come from npm, and node is not installed; install nodejs and npm"
        )
    installed = package if (package / "node_modules").is_dir() else _installed(package, on_progress)
    _run([node, str(installed / "bin" / "copy-engine.js"), engine, str(out)], installed)


def _installed(package: Path, on_progress: Callable[[str], None]) -> Path:
    """The packages of the lock file and the script that copies from them, fetched once and kept in the cache."""
    hashes = b"".join(hashlib.sha256((package / file).read_bytes()).digest() for file in _PACKAGE_FILES)
    folder = own_folder("web") / hashlib.sha256(hashes).hexdigest()[:12]
    if (folder / "done").exists():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise EngineUnavailable("the files of an engine come from npm, which is not installed; install nodejs and npm")
    shutil.rmtree(folder, ignore_errors=True)
    for file in _PACKAGE_FILES:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(package / file, folder / file)
    on_progress("fetching the engines from npm, once")
    _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
    (folder / "done").touch()
    return folder


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise EngineUnavailable(f"{command[0]} took more than {_INSTALL_LIMIT_S} s; check the connection") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise EngineUnavailable(f"{' '.join(command[:2])} failed: {lines[0]}; check the connection to the npm registry")


def _camera_model(opened: dict[str, Bundle]) -> str | None:
    """The model that the page takes for its camera: the largest colour image, if it is one of photographs."""
    sides = {}
    for name, bundle in opened.items():
        spec = bundle.manifest.input
        if isinstance(spec, ImageInput) and spec.shape[1] == 3:
            sides[name] = min(spec.shape[2:])
    best = max(sides, key=sides.__getitem__, default=None)
    return best if best is not None and sides[best] >= _PHOTOGRAPH_SIDE else None


def _write_index(folder: Path, opened: dict[str, Bundle], keys: list[str]) -> None:
    """``site.json``: the models, the trusted keys, every file, and a version that changes with any of them."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    version = hashlib.sha256("\0".join(keys).encode())
    for name in files:
        version.update(f"{name}\0".encode())
        version.update(hashlib.sha256((folder / name).read_bytes()).digest())
    index = {
        "version": version.hexdigest()[:16],
        "models": list(opened),
        "cameraModel": _camera_model(opened),
        "trustedKeys": keys or None,  # null: whoever made the folder is trusted
        "files": files,
    }
    (folder / "site.json").write_text(json.dumps(index, indent=2) + "\n")
