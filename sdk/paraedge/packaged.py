"""Models that ship with paraedge, in the package ``paraedge-models``: each a checkpoint folder, by name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from paraedge_runtime.errors import InputError

__all__ = ["DEFAULT_MODEL", "PACKAGED_MODELS", "packaged_folder", "resolve_checkpoint"]

DEFAULT_MODEL = "fashion-mnist"

# Name on the command line -> folder in the package paraedge_models.
PACKAGED_MODELS = {
    "fashion-mnist": "fashion_mnist",
    "cifar10": "cifar10",
    "waste": "waste",
}


def packaged_folder(name: str) -> Path | None:
    """The checkpoint folder of a packaged model; ``None`` when it is none, or is not installed."""
    found = importlib.util.find_spec("paraedge_models")
    if name not in PACKAGED_MODELS or found is None or found.origin is None:
        return None
    return Path(found.origin).parent / PACKAGED_MODELS[name]


def resolve_checkpoint(model: str | Path) -> Path:
    """The checkpoint folder that ``model`` means: a packaged model's name, or a path.

    Raises:
        InputError: it is neither, or the packaged models are not installed.
    """
    if str(model) in PACKAGED_MODELS:
        folder = packaged_folder(str(model))
        if folder is None:
            raise InputError(
                f"{model} is in paraedge-models, which is not installed; "
                "pip install 'paraedge[export]' on a workstation, or 'paraedge[models]' alone"
            )
        return folder
    path = Path(model)
    if ".py" in path.name and path.with_name(path.name.partition(":")[0]).is_file():
        raise InputError(f"{model} names no function; add the one that returns the network: my_net.py:make")
    if not (path / "config.json").is_file():
        raise InputError(
            f"{model} is neither a packaged model ({', '.join(PACKAGED_MODELS)}) nor a checkpoint folder "
            "made by 'paraedge train'"
        )
    return path
