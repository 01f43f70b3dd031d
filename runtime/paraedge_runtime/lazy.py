"""Public names that are imported when they are used, so that importing a package stays light."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, names: Mapping[str, str], with_torch: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A module-level ``__getattr__`` and ``__dir__`` (PEP 562): what ``dir``, ``help`` and completion show.

    Args:
        package: its ``__name__``; its ``__all__`` is what ``__dir__`` lists.
        names: public name -> module that defines it.
        with_torch: names that ``__dir__`` lists only where torch is installed. ``help`` looks at all that is listed.
    """

    def attribute(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(names[name]), name)

    def listing() -> list[str]:
        module = vars(sys.modules[package])
        hidden = set() if importlib.util.find_spec("torch") else set(with_torch)
        return sorted((set(module) | set(module["__all__"])) - hidden)

    return attribute, listing
