"""Every public function with values that cannot be meant, or that numpy gives: converted, or one InputError."""

import asyncio
import contextlib

import numpy as np
import pytest
import torch
from support.bundles import fake_bundle, image
from support.devices import HARDWARE, MEASUREMENT
from support.tensor_branches import EmbeddingBranches
from torch import nn

import paraedge
import paraedge_converters
import paraedge_measure
from paraedge import exporting
from paraedge.data import FolderOptions
from paraedge_converters import pipeline
from paraedge_measure.deadlines.records import FORMAT as RECORDS_FORMAT
from paraedge_measure.deadlines.records import Header
from paraedge_measure.device import FORMAT, Device, Local
from paraedge_runtime import Bundle, InputError, Latency, LatestFrame, ParaEdgeError, Session

WRONG = {
    "None": None,
    "number": 3,
    "point": 2.5,
    "text": "nothing of this name",
    "endless text": "x" * 5000,
    "text with a zero": "a\0b",
    "text in no encoding": "a\ud800",
    "bytes": b"x",
    "list": [1, "x"],
    "empty": [],
    "dict": {"a": 1},
    "object": object(),
    "type": int,
    "numpy whole": np.int64(-7),
    "numpy point": np.float32(np.nan),
    "numpy text": np.str_("nothing"),
    "array": np.zeros((2, 3)),
    "tensor": torch.zeros(2),
    "huge": 10**400,
}
DEVICE = Device(format=FORMAT, name="d", connection=Local(), hardware=HARDWARE, measurements=(MEASUREMENT,))
PLAN = paraedge_measure.Plan(
    device="d", bundle_name="b", bundle_sha256="0" * 64, branches=(0,), engine="litert", target="linux", recipe="fp32",
    threads=1, p50_ms=1.0, p95_ms=2.0, accuracy=0.5, size_bytes=1, memory_bytes=None, valid=True,
)  # fmt: skip
HEADER = Header(
    format=RECORDS_FORMAT, bundle="b", bundle_sha256="0" * 64, engine="fake", threads=1, profile=None, cores=1,
    images="i", images_sha256="0" * 64, prefix_accuracy=(0.5,), block=8,
)  # fmt: skip
WISH = paraedge_measure.Wish(budget_ms=5.0)
SETTINGS = paraedge_measure.InterferenceSettings(1, 0.1, 0.5)
LOGITS = np.random.default_rng(0).normal(size=(2, 60, 3)).astype(np.float32)
CLASSES = np.arange(60) % 3
SPEC = paraedge.ImageInput(name="image", shape=(1, 1, 2, 2), mean=(0.5,), std=(0.5,))


class _Reached(Exception):
    """Where the work begins that is too long for a table: every argument was let through."""


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path, fake_engine):
    def reached(*arguments, **named):
        raise _Reached

    monkeypatch.setattr(exporting, "run_export", reached)
    monkeypatch.setattr(exporting, "evaluate_model", reached)
    monkeypatch.setattr(pipeline, "run_export", reached)
    monkeypatch.setattr("paraedge_measure.profiling.LocalTestBed", reached)
    monkeypatch.setattr(paraedge_measure.Bench, "_classify", reached)
    monkeypatch.chdir(tmp_path)


def _sample():
    model = EmbeddingBranches()
    return model, paraedge.ModelDescription(
        name="e", description="e", license="MIT", vector="v",
        samples=np.random.default_rng(0).normal(size=(4, 6, 128)).astype(np.float32),
    )  # fmt: skip


def _calls(folder, checkpoint):
    """Public name -> (function, its arguments when all is well)."""
    bundle = fake_bundle(folder / "b.paraedge", accuracy=None)
    session = Session.open(bundle)
    model, description = _sample()
    out = folder / "out"

    def arun(**named):
        return asyncio.run(session.arun(**named))

    request = {
        "image": image(), "branches": 1, "budget_ms": 5000.0, "waiting_s": (), "policy": "all", "early_stop": False
    }  # fmt: skip
    export = {
        "model": checkpoint, "target": "linux", "branches": 1, "engine": None, "quantize": "fp32", "test_set": None,
        "out": folder / "exported", "max_accuracy_drop": 0.005, "on_progress": print,
    }  # fmt: skip
    grid = {
        "deadlines": [0.5], "arrivals": ["periodic"], "interference": ["none"], "requests": 8, "load": None, "hogs": 1,
        "square_period_s": 1.0, "quota": 0.5,
    }  # fmt: skip
    return {
        "Bundle.open": (Bundle.open, {"path": bundle.path}),
        "Bundle.subset": (bundle.subset, {"branches": [0], "out": out}),
        "Bundle.pack": (bundle.pack, {"out": folder / "packed"}),
        "Session.open": (
            lambda **named: Session.open(**named).close(),
            {"bundle": bundle, "engine": None, "threads": 1, "branches": 1, "latency": None},
        ),
        "Session.run": (session.run, request | {"image": image()}),
        "Session.run, deadline": (session.run, {"image": image(), "deadline_s": 1e9}),
        "Session.arun": (arun, request),
        "Session.close": (lambda **named: Session.open(bundle).close(**named), {"timeout_s": 1.0}),
        "Session.stream": (lambda **named: list(session.stream(**named)), {"image": image(), "branches": 1}),
        "Prediction.top_k": (session.run(image()).top_k, {"k": 2}),
        "Latency": (Latency, {"part_ms": (1.0, 2.0), "contention": (1.0,)}),
        "LatestFrame": (LatestFrame, {}),
        "export": (exporting.export, export),
        "export_smallest": (
            exporting.export_smallest,
            {"model": checkpoint, "target": "linux", "test_set": checkpoint.samples, "out": out},
        ),
        "load_checkpoint": (paraedge.load_checkpoint, {"path": folder}),
        "load_dataset": (
            paraedge.load_dataset, {"name": "digits", "data_dir": folder, "folder_options": FolderOptions()}
        ),
        "convert": (
            paraedge.convert,
            {
                "model": model, "description": description, "out": out, "target": "linux", "engine": None,
                "quantize": "fp32", "branches": None, "cache": None, "on_progress": print,
            },
        ),
        "calibrate_early_stop": (
            paraedge_converters.calibrate_early_stop,
            {"branch_logits": LOGITS, "labels": CLASSES, "dataset": "d", "max_accuracy_drop": 0.01, "seed": 0},
        ),
        "branches_from": (
            paraedge.branches_from,
            {
                "stem": nn.Identity(), "blocks": [nn.Flatten()], "input_spec": SPEC, "head": nn.Linear(4, 2),
                "stem_blocks": 0, "num_branches": 1,
            },
        ),
        "read_device": (paraedge_measure.read_device, {"path": folder / "none.json"}),
        "write_device": (paraedge_measure.write_device, {"device": DEVICE, "path": folder / "device.json"}),
        "merge": (paraedge_measure.merge, {"device": DEVICE, "measurements": [MEASUREMENT]}),
        "connect": (paraedge_measure.connect, {"device": DEVICE}),
        "known_latency": (
            paraedge_measure.known_latency,
            {"profile": DEVICE, "bundle": bundle, "engine": None, "threads": 1, "branches": 1},
        ),
        "candidate_plans": (
            paraedge_measure.candidate_plans, {"device": DEVICE, "bundle": bundle, "evaluation": None}
        ),
        "choose_plan": (paraedge_measure.choose_plan, {"plans": [], "wish": WISH}),
        "pareto_plans": (paraedge_measure.pareto_plans, {"plans": []}),
        "predict_request_ms": (paraedge_measure.predict_request_ms, {"measurement": MEASUREMENT, "positions": [0]}),
        "read_plan": (paraedge_measure.read_plan, {"path": folder / "plan.json"}),
        "write_plan": (paraedge_measure.write_plan, {"plan": PLAN, "path": folder / "plan.json"}),
        "Wish": (paraedge_measure.Wish, {"budget_ms": 5.0, "min_accuracy": 0.5, "max_bytes": 1000}),
        "SeriesLength": (paraedge_measure.SeriesLength, {"min_runs": 1, "min_s": 1.0}),
        "profile_bundle": (
            paraedge_measure.profile_bundle,
            {"bundle": bundle, "engine": None, "threads": [1], "length": paraedge_measure.USUAL, "on_progress": print},
        ),
        "compare_bundles": (
            paraedge_measure.compare_bundles,
            {
                "bundles": [bundle], "inputs": image()[None], "labels": np.array([0]), "threads": 1, "rounds": 1,
                "on_progress": lambda done, total: None,
            },
        ),
        "open_interference": (paraedge_measure.open_interference, {"name": "none", "settings": SETTINGS}),
        "grid": (paraedge_measure.grid, grid),
        "Bench": (
            paraedge_measure.Bench,
            {
                "bundle": bundle, "images": image()[None], "labels": np.array([0]), "source": "s", "block": 8,
                "on_progress": lambda count: None,
            },
        ),
        "RecordFile": (paraedge_measure.RecordFile, {"path": folder / "r.jsonl", "header": HEADER}),
    }  # fmt: skip


NAMES = [
    "Bundle.open", "Bundle.subset", "Bundle.pack", "Session.open", "Session.run", "Session.run, deadline",
    "Session.arun", "Session.close",
    "Session.stream", "Prediction.top_k", "Latency", "LatestFrame", "export", "export_smallest",
    "load_checkpoint", "load_dataset", "convert", "branches_from", "calibrate_early_stop", "read_device",
    "write_device", "merge",
    "connect", "known_latency", "candidate_plans", "choose_plan", "pareto_plans", "predict_request_ms", "read_plan",
    "write_plan", "Wish", "SeriesLength", "profile_bundle", "compare_bundles", "open_interference", "grid", "Bench",
    "RecordFile",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_right_arguments_are_let_through(tmp_path, checkpoint, name):
    function, right = _calls(tmp_path, checkpoint)[name]
    message = ""
    try:
        function(**right)
    except (ParaEdgeError, _Reached) as error:  # such as a file that is not there
        message = str(error)
    assert " must be " not in message


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_argument_is_converted_or_one_error_of_paraedge(tmp_path, checkpoint, name):
    function, right = _calls(tmp_path, checkpoint)[name]
    raw = []
    for argument in right:
        for kind, value in WRONG.items():
            if argument == "on_progress" and callable(value):
                continue  # a function that cannot take what it is called with is the caller's
            try:
                function(**{**right, argument: value})
            except (ParaEdgeError, _Reached) as error:
                if isinstance(error, ParaEdgeError) and "\n" in str(error).strip():
                    raw.append(f"{argument}={kind}: several lines: {error}")
            except Exception as error:
                raw.append(f"{argument}={kind}: {type(error).__name__}: {error}"[:200])
    assert not raw, "\n".join(raw)


def test_the_table_has_every_call(tmp_path, checkpoint):
    calls = _calls(tmp_path, checkpoint)
    assert sorted(calls) == sorted(NAMES)
    public = {name.partition(".")[0].partition(",")[0] for name in NAMES}
    for package in (paraedge, paraedge_converters, paraedge_measure):
        functions = {name for name in package.__all__ if type(getattr(package, name)).__name__ == "function"} - {
            "read_hardware",  # what it takes is for tests of other machines
            "push",  # these two ask a hub: tests/sdk/test_hub.py
            "pull",
        }
        assert functions <= public


@pytest.mark.parametrize(
    "branches",
    [2, np.int64(2), [0, 1], np.array([0, 1]), (np.int32(0), np.int8(1)), range(2), torch.arange(2)],
    ids=str,
)
def test_branches_are_a_count_or_indexes_everywhere(tmp_path, branches):
    bundle = fake_bundle(tmp_path / "b.paraedge")
    assert bundle.subset(branches, tmp_path / "s.paraedge").manifest.branch_indexes == (0, 1)
    with Session.open(bundle, branches=branches, threads=np.int64(1)) as session:
        assert session.branches == (0, 1)
        assert session.run(image(), branches=branches, budget_ms=np.float32(5000)).branches_used == (0, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.pack(None), "out must be a path, got None"),
        (lambda b: b.subset(None, "x"), r"invalid branches None: .* has \[0, 1, 2\]; give unique"),
        (lambda b: exporting.export(None, target="linux"), "the model must be a path, got None"),
        (lambda b: exporting.export(target="linux", quantize=None), "unknown quantization recipe None; choose one of"),
        (lambda b: exporting.export(target="linux", out=3), "out must be a path, got 3"),
        (lambda b: paraedge.load_checkpoint(None), "the checkpoint must be a path, got None"),
        (lambda b: Session.open(b, latency=(1, 2)), r"latency must be a Latency, got \(1, 2\)"),
        (lambda b: Session.open(b).run(image(), policy=["all"]), r"unknown policy \['all'\]; choose one of anytime"),
    ],
)
def test_the_message_has_the_value_and_the_valid_form(tmp_path, call, message):
    with contextlib.suppress(_Reached), pytest.raises(InputError, match=message):
        call(fake_bundle(tmp_path / "b.paraedge"))
