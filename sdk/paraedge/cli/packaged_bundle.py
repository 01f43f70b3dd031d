"""The bundle of commands that were named none: the packaged model, exported for this machine once."""

from __future__ import annotations

from pathlib import Path

from paraedge.cli.output import progress_bar, working

__all__ = ["packaged_bundle"]


def packaged_bundle(engine: str | None) -> Path:
    """The packaged model as a bundle for this machine, made once and kept in the cache.

    Args:
        engine: the first that is installed when ``None``.

    Raises:
        EngineUnavailable: no engine is installed, or not the one that was named.
        InputError: the model or, where the bundle has to be made, torch is not installed.
    """
    import hashlib
    import shutil

    from paraedge.cli._chatter import captured_chatter
    from paraedge.packaged import DEFAULT_MODEL, packaged_folder
    from paraedge_measure.cache_folder import cache_folder
    from paraedge_runtime.bundle import Bundle
    from paraedge_runtime.engines import ENGINES, open_engine
    from paraedge_runtime.errors import BundleError, EngineError, EngineUnavailable, InputError
    from paraedge_runtime.session import Session

    chosen = engine
    if chosen is None:
        for name in ("litert", "onnxruntime", "executorch"):
            try:
                with working(f"looking for {name}"):
                    open_engine(name)
            except EngineUnavailable:
                continue
            chosen = name
            break
    else:
        open_engine(chosen)
    if chosen is None:
        raise EngineUnavailable(f"no engine is installed; pip install 'paraedge[litert]' (or {', '.join(ENGINES)})")
    folder = packaged_folder(DEFAULT_MODEL)
    if folder is None:
        raise InputError(
            "no bundle was named, and the packaged models are not installed; export one on a workstation "
            "('paraedge export --target raspberry-pi') and name it here, or pip install 'paraedge[export]'"
        )
    weights = (folder / "model.safetensors").read_bytes()
    version = hashlib.sha256(weights).hexdigest()[:12]
    path = cache_folder() / "bundles" / f"{DEFAULT_MODEL}-{chosen}-{version}.paraedge"
    if path.exists():
        try:
            with working("opening the packaged model's bundle"):
                Session.open(Bundle.open_untrusted(path), threads=1).close()  # made here; who opens it may refuse it
            return path
        except (BundleError, EngineError):  # damaged, or of other versions: it is made again below
            pass
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise InputError(
            "no bundle was named, and making one of the packaged model needs torch; export one on a "
            "workstation ('paraedge export --target raspberry-pi') and name it here"
        ) from None
    from paraedge.exporting import export

    shutil.rmtree(path, ignore_errors=True)  # an export replaces whole bundles only
    with progress_bar(is_steady=False) as bar, captured_chatter():
        task = bar.add_task(f"exporting for {chosen}, once", total=None)
        export(
            DEFAULT_MODEL,
            target="linux",
            engine=chosen,
            out=path,
            on_progress=lambda progress: bar.update(task, total=progress.total, completed=progress.step),
        )
    return path
