"""Opens bundles while another process replaces them without a pause: ``python tests/support/replacing.py OPENS``.

A folder and a zip, in Python and in C; every opening must give the one or the other of the two that replace each other.
"""

import contextlib
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from paraedge_runtime import Bundle
from paraedge_runtime.core import load_core
from support.bundles import fake_bundle

# Until it is killed; a line after the first round.
_WRITER = """
import itertools, sys
from paraedge_runtime import Bundle
*paths, folder, packed = sys.argv[1:]
bundles = [Bundle.open(path) for path in paths]
for number in itertools.count():
    for bundle in bundles:
        bundle.subset(bundle.manifest.branch_indexes, folder)
        bundle.pack(packed)
    if number == 0:
        print(flush=True)
"""


@contextlib.contextmanager
def _replaced(folder: Path) -> Iterator[tuple[Path, Path, set[str]]]:
    """A folder and a zip that are being replaced, and what they may be."""
    made = [fake_bundle(folder / f"{count}.paraedge", [{"add": 1.0}] * count) for count in (1, 4)]
    target, packed = folder / "b.paraedge", folder / "b.zip"
    subsets = [bundle.subset(bundle.manifest.branch_indexes, target).sha256 for bundle in made]
    made[0].pack(packed)
    command = [sys.executable, "-c", _WRITER, *(str(bundle.path) for bundle in made), str(target), str(packed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"\n"  # it has begun
        try:
            yield target, packed, {*subsets, *(bundle.sha256 for bundle in made)}
            assert writer.poll() is None, "the writer ended early"
        finally:
            writer.kill()


def run(opens: int, folder: Path) -> Counter[str]:
    """How often which bundle was met, both at least once; whatever else an opening does is raised."""
    met: Counter[str] = Counter()
    with _replaced(folder) as (target, packed, known):
        for number in itertools.count():
            if number >= opens and len(met) == 6:
                break
            assert number < 100 * opens, f"met these only: {met}"
            path = (target, packed)[number % 2]
            if number % 4 < 2:
                found = Bundle.open(path)
                assert found.sha256 in known
                met[f"{path.name}, {len(found.manifest.branches)} branches"] += 1
            else:
                load_core().check_bundle(str(path))
                met[f"{path.name}, in C"] += 1
    return met


def main() -> None:
    """Print the counts."""
    folder = Path(tempfile.mkdtemp())
    try:
        for name, times in sorted(run(int(sys.argv[1]), folder).items()):
            sys.stdout.write(f"{times:7} {name}\n")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
