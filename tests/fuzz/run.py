"""Fuzzes one target of ``targets.py`` with atheris: ``python tests/fuzz/run.py TARGET [OPTION OF LIBFUZZER]...``

An exception outside paraedge's tree, an input that takes longer than ``-timeout``, or a process that asks for more
than ``_MEMORY_BYTES`` is a finding; its input is written where ``-artifact_prefix`` says.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import tempfile
import types
import warnings
from pathlib import Path
from random import Random

import atheris

_MEMORY_BYTES = 2 << 30  # beside what the imports have mapped
# Whose branches lead atheris to new inputs.
_INSTRUMENTED = ("paraedge", "zipfile", "gzip", "numpy.lib", "PIL", "fuzz")


def main() -> None:
    """Until the time is over, or a finding."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from fuzz.seeds import CORPUS
    from fuzz.targets import TARGETS

    _, name, *options = sys.argv
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        target = TARGETS[name](Path(folder))
        warnings.simplefilter("ignore")  # Pillow's own doubts, by the thousand
        for file in sorted((CORPUS / name).iterdir()):
            target(file.read_bytes())  # imports what is imported late
        _instrument()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        atheris.Setup([sys.argv[0], *options], lambda data: target(data or b"\0"), custom_mutator=_mutated)
        atheris.Fuzz()


def _mutated(data: bytes, most_bytes: int, seed: int) -> bytes:
    """By libFuzzer; where a line is JSON, every other time as JSON: its decoder is C, whose branches lead nobody."""
    from support.mutations import changed_json

    numbers = Random(seed)
    lines = data.split(b"\n") if data.count(b"}\n") > 1 else [data]  # a recording, or one document
    at = numbers.randrange(len(lines))
    start = max(lines[at].find(b"{"), 0)
    if numbers.random() < 0.5 and start < 2:  # after the byte that chooses a file
        with contextlib.suppress(ValueError, RecursionError):
            lines[at] = lines[at][:start] + changed_json(numbers, lines[at][start:])
            return b"\n".join(lines)[:most_bytes]
    return atheris.Mutate(data, most_bytes)


def _instrument() -> None:
    # Not atheris.instrument_imports: it knows no modules of an editable installation.
    for function in gc.get_objects():
        if isinstance(function, types.FunctionType) and str(function.__module__).startswith(_INSTRUMENTED):
            atheris.instrument_func(function)


if __name__ == "__main__":
    main()
