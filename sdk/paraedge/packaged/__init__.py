"""Models that ship inside the package, each a checkpoint folder beside this file."""

from __future__ import annotations

from pathlib import Path

from paraedge_runtime.errors import InputError

__all__ = ["DEFAULT_MODEL", "PACKAGED_MODELS", "resolve_checkpoint"]

DEFAULT_MODEL = "fashion-mnist"

# Name on the command line -> folder beside this file.
PACKAGED_MODELS = {
    "fashion-mnist": "fashion_mnist",
    "cifar10": "cifar10",
}


def resolve_checkpoint(model: str | Path) -> Path:
    """The checkpoint folder that ``model`` means: a packaged model's name, or a path.

    Raises:
        InputError: it is neither.
    """
    if (folder := PACKAGED_MODELS.get(str(model))) is not None:
        return Path(__file__).parent / folder
    path = Path(model)
    if not (path / "config.json").is_file():
        raise InputError(
            f"{model} is neither a packaged model ({', '.join(PACKAGED_MODELS)}) nor a checkpoint folder "
            "made by 'paraedge train'"
        )
    return path
