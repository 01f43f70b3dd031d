"""What was measured, one line of JSON for each cell, policy and seed: appended when done, read to go on."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from paraedge_measure.deadlines.cells import Cell
from paraedge_measure.deadlines.statistics import percentiles
from paraedge_runtime._arguments import as_instance, as_path
from paraedge_runtime._reading import read_bounded
from paraedge_runtime.errors import InputError

__all__ = ["FORMAT", "Header", "Outcomes", "Record", "RecordFile"]

FORMAT = "paraedge-bench/1"
_MAX_FILE_BYTES = 1 << 30


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """First line of a file: everything that all of its records share.

    Attributes:
        format: ``paraedge-bench/1``.
        bundle: its name.
        bundle_sha256: of its manifest, which holds the hashes of its parts.
        engine: which implementation ran.
        threads: that ran branches.
        profile: hash of the device profile that paraedge's policies had; ``None`` when they learned.
        cores: that this process may use.
        images: which images, and how many.
        images_sha256: of their pixels and labels.
        prefix_accuracy: (K,) of the first 1, 2, … branches on these images.
        block: requests that one policy serves before another takes its turn.
    """

    format: str
    bundle: str
    bundle_sha256: str
    engine: str
    threads: int
    profile: str | None
    cores: int
    images: str
    images_sha256: str
    prefix_accuracy: tuple[float, ...]
    block: int


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of every request of one policy, in order of arrival.

    Attributes:
        latency_s: (N,) from scheduled arrival to prediction; NaN where the request was skipped.
        branches: (N,) in the prediction; 0 where the request was skipped.
        missed: (N,) late, or skipped since its deadline had passed before it could begin.
        correct: (N,) in time, and the right label.
    """

    latency_s: NDArray[np.float64]
    branches: NDArray[np.int64]
    missed: NDArray[np.bool_]
    correct: NDArray[np.bool_]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One policy (or oracle) in one cell.

    Attributes:
        cell, policy, seed: what was measured; together the key.
        run: identifies records that were measured in turns with each other.
        full_ms: median time of the full model on the unloaded machine, in the same process.
        deadline_ms: deadline after the scheduled arrival.
        requests, misses, correct: counts; a miss is never correct.
        skipped: misses that were never started.
        branches: mean number of branches in a prediction; ``None`` without predictions.
        latency_ms: percentiles of the time from scheduled arrival to prediction.
        overshoot_ms: percentiles of the time from deadline to prediction, 0 for those in time.
        cpu_ms: CPU time of this process per request, without waiting for arrivals; ``None`` for an oracle.
        missed_bits, correct_bits: one bit per request, packed and in base64.
    """

    cell: Cell
    policy: str
    seed: int
    run: str
    full_ms: float
    deadline_ms: float
    requests: int
    misses: int
    skipped: int
    correct: int
    branches: float | None
    latency_ms: dict[str, float] | None
    overshoot_ms: dict[str, float] | None
    cpu_ms: float | None
    missed_bits: str
    correct_bits: str

    def __post_init__(self) -> None:
        """Raises ``ValueError`` unless both bits are those of so many requests."""
        for name, text in (("missed_bits", self.missed_bits), ("correct_bits", self.correct_bits)):
            packed = base64.b64decode(text, validate=True)
            if self.requests < 1 or len(packed) != -(-self.requests // 8):
                raise ValueError(f"{name} has {len(packed)} bytes for {self.requests} requests")

    @property
    def key(self) -> tuple[Cell, str, int]:
        """What was measured."""
        return (self.cell, self.policy, self.seed)

    @property
    def missed(self) -> NDArray[np.bool_]:
        """(N,) per request."""
        return _unpacked(self.missed_bits, self.requests)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) per request: in time, with the right label."""
        return _unpacked(self.correct_bits, self.requests)

    @classmethod
    def of(
        cls, outcomes: Outcomes, *, cell: Cell, policy: str, seed: int, run: str, full_s: float, cpu_s: float | None
    ) -> Record:
        """Sum up; ``cpu_s`` is of all requests together."""
        deadline_s = cell.deadline * full_s
        served = outcomes.branches > 0
        timed = outcomes.latency_s[np.isfinite(outcomes.latency_s)] * 1e3
        return cls(
            cell=cell,
            policy=policy,
            seed=seed,
            run=run,
            full_ms=full_s * 1e3,
            deadline_ms=deadline_s * 1e3,
            requests=len(outcomes.missed),
            misses=int(outcomes.missed.sum()),
            skipped=int((~served).sum()),
            correct=int(outcomes.correct.sum()),
            branches=float(outcomes.branches[served].mean()) if served.any() else None,
            latency_ms=percentiles(timed),
            overshoot_ms=percentiles(np.maximum(timed - deadline_s * 1e3, 0.0)),
            cpu_ms=None if cpu_s is None else cpu_s * 1e3 / len(outcomes.missed),
            missed_bits=_packed(outcomes.missed),
            correct_bits=_packed(outcomes.correct),
        )


def _packed(bits: NDArray[np.bool_]) -> str:
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def _unpacked(text: str, count: int) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8), count=count).astype(np.bool_)


class RecordFile:
    """A file of records that grows by whole lines.

    Attributes:
        records: all records, oldest first.
        note: what was dropped while opening, shown to users; usually ``None``.
    """

    def __init__(self, path: Path, header: Header) -> None:
        """Begin a file, or go on with one.

        Raises:
            InputError: it cannot be read and written, holds something else, is damaged before its last line, or
                was measured with another bundle, engine, number of threads or images.
        """
        as_instance("header", header, Header)
        try:
            self._begin(as_path("the file of records", path), header)
        except OSError as error:
            raise InputError(f"{path} cannot be used: {error.strerror}; choose another --out") from error

    def _begin(self, path: Path, header: Header) -> None:
        self._path = path
        self.records: list[Record] = []
        self.note: str | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = read_bounded(path, _MAX_FILE_BYTES) if path.exists() else b""
        whole = raw[: raw.rfind(b"\n") + 1]
        if raw and not whole and not msgspec.json.encode(header).startswith(raw[:20]):
            raise InputError(f"{path} holds no measurements of 'paraedge bench'; choose another --out")
        lines = whole.splitlines()
        if lines:
            self._check(lines[0], header)
            self.records = [self._record(number, line) for number, line in enumerate(lines[1:], start=2)]
        if len(whole) < len(raw):
            self.note = f"the last line of {path} was cut off ({len(raw) - len(whole)} bytes) and is dropped"
            os.truncate(path, len(whole))
        if not lines:
            self._append(msgspec.json.encode(header))

    def append(self, records: list[Record]) -> None:
        """Append records; they are on disk when this returns.

        Raises:
            InputError: they cannot be written; earlier records are kept.
        """
        try:
            self._append(b"\n".join(msgspec.json.encode(record) for record in records))
        except OSError as error:
            raise InputError(
                f"{self._path} cannot be written: {error.strerror}; free space and run the same command again, it "
                "continues after the last record"
            ) from error
        self.records += records

    def _append(self, text: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _check(self, line: bytes, header: Header) -> None:
        try:
            found = msgspec.json.decode(line, type=Header)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InputError(
                f"{self._path} holds no measurements of 'paraedge bench' ({error}); choose another --out"
            ) from None
        for field in Header.__struct_fields__:
            if (there := getattr(found, field)) != (here := getattr(header, field)):
                raise InputError(
                    f"{self._path} was measured with {field} {there}, this run has {here}; choose another --out"
                )

    def _record(self, number: int, line: bytes) -> Record:
        try:
            return msgspec.json.decode(line, type=Record)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InputError(
                f"{self._path}, line {number}: {error}; restore the file, or choose another --out"
            ) from None
