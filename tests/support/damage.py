"""Damaged programs with right hashes: what a bad disk, a bad link or a stranger may leave in a bundle.

As a script, a campaign through the real commands: how often does the process that opens them die?

    python tests/support/damage.py BUNDLE run|verify|apply|reload SEED COUNT
"""

from __future__ import annotations

import collections
import functools
import hashlib
import json
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from paraedge_runtime._manifest_hash import hash_line

_NUMBERS = [
    0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 64, 127, 128, 255, 256, 1000, 0xFFFF, 0x10000, 100_000, 1 << 20, 1 << 24,
    0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF,
]  # fmt: skip


def structure(program: bytes) -> list[int]:
    """Where numbers stand that are no weights: offsets, sizes, indexes."""
    words = np.frombuffer(program[: len(program) // 4 * 4], np.uint32)
    return [int(at) * 4 for at in np.flatnonzero((words < 0x00100000) | (words > 0xFFF00000))]


def damaged(program: bytes, places: list[int], numbers: random.Random) -> bytes:
    """One to three changes: a number, a bit, a byte, a run of bytes, an exchange of stretches, a missing end."""
    made = bytearray(program)
    for _ in range(numbers.choice([1, 1, 1, 1, 1, 2, 3])):
        kind, at = numbers.randrange(11), min(numbers.choice(places), max(0, len(made) - 4))
        if kind < 4:
            old = int.from_bytes(made[at : at + 4], "little")
            new = (
                (old + numbers.choice([-8, -4, -1, 1, 2, 4, 8])) & 0xFFFFFFFF if kind == 3 else numbers.choice(_NUMBERS)
            )
            made[at : at + 4] = struct.pack("<I", new)
        elif kind == 4:
            made[numbers.choice([at, numbers.randrange(len(made))])] ^= 1 << numbers.randrange(8)
        elif kind == 5:
            made[numbers.choice([at, numbers.randrange(len(made))])] = numbers.choice(
                [0, 1, 0x7F, 0x80, 0xFF, numbers.randrange(256)]
            )
        elif kind == 6:
            made[at:] = bytes(len(made) - at) if numbers.random() < 0.3 else made[at:]
        elif kind == 7 and numbers.random() < 0.3:
            del made[numbers.randrange(1, len(made)) :]
        elif kind == 8:
            other = min(numbers.choice(places), max(0, len(made) - 4))
            made[at : at + 4] = made[other : other + 4]
        elif kind == 9:
            size = numbers.choice([4, 8, 16, 64])
            made[at : at + size] = numbers.randbytes(len(made[at : at + size]))
        elif kind == 10:
            size, other = numbers.choice([4, 16, 64, 1024, 16384]), numbers.choice(places)
            first, second = sorted((at, other))
            size = min(size, second - first, len(made) - second)
            if size > 0:
                made[first : first + size], made[second : second + size] = (
                    made[second : second + size],
                    made[first : first + size],
                )
        if len(made) < 8:
            break
    return bytes(made)


class Damage:
    """The damaged bundles of one seed."""

    def __init__(self, bundle: Path, seed: int) -> None:
        self.seed = seed
        self.files = {
            file.relative_to(bundle).as_posix(): file.read_bytes() for file in bundle.rglob("*") if file.is_file()
        }
        self._programs = [name for name in self.files if name.endswith((".pte", ".tflite", ".onnx"))]
        self._places = {name: self._places_in(name) for name in self._programs}

    def _places_in(self, name: str) -> list[int]:
        program = self.files[name]
        # A protobuf has no words: its heads are at its beginning and its end.
        heads = [*range(min(600, len(program) - 4)), *range(max(0, len(program) - 2000), len(program) - 4)]
        return heads if name.endswith(".onnx") else structure(program)

    def case(self, number: int) -> dict[str, bytes]:
        """The files of the bundle, one program damaged, its size and hash right."""
        numbers = random.Random(self.seed * 1_000_003 + number)
        name = numbers.choice(self._programs)
        program = damaged(self.files[name], self._places[name], numbers)
        manifest = json.loads(self.files["manifest.json"])
        for part in (manifest["stem"], *manifest["branches"]):
            if part["file"] == name:
                part["size_bytes"], part["sha256"] = len(program), hashlib.sha256(program).hexdigest()
        raw = json.dumps(manifest).encode()
        return {**self.files, name: program, "manifest.json": raw, "manifest.sha256": hash_line(raw)}


def write(files: dict[str, bytes], folder: Path) -> None:
    """Write them, over those of the case before."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _opener(how: str, damage: Damage, folder: Path) -> Callable[[dict[str, bytes]], str]:
    """A function that opens a damaged bundle as the command does, and tells what came of it."""
    from paraedge_runtime import Bundle, ParaEdgeError, trial
    from paraedge_runtime.update import write_update

    trial.try_bundle.__kwdefaults__["timeout_s"] = 30.0
    good, bad = folder / "good.paraedge", folder / "bad.paraedge"
    write(damage.files, good)
    write(damage.files, bad)
    if how == "reload":
        from paraedge_demo.controls import Controls, Settings
        from paraedge_demo.keeper import Keeper, open_session

        said: list[str] = []
        controls = Controls(Settings(10.0, 2, "anytime", 1, False), max_threads=2, max_count=2)
        keeper = Keeper(
            open_session(Bundle.open(bad), 2), bad, lambda _: Bundle.open(bad), controls, threading.Event(),
            lambda _: None, said.append,
        )  # fmt: skip
        image = Bundle.open(good).golden().inputs[0]

        def reload(files: dict[str, bytes]) -> str:
            write(files, bad)
            said.clear()
            keeper._look_after_session()
            try:
                with keeper.session() as session:
                    session.run(image)
            except ParaEdgeError:
                return "run fails"
            return said[0][:60].split(":")[0] if said else "silent"

        return reload

    from paraedge.cli.main import paraedge

    def command(files: dict[str, bytes]) -> str:
        write(files, bad)
        try:
            if how == "apply":
                write_update(Bundle.open(good), Bundle.open(bad), folder / "u.zip")
                paraedge.main(
                    ["apply", str(folder / "u.zip"), str(good), "--out", str(folder / "out.paraedge")],
                    standalone_mode=False,
                )
            else:
                paraedge.main([how, str(bad)], standalone_mode=False)
        except ParaEdgeError as error:
            first = "first run" in str(error)
            return type(error).__name__ + (
                " by the trial"
                if first
                else " by the check"
                if "damaged or hostile" in str(error) or "no bundle may have" in str(error)
                else ""
            )
        except SystemExit as error:
            return f"exit {error.code}"
        return "ok"

    return command


def _tell(pipe: int, text: str) -> None:
    os.write(pipe, text.encode() + b"\n")


def _main_process(
    how: str, damage: Damage, folder: Path, first: int, count: int, tell: Callable[[str], object]
) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    opened = _opener(how, damage, folder)
    for number in range(first, count):
        files = damage.case(number)
        tell(f"begin {number}")
        try:
            found = opened(files)
        except BaseException as error:
            found = f"!!! {type(error).__name__} {str(error)[:100]}"
        tell(f"end {found}")


def campaign(bundle: Path, how: str, seed: int, count: int) -> tuple[collections.Counter[str], list[tuple[int, int]]]:
    """Open so many in one long-lived process, in a new one after a death; what came of them, and who died of what."""
    damage, first = Damage(bundle, seed), 0
    found, deaths = collections.Counter[str](), list[tuple[int, int]]()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        os.environ["PARAEDGE_CACHE"] = str(Path(name, "cache"))
        while first < count:
            inside, outside = os.pipe()
            child = os.fork()
            if child == 0:
                tell = functools.partial(_tell, outside)
                try:
                    _main_process(how, damage, Path(name), first, count, tell)
                except BaseException:
                    tell(f"end !!! {traceback.format_exc()!r}")
                os._exit(0)
            os.close(outside)
            now, is_open = first - 1, False
            with os.fdopen(inside) as told:
                for line in told:
                    kind, _, rest = line.strip().partition(" ")
                    is_open = kind == "begin"
                    if is_open:
                        now = int(rest)
                    else:
                        found[rest] += 1
            _, status = os.waitpid(child, 0)
            if is_open:
                deaths.append((now, status))
                kept = Path(tempfile.gettempdir(), f"death-{bundle.stem}-{how}-{seed}-{now}")
                shutil.rmtree(kept, ignore_errors=True)
                write(damage.case(now), kept)
            first = now + 1 if now >= first else count
    return found, deaths


if __name__ == "__main__":
    _, where, command_name, first_seed, how_many = sys.argv
    results, died = campaign(Path(where), command_name, int(first_seed), int(how_many))
    what = f"{Path(where).stem} {command_name} seed {first_seed}"
    sys.stdout.write(f"{what}: {results.total()} cases, deaths {died}: {dict(results)}\n")
