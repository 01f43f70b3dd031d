"""What commands that need images with labels say of a bundle that reads tensors or makes a vector."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paraedge_runtime.bundle import Bundle

__all__ = ["need_classified_images"]


def need_classified_images(bundle: Bundle, command: str, purpose: str) -> None:
    """Refuse a bundle that does not classify images, and say what works with it.

    Args:
        bundle: to be used.
        command: that works with every bundle, without its path.
        purpose: of that command.

    Raises:
        InputError: the bundle reads tensors, or its output is a vector.
    """
    from paraedge_runtime.errors import InputError

    if not bundle.manifest.classifies_images:
        raise InputError(
            f"{bundle.path} does not classify images, which this command needs; "
            f"'{command} {shlex.quote(str(bundle.path))}' {purpose}"
        )
