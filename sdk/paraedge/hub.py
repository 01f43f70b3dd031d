"""Models and bundles on a hub: ``push`` and ``pull``, by ``huggingface_hub``.

A repository holds one bundle (the files of its folder) or one checkpoint folder, and a model card, ``README.md``. What
comes from there is untrusted: it is bounded in size and time, checked as the strict readers do, and only then stands at
its place. The token is huggingface_hub's (``hf auth login`` or ``HF_TOKEN``), the hub that of ``HF_ENDPOINT``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from paraedge.hub_card import bundle_readme, checkpoint_readme
from paraedge_runtime import __version__
from paraedge_runtime._arguments import as_callable, as_flag, as_instance, as_path
from paraedge_runtime.atomic import new_folder
from paraedge_runtime.bundle import Bundle, check_destination, listed_names, write_files
from paraedge_runtime.errors import InputError, ParaEdgeError
from paraedge_runtime.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    SIGNATURE_NAME,
    decode_manifest,
)
from paraedge_runtime.signature import TrustedKeys, check_signature, read_trusted_keys
from paraedge_runtime.storage import looks_like_bundle

__all__ = ["pull", "push"]

_CARD_NAME = "README.md"
# Of one bundle or checkpoint: far above what a small machine runs.
_MAX_BYTES = 2 << 30
# Files of a checkpoint folder, and the most bytes that are read of each.
_CHECKPOINT_FILES = {
    "config.json": 16 << 20,
    "training.json": 16 << 20,
    "model.safetensors": _MAX_BYTES,
    "samples.npz": _MAX_BYTES,
    "evaluation.npz": _MAX_BYTES,
}
_TIMEOUT_S = 30.0  # of a connection, and without a byte
# A download is given up where it is slower than this once the first minute is over.
_PATIENCE_S, _SLOWEST_BYTES_PER_S = 60.0, 10_000


def push(source: str | os.PathLike[str], repo_id: str, *, private: bool = False) -> str:
    """Upload a bundle or a checkpoint folder with its model card. The repository's previous contents are replaced.

    Args:
        source: a bundle (folder or zip), a checkpoint folder, or a packaged model's name.
        repo_id: ``user/name``; created if it does not exist.
        private: make a new repository private.

    Returns:
        The address of the repository.

    Raises:
        InputError: ``source`` or ``repo_id`` is invalid, or the token is missing or has no write access.
        BundleError: the bundle is damaged.
        ParaEdgeError: the hub cannot be reached, or failed.
    """
    repo_id, private = as_instance("repo_id", repo_id, str), as_flag("private", private)
    files, readme = _readable(as_path("source", source), repo_id)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(library_name="paraedge", library_version=__version__)
    with _hub_errors(repo_id), _no_progress_bars():
        address = str(api.create_repo(repo_id, private=private, exist_ok=True))
        files = {**files, _CARD_NAME: readme.encode()}
        there = {file.rfilename for file in api.model_info(repo_id, timeout=_TIMEOUT_S).siblings or ()}
        gone = sorted(there - set(files) - {".gitattributes"})
        api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in files.items()),
                *(CommitOperationDelete(path_in_repo=name) for name in gone),
            ],
            commit_message=f"paraedge push (paraedge {__version__})",
        )
    return address


def pull(
    repo_id: str,
    out: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    trusted_keys: TrustedKeys | None = None,
    on_progress: Callable[[str, int], None] = lambda name, num_bytes: None,
) -> Path:
    """Download the bundle or checkpoint folder of a repository. ``out`` is written completely or not at all.

    Args:
        repo_id: ``user/name``.
        out: folder to write; ``None`` for ``name.paraedge`` or ``name`` in the current folder.
        revision: branch, tag or commit; ``None`` for the main branch.
        trusted_keys: as in :meth:`paraedge.Bundle.open`; a checkpoint folder, which has no signature, is then
            rejected.
        on_progress: called with a file's name and the number of bytes received.

    Returns:
        The folder.

    Raises:
        InputError: the repository does not exist or contains neither, or ``out`` cannot be written.
        BundleError: the bundle is damaged, or no trusted key signed it.
        ParaEdgeError: the hub cannot be reached, failed, or sends too much or too slowly.
    """
    from huggingface_hub import HfApi

    repo_id = as_instance("repo_id", repo_id, str)
    out = None if out is None else as_path("out", out)
    revision = None if revision is None else as_instance("revision", revision, str)
    as_callable("on_progress", on_progress)
    api = HfApi(library_name="paraedge", library_version=__version__)
    with _hub_errors(repo_id):
        info = api.model_info(repo_id, revision=revision, timeout=_TIMEOUT_S)
        names = {file.rfilename for file in info.siblings or ()}
    source = _Repository(repo_id, info.sha or "main", on_progress)
    name = repo_id.rpartition("/")[2]
    if MANIFEST_NAME in names:
        return _pull_bundle(source, Path(out or f"{name}.paraedge"), trusted_keys)
    if set(_CHECKPOINT_FILES) <= names:
        if trusted_keys is not None:
            raise InputError(f"{repo_id} holds a checkpoint, which has no signature; leave out --key")
        return _pull_checkpoint(source, Path(out or name))
    raise InputError(f"{repo_id} holds neither a bundle nor a checkpoint of paraedge; choose another repository")


def _pull_bundle(source: _Repository, out: Path, trusted_keys: TrustedKeys | None) -> Path:
    """The manifest first: who signed it, and how many bytes the other files may have."""
    keys = read_trusted_keys(trusted_keys)
    check_destination(out, is_signed=bool(keys))
    files = {MANIFEST_NAME: source.read(MANIFEST_NAME, MAX_MANIFEST_BYTES)}
    if keys:
        files[SIGNATURE_NAME] = source.read(SIGNATURE_NAME, MAX_SIGNATURE_BYTES)
        check_signature(Path(source.repo_id), files[MANIFEST_NAME], files[SIGNATURE_NAME], keys)
    manifest = decode_manifest(files[MANIFEST_NAME])
    entries = manifest.entries().values()
    if (total := sum(entry.size_bytes for entry in entries)) > _MAX_BYTES:
        raise InputError(f"{source.repo_id} has {total} bytes, more than the {_MAX_BYTES} allowed; copy it another way")
    for name in sorted(listed_names(manifest) - set(files) - {entry.file for entry in entries}):
        files[name] = source.read(name, MAX_SIGNATURE_BYTES)  # its hash and its signature
    for entry in entries:
        files[entry.file] = source.read(entry.file, entry.size_bytes)
    return write_files(files, out, trusted_keys=[key.text for key in keys] or None).path


def _pull_checkpoint(source: _Repository, out: Path) -> Path:
    from paraedge.model.checkpoint import check_target, load_checkpoint

    target = check_target(out)
    left = _MAX_BYTES
    try:
        with new_folder(target) as building:
            for name, most in _CHECKPOINT_FILES.items():
                data = source.read(name, min(most, left))
                left -= len(data)
                (building / name).write_bytes(data)
            try:
                load_checkpoint(building)
            except InputError as error:  # where it was built is gone when somebody reads this
                raise InputError(str(error).replace(str(building), source.repo_id)) from error
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}; choose another --out") from error
    return target


class _Repository(NamedTuple):
    """One commit of a repository."""

    repo_id: str
    commit: str
    on_progress: Callable[[str, int], None]

    def read(self, name: str, most_bytes: int) -> bytes:
        """One file.

        Raises:
            ParaEdgeError: it has more bytes, comes too slowly, or does not come.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session

        headers = {**build_hf_headers(library_name="paraedge", library_version=__version__)}
        headers["Accept-Encoding"] = "identity"  # nothing to inflate, so no bombs
        url = hf_hub_url(self.repo_id, name, revision=self.commit)
        chunks: list[bytes] = []
        count, started = 0, time.monotonic()
        with (
            _hub_errors(self.repo_id),
            get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response,
        ):
            if response.status_code != 200:
                raise ParaEdgeError(
                    f"{name} of {self.repo_id} cannot be read: the hub returned {response.status_code}; try again"
                )
            for chunk in response.iter_raw():
                count += len(chunk)
                if count > most_bytes:
                    raise ParaEdgeError(f"{name} of {self.repo_id} has more than the {most_bytes} bytes allowed")
                waited = time.monotonic() - started - _PATIENCE_S
                if waited > 0 and count < waited * _SLOWEST_BYTES_PER_S:
                    raise ParaEdgeError(f"{name} of {self.repo_id} downloads too slowly; try again later")
                chunks.append(chunk)
                self.on_progress(name, len(chunk))
        return b"".join(chunks)


def _readable(source: str | os.PathLike[str], repo_id: str) -> tuple[dict[str, bytes | str], str]:
    """The files of a bundle or a checkpoint folder, checked, and its model card."""
    if looks_like_bundle(Path(source)):
        bundle = Bundle.open(source)
        return dict(bundle.files()), bundle_readme(bundle, repo_id)
    from paraedge.model.checkpoint import load_checkpoint
    from paraedge.packaged import resolve_checkpoint

    folder = resolve_checkpoint(os.fspath(source))
    readme = checkpoint_readme(load_checkpoint(folder), repo_id)
    return {name: str(folder / name) for name in _CHECKPOINT_FILES}, readme


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """huggingface_hub draws them on stderr, and a library draws nothing."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextlib.contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """Its errors become ours, in one line without addresses: those may carry a signature, and never the token."""
    from huggingface_hub import errors

    login = "log in with 'hf auth login', or set HF_TOKEN"
    try:
        yield
    except errors.HFValidationError:
        raise InputError(f"{repo_id!r} is not the name of a repository; give user/name") from None
    except errors.LocalTokenNotFoundError:
        raise InputError(f"the hub requires a login; {login}") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{repo_id} has no such revision; name a branch, a tag or a commit") from None
    except (errors.RepositoryNotFoundError, errors.GatedRepoError):
        raise InputError(f"{repo_id} is not on the hub, or you may not read it; check the name, or {login}") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise InputError(f"your token does not give access to {repo_id}; {login}, with a token that does") from None
        raise ParaEdgeError(f"the hub returned {status} for {repo_id}; try again later") from None
    except (errors.HTTPError, OSError) as error:
        raise ParaEdgeError(f"the hub cannot be reached ({type(error).__name__}); check the network") from None
