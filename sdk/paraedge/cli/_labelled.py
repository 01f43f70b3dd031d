"""What commands that need inputs with labels say of a bundle that has no data set, or makes a vector."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paraedge_runtime.bundle import Bundle

__all__ = ["need_classifier"]


def need_classifier(bundle: Bundle, command: str, purpose: str) -> None:
    """Refuse a bundle that classifies neither images nor signals, and say what works with it.

    Args:
        bundle: to be used.
        command: that works with every bundle, without its path.
        purpose: of that command.

    Raises:
        InputError: the bundle reads other tensors, or its output is a vector.
    """
    from paraedge_runtime.errors import InputError

    manifest = bundle.manifest
    if not (manifest.classifies_images or manifest.classifies_signals):
        raise InputError(
            f"{bundle.path} classifies neither images nor signals of a known rate, which this command needs; "
            f"'{command} {shlex.quote(str(bundle.path))}' {purpose}"
        )
