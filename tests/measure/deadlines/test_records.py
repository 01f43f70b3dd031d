"""Records in a file: read again, gone on with, refused when they belong to something else."""

import msgspec
import numpy as np
import pytest

from paraedge_measure.deadlines.cells import grid
from paraedge_measure.deadlines.records import FORMAT, Header, Outcomes, Record, RecordFile
from paraedge_runtime.errors import InputError

HEADER = Header(
    format=FORMAT,
    bundle="fake",
    bundle_sha256="0" * 64,
    engine="fake 1.0",
    threads=2,
    profile=None,
    cores=2,
    images="4 images",
    images_sha256="1" * 64,
    prefix_accuracy=(0.5, 0.75),
    block=4,
)
(CELL,) = grid(
    deadlines=[0.5], arrivals=["closed"], interference=["none"], requests=10, load=None, hogs=1, square_period_s=0.2,
    quota=0.5,
)  # fmt: skip


def record(policy="all", seed=0):
    latency_s = np.array([0.001, 0.002, 0.003, np.nan, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001])
    missed = ~(latency_s <= 0.002)
    outcomes = Outcomes(
        latency_s=latency_s,
        branches=np.array([1, 2, 3, 0, 2, 2, 2, 2, 2, 2]),
        missed=missed,
        correct=~missed & (np.arange(10) != 0),
    )
    return Record.of(outcomes, cell=CELL, policy=policy, seed=seed, run="r", full_s=0.004, cpu_s=0.05)


def test_a_record_sums_up():
    found = record()
    assert (found.requests, found.misses, found.skipped, found.correct) == (10, 2, 1, 7)
    assert found.branches == 2.0
    assert found.deadline_ms == 2.0
    assert found.cpu_ms == 5.0
    assert found.latency_ms["p50"] == 1.0
    assert found.overshoot_ms["p50"] == 0.0
    assert found.overshoot_ms["p99.9"] == pytest.approx(1.0, abs=0.01)
    assert np.flatnonzero(found.missed).tolist() == [2, 3]
    assert np.flatnonzero(~found.right).tolist() == [0, 2, 3]


def test_nothing_answered_has_no_percentiles():
    nothing = Outcomes(np.full(3, np.nan), np.zeros(3, int), np.ones(3, bool), np.zeros(3, bool))
    found = Record.of(nothing, cell=CELL, policy="all", seed=0, run="r", full_s=0.004, cpu_s=None)
    assert (found.misses, found.skipped, found.branches, found.latency_ms, found.cpu_ms) == (3, 3, None, None, None)


def test_a_file_is_gone_on_with(tmp_path):
    path = tmp_path / "new" / "bench.jsonl"
    first = RecordFile(path, HEADER)
    first.append([record(), record("static-1")])
    again = RecordFile(path, HEADER)
    assert again.note is None
    assert [found.policy for found in again.records] == ["all", "static-1"]
    again.append([record(seed=1)])
    assert RecordFile(path, HEADER).records == [record(), record("static-1"), record(seed=1)]
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize("kept", [1, 100, -1])
def test_a_line_cut_off_is_dropped_and_named(tmp_path, kept):
    path = tmp_path / "bench.jsonl"
    RecordFile(path, HEADER).append([record(), record("static-1")])
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: -len(last)] + last[:kept])
    opened = RecordFile(path, HEADER)
    assert f"the last line of {path} was cut off" in opened.note
    assert [found.policy for found in opened.records] == ["all"]
    opened.append([record("static-1")])
    assert path.read_bytes() == whole


def test_a_header_cut_off_is_written_again(tmp_path):
    path = tmp_path / "bench.jsonl"
    RecordFile(path, HEADER)
    whole = path.read_bytes()
    path.write_bytes(whole[:30])
    assert "cut off (30 bytes)" in RecordFile(path, HEADER).note
    assert path.read_bytes() == whole


def _with_record(**changes):
    document = {**msgspec.to_builtins(record()), **changes}
    return msgspec.json.encode(HEADER) + b"\n" + msgspec.json.encode(document) + b"\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"precious\n", "holds no measurements of 'paraedge bench'"),
        (b"precious", "holds no measurements of 'paraedge bench'"),
        (b"\xff\xfe\n", "holds no measurements"),
        (b"{}\n", "holds no measurements"),
        (_with_record(missed_bits="AAAA"), "line 2: missed_bits has 3 bytes for 10 requests"),
        (_with_record(correct_bits="?"), "line 2: "),
        (_with_record(requests=10**30), "line 2: "),
        (_with_record(requests=-1), "line 2: missed_bits has 2 bytes for -1 requests"),
        (msgspec.json.encode(HEADER) + b"\nnonsense\n{}\n", "line 2: .* restore the file, or choose another --out"),
    ],
)
def test_what_is_no_record_is_refused_and_stays(tmp_path, text, problem):
    path = tmp_path / "bench.jsonl"
    path.write_bytes(text)
    with pytest.raises(InputError, match=problem):
        RecordFile(path, HEADER)
    assert path.read_bytes() == text


@pytest.mark.parametrize("field", ["bundle_sha256", "engine", "threads", "images_sha256", "block"])
def test_other_circumstances_are_refused(tmp_path, field):
    path = tmp_path / "bench.jsonl"
    RecordFile(path, HEADER).append([record()])
    value = getattr(HEADER, field)
    other = msgspec.structs.replace(HEADER, **{field: value + 1 if isinstance(value, int) else value[::-1] + "x"})
    with pytest.raises(InputError, match=f"was measured with {field} .* choose another --out"):
        RecordFile(path, other)
