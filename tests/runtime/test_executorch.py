"""ExecuTorch's two paths, the native engine and the Python binding: the same bits, and who runs when."""

import importlib
import re
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from paraedge_runtime import InputError, IntegrityError, ManifestError, Session, core
from paraedge_runtime.engines import executorch, open_engine
from paraedge_runtime.engines.base import SessionOptions
from paraedge_runtime.engines.executorch import ExecuTorchNative, load_native_executorch
from paraedge_runtime.errors import EngineUnavailable
from paraedge_runtime.inputs import normalise


@pytest.fixture(scope="module")
def bundle(bundles):
    return bundles["executorch"]


@pytest.fixture(scope="module")
def inputs(bundle):
    return normalise(bundle.golden().inputs, bundle.manifest.input)[:, None]  # each (1, C, H, W)


@pytest.fixture
def without_native(monkeypatch):
    def unavailable():
        raise EngineUnavailable("it was not built")

    monkeypatch.setattr(executorch, "load_native_executorch", unavailable)


@pytest.fixture
def native_session(bundle):
    """The core itself, below ``Session``."""
    ExecuTorchNative()
    native = core.load_core()
    sources = [native.PartSource(name, bundle.read(entry), entry) for name, entry in bundle.manifest.parts().items()]
    session = native.Session("executorch", sources, bundle.manifest.input, SessionOptions(2))
    yield session
    session.close()


@pytest.fixture(scope="module")
def sequential(bundle, inputs):
    """The output of each part by itself, one after another: (images, k, C)."""
    engine = ExecuTorchNative()
    parts = {name: engine.load(name, bundle.read(entry), entry) for name, entry in bundle.manifest.parts().items()}
    stem = parts.pop("stem")
    return np.stack([np.concatenate([part.run(stem.run(x)) for part in parts.values()]) for x in inputs])


@pytest.mark.parametrize("choice", [1, 2, (0, 3, 5), None], ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_parallel_is_sequential_bit_for_bit(bundle, inputs, sequential, choice, threads):
    with Session.open(bundle, threads=threads, branches=choice) as session:
        assert session.threads == min(threads, len(session.branches))
        places = list(session.branches)
        for x, rows in zip(inputs, sequential, strict=True):
            prediction = session.run(x)
            np.testing.assert_array_equal(prediction.branch_outputs, rows[places])
            np.testing.assert_array_equal(prediction.output, rows[places].cumsum(axis=0)[-1])
            assert prediction.label_index == prediction.output.argmax()
            assert prediction.branches_used == session.branches


def test_both_paths_give_the_same_bits_and_the_same_facts(bundle, inputs, monkeypatch, without_native):
    with Session.open(bundle) as session:
        assert "Python binding" in session.engine.description
        assert "it was not built" in session.engine.description
        assert session.threads == 1
        binding = [session.run(x) for x in inputs]
    monkeypatch.undo()
    with Session.open(bundle, threads=2) as session:
        assert session.engine.description.endswith("(native core)")
        native = [session.run(x) for x in inputs]
    for a, b in zip(binding, native, strict=True):
        np.testing.assert_array_equal(a.branch_outputs, b.branch_outputs)
        np.testing.assert_array_equal(a.output, b.output)
        assert (a.label_index, a.label, a.branches_used, a.branches_dropped) == (
            b.label_index,
            b.label,
            b.branches_used,
            b.branches_dropped,
        )
        assert a.confidence == pytest.approx(b.confidence, rel=1e-6)
        assert {run.part for run in a.timeline} == {run.part for run in b.timeline}
        assert all(0 <= run.start_ms <= run.end_ms <= b.elapsed_ms for run in b.timeline)


def test_other_python_threads_run_meanwhile(bundle, inputs):
    """With the GIL held for the whole of a request, the other thread could not tick in the middle of one."""
    ticks: list[float] = []
    stop = threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())

    session = Session.open(bundle, threads=1)
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    middles = []
    try:
        for x in np.concatenate([inputs, inputs]):
            begin = time.perf_counter()
            elapsed_s = session.run(x).elapsed_ms / 1e3
            middles.append((begin + elapsed_s / 4, begin + elapsed_s * 3 / 4))
    finally:
        stop.set()
        ticker.join()
        session.close()
    times = np.array(ticks)
    ticked = sum(np.searchsorted(times, begin) < np.searchsorted(times, end) for begin, end in middles)
    assert ticked > len(middles) / 6  # busy machines run the ticker only now and then; a held GIL gives next to none


def test_images_are_read_by_the_core_as_python_reads_them(native_session, bundle, sequential):
    """The core normalises by itself; ``sequential`` was normalised by numpy."""
    for image, rows in zip(bundle.golden().inputs, sequential, strict=True):
        np.testing.assert_array_equal(native_session.run(image).branch_outputs, rows)


def test_late_branches_never_reach_another_request(bundle, inputs, sequential):
    rng = np.random.default_rng(3)
    cut = 0
    with Session.open(bundle, threads=2) as session:
        for number in range(1500):
            image = number % len(inputs)
            policy = ("anytime", "all")[number % 2]
            prediction = session.run(inputs[image], budget_ms=rng.uniform(1e-3, 3), policy=policy)
            used = list(prediction.branches_used)
            cut += len(used) < 8
            assert used[0] == 0
            np.testing.assert_array_equal(prediction.branch_outputs, sequential[image][used])
            np.testing.assert_array_equal(prediction.output, prediction.branch_outputs.cumsum(axis=0)[-1])
    assert cut > 0


@pytest.mark.parametrize(
    "form",
    [
        lambda image: image,
        lambda image: image[:, :, 0],
        np.asfortranarray,
        lambda image: np.repeat(image, 2, axis=1)[:, ::2],
        lambda image: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),  # read-only
        lambda image: image.view(np.recarray),
    ],
    ids=["as it is", "two dimensions", "Fortran order", "with gaps", "read-only", "subclass"],
)
def test_every_form_of_an_image_gives_the_same_bits(bundle, sequential, form):
    with Session.open(bundle, threads=2) as session:
        for image, rows in zip(bundle.golden().inputs, sequential, strict=True):
            np.testing.assert_array_equal(session.run(form(image)).branch_outputs, rows)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((1, 1, 28, 27), np.float32),
            r"float32 of shape \(1, 1, 28, 27\); this bundle reads a uint8 image of shape \(28, 28, 1\)",
        ),
        (np.zeros((28, 28), np.float32), r"float32 of shape \(28, 28\); this bundle reads"),
        (np.full((1, 1, 28, 28), np.nan, np.float32), "has 784 values that are not finite"),
        (np.zeros((1, 1, 28, 28)), "is float64 of shape"),
        (np.zeros((28, 28, 1), np.int8), "is int8 of shape"),
        (np.zeros((28, 27, 2), np.uint8), "an image has 1, 3 or 4 channels"),
        (b"image", "or a numpy array, got bytes"),
        (memoryview(bytes(784)).cast("B", (28, 28)), "or a numpy array, got memoryview"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_wrong_input_is_refused_and_the_session_goes_on(bundle, inputs, sequential, image, message):
    with Session.open(bundle, threads=2) as session:
        for options in ({}, {"budget_ms": 1000}):
            with pytest.raises(InputError, match=message):
                session.run(image, **options)
        np.testing.assert_array_equal(session.run(inputs[0]).branch_outputs, sequential[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_branches": 9}, "9 branches requested, 8 available"),
        ({"branches": [0, 9]}, "branch 9 is not loaded in this session"),
        ({"branches": [3, 1]}, r"invalid branches \[3, 1\]: give unique indices in ascending order"),
        ({"early_stop": True}, "early stop needs a rule for each of the 8 branches, got 0"),
    ],
)
def test_wrong_options_are_refused_by_the_core(native_session, inputs, sequential, options, message):
    with pytest.raises(InputError, match=message):
        native_session.run(inputs[0], **options)
    np.testing.assert_array_equal(native_session.run(inputs[0]).branch_outputs, sequential[0])


@pytest.mark.parametrize(
    "program", [b"", b"this is no program", bytes(1000), None], ids=["empty", "text", "zeros", "cut"]
)
def test_garbage_is_refused_before_the_engine_gets_it(bundle, program, capfd):
    entry = bundle.manifest.branches[0]
    program = bundle.read(entry)[:5000] if program is None else program
    with pytest.raises(IntegrityError, match=r"branch_00\.pte is damaged or hostile: .*; export the bundle again"):
        ExecuTorchNative().load("branch_00", program, entry)
    assert capfd.readouterr() == ("", "")  # ExecuTorch writes to stderr what it refuses itself


def test_a_program_that_is_not_what_the_manifest_says_is_refused(bundle):
    stem, branch = bundle.manifest.stem, bundle.manifest.branches[0]
    with pytest.raises(ManifestError, match=r"the program's input is \[1, 1, 28, 28\] float32, the manifest says"):
        ExecuTorchNative().load("branch_00", bundle.read(stem), branch)


def test_the_parts_own_what_they_answer(bundle, inputs):
    entry = bundle.manifest.stem
    part = open_engine("executorch").load("stem", bundle.read(entry), entry)
    first = part.run(inputs[0])
    kept = first.copy()
    second = part.run(inputs[1])
    assert first.shape == tuple(entry.output_shape)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("not built", "native core was not built"),
        ("engine not built", "ExecuTorch engine was not built"),
        ("no executorch", "the package executorch is not installed; pip install --no-deps executorch=="),
        ("another version", r"was built for executorch \d+\.\d+\.\d+, 9\.9\.9 is installed"),
    ],
)
def test_what_the_native_engine_lacks_is_said(change, message, monkeypatch):
    load_native_executorch.cache_clear()
    find_spec = importlib.util.find_spec
    if change == "not built":
        monkeypatch.setitem(sys.modules, "paraedge_runtime._native", None)
    if change == "no executorch":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "executorch" else find_spec(name))
    if change == "another version":
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9.9")
    if change == "engine not built":
        monkeypatch.setattr(executorch, "_ENGINE", "nowhere.so")
    with pytest.raises(EngineUnavailable, match=message):
        load_native_executorch()


@pytest.mark.parametrize(
    "place",
    [
        "Makefile",
        "README.md",
        "docs/native.md",
        "pyproject.toml",
        "runtime/native/cmake/executorch.cmake",
        "runtime/paraedge_runtime/engines/executorch.py",
        "tests/test_device_environment.py",
    ],
)
def test_every_place_names_the_version_that_the_core_was_built_for(place):
    text = (Path(__file__).parents[2] / place).read_text()
    named = re.findall(r"executorch(?:==|_wanted )(\d+(?:\.[\d*]+)*)", text, re.IGNORECASE)
    assert set(named) == {load_native_executorch()}


def test_sessions_come_and_go(bundle, inputs):
    before = threading.active_count()
    for number in range(60):
        with Session.open(bundle, threads=1 + number % 3, branches=1 + number % 7) as session:
            session.run(inputs[0], budget_ms=0.2)
    assert threading.active_count() == before
