"""What commands say when they put an unsigned bundle in place of a signed one."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

__all__ = ["telling_of_lost_signature"]


@contextlib.contextmanager
def telling_of_lost_signature(out: Path | None) -> Iterator[None]:
    """A line on stderr after the block if a signed bundle stood at ``out`` before, and an unsigned one does now."""
    before = _is_signed(out)
    yield
    if out is not None and before and not _is_signed(out):
        command = shlex.join(["paraedge", "sign", str(out), "--key"])
        click.echo(f"Note: {out} was signed, and the bundle that replaced it is not; sign it: {command} KEY", err=True)


def _is_signed(path: Path | None) -> bool:
    from paraedge_runtime.errors import IntegrityError
    from paraedge_runtime.manifest import SIGNATURE_NAME
    from paraedge_runtime.storage import open_storage

    try:
        return path is not None and path.exists() and SIGNATURE_NAME in open_storage(path).names()
    except (IntegrityError, OSError):  # it is no bundle, which is said where it would be replaced
        return False
