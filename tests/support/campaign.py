"""Opens mutated bundles with both readers and counts what they say: ``python tests/support/campaign.py COUNT [SEED]``.

Every case is a bundle with a mutation: folder or zip, unsigned or signed by a trusted key. No exception may come from
outside paraedge's tree, and Python and C must agree. What is accepted must be what it was, unless the hash was made
anew for a changed manifest that nobody signed: that is another bundle. Those cases are counted, and show that what
comes after the hash holds too.
"""

import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from paraedge_runtime import Bundle, BundleError
from paraedge_runtime.archive import write_zip
from paraedge_runtime.core import load_core
from support.bundles import EMBEDDING, MOTION, fake_bundle, hash_line, tree
from support.keys import PUBLIC, signed
from support.mutations import changed_bytes, changed_files

_SLOW_S = 5.0
Meaning = tuple[object, ...]


def run(count: int, seed: int, folder: Path) -> Counter[str]:
    """How many cases ended how; ``AssertionError`` for the first that must not be."""
    numbers = Random(seed)
    originals = _originals(folder)
    results: Counter[str] = Counter()
    for number in range(count):
        files, packed, meaning, is_signed = numbers.choice(originals)
        path = folder / "mutated"
        kind = numbers.choice(["folder", "folder", "zip", "zip bytes"])
        is_hashed_anew = kind != "zip bytes" and numbers.random() < 0.5
        if kind == "zip bytes":
            raw = packed
            for _ in range(numbers.choice([1, 1, 2, 3])):
                raw = changed_bytes(numbers, raw)
            path.write_bytes(raw)
        else:
            mutated = changed_files(numbers, files)
            if is_hashed_anew and "manifest.json" in mutated and "manifest.sha256" in mutated:
                mutated["manifest.sha256"] = hash_line(mutated["manifest.json"])
            if kind == "zip":
                _quietly_zipped(mutated, path)
            else:
                _written(mutated, path)
        name = f"{'signed' if is_signed else 'unsigned'} {kind}{', hashed anew' if is_hashed_anew else ''}"
        may_differ = is_hashed_anew and not is_signed
        case = f"{name}, seed {seed}, case {number}"
        results[f"{name}: {_verdict(path, is_signed, meaning, may_differ, case)}"] += 1
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return results


def _originals(folder: Path) -> list[tuple[dict[str, bytes], bytes, Meaning, bool]]:
    found = []
    for name, kinds in {"labels": {}, "vectors": {"input": MOTION, "output": EMBEDDING}}.items():
        for is_signed in (False, True):
            bundle = fake_bundle(folder / f"{name}-{is_signed}.paraedge", **kinds)
            if is_signed:
                bundle = signed(bundle, folder / "keys")
            packed = bundle.pack(folder / f"{name}-{is_signed}.zip").read_bytes()
            files = {file: data for file, data in tree(bundle.path).items() if isinstance(data, bytes)}
            found.append((files, packed, _meaning(bundle), is_signed))
    return found


def _meaning(bundle: Bundle) -> Meaning:
    """Everything that a device does with it."""
    entries = bundle.manifest.entries().values()
    return bundle.manifest, bundle.card, tuple(bundle.read(entry) for entry in entries)


def _verdict(path: Path, is_signed: bool, meaning: Meaning, may_differ: bool, case: str) -> str:
    begin = time.monotonic()
    keys = PUBLIC["release"] if is_signed else None
    if keys is not None:
        os.environ["PARAEDGE_TRUSTED_KEYS"] = keys
    try:
        try:
            load_core().check_bundle(str(path))
            in_c = "accepted"
        except BundleError:
            in_c = "refused"
    finally:
        os.environ.pop("PARAEDGE_TRUSTED_KEYS", None)
    try:
        bundle = Bundle.open(path, trusted_keys=keys)
        in_python = "accepted"
    except BundleError:
        in_python = "refused"
    assert in_python == in_c, f"{case}: Python {in_python}, C {in_c}"
    assert time.monotonic() - begin < _SLOW_S, f"{case}: took {time.monotonic() - begin:.1f} s"
    if in_python == "refused":
        return "refused"
    try:
        is_same = _meaning(bundle) == meaning
        bundle.golden()
    except BundleError:
        is_same = False
    if is_same:
        return "accepted, the same"
    assert may_differ, f"{case}: accepted, and another bundle"
    return "accepted, another manifest"


def _written(files: dict[str, bytes], path: Path) -> None:
    """A file where a folder must be, and the like, leave what was there first."""
    for name, data in sorted(files.items()):
        try:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        except (NotADirectoryError, FileExistsError, IsADirectoryError):
            continue


def _quietly_zipped(files: dict[str, bytes], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_zip(files, path)


def main() -> None:
    """Print the counts."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        results = run(count, seed, Path(folder))
    for name, times in sorted(results.items()):
        sys.stdout.write(f"{times:7} {name}\n")


if __name__ == "__main__":
    main()
