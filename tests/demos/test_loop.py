"""The demo without its page: sources, settings, a bundle replaced on disk, recordings, on real images."""

import os
import shlex
import shutil
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.bundles import edit_manifest
from support.deadly import in_children
from support.demo import until
from support.keys import signed, write_keys
from support.tensor_branches import EmbeddingBranches, MotionBranches, SoundBranches, describe

from paraedge.cli.main import paraedge
from paraedge_converters.pipeline import convert
from paraedge_demo.app import LiveOptions, live_app, replay_app
from paraedge_demo.controls import Controls, Settings
from paraedge_demo.main import demo
from paraedge_demo.measures import WINDOW, Measures
from paraedge_demo.records import read_recording
from paraedge_demo.shots import SourceOptions
from paraedge_demo.sources import open_source
from paraedge_runtime import Bundle, InputError
from paraedge_runtime.cache_folder import CACHE_VARIABLE

FAST = {"fps": 100.0, "budget_ms": 1000.0}


def frames(app, count=1):
    """Wait for so many more predictions; the last one's record."""
    number = app.board.look().summary.frames + count
    until(lambda: app.board.look().summary.frames >= number or app.stop.is_set(), "no predictions come")
    return app.board.last


@pytest.fixture
def own_bundle(pi_bundle, tmp_path):
    return Path(shutil.copytree(pi_bundle, tmp_path / "own.paraedge"))


@pytest.fixture
def images(pi_bundle, tmp_path):
    """Two real images in folders called like their labels, one in a folder that is not, one damaged."""
    golden, labels = Bundle.open(pi_bundle).golden(), Bundle.open(pi_bundle).manifest.labels
    for number in range(2):
        folder = tmp_path / "images" / labels[golden.labels[number]].replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(golden.inputs[number, :, :, 0]).save(folder / f"{number}.png")
    (tmp_path / "images" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    return tmp_path / "images"


def test_packaged_images_are_answered_and_judged(pi_bundle):
    with live_app(LiveOptions(pi_bundle, frames=32, **FAST)) as app:
        assert app.stop.wait(60)
    view = app.board.look()
    assert view.summary.frames == 32
    assert view.summary.judged == 32
    assert view.summary.accuracy > 0.8
    assert view.summary.misses == 0
    assert {bar.outcome for bar in view.record.branches} == {"used"}
    assert view.record.latency_ms >= view.record.inference_ms > 0
    assert view.messages == ()


def test_predictions_that_are_not_sure_are_unknown(pi_bundle):
    with live_app(LiveOptions(pi_bundle, frames=32, min_confidence=1.0, **FAST)) as app:
        assert app.stop.wait(60)
    view = app.board.look()
    assert view.summary.accuracy < 0.8  # unknown is not right
    assert (view.record.label is None) == (view.record.confidence < 1)


@pytest.mark.parametrize(
    ("changes", "asked"),
    [({"policy": "static", "count": 3}, 3), ({"policy": "static", "count": 1}, 1), ({"policy": "all"}, 8)],
)
def test_policies(pi_bundle, changes, asked):
    with live_app(LiveOptions(pi_bundle, **FAST)) as app:
        frames(app)
        app.controls.change(changes)
        record = until(lambda: (last := app.board.last).policy == changes["policy"] and last, "no such prediction")
    used = [bar.index for bar in record.branches if bar.outcome == "used"]
    assert used == list(range(asked))
    assert len(record.branches) == 8
    assert all("policy asks for" in bar.reason for bar in record.branches[asked:])


def test_budget_and_threads_change_while_it_runs(pi_bundle):
    with live_app(LiveOptions(pi_bundle, threads=2, **FAST)) as app:
        assert frames(app).threads == 2
        app.controls.change({"threads": 1, "budget_ms": 0.5})
        record = until(lambda: (last := app.board.last).threads == 1 and last.budget_ms == 0.5 and last, "no change")
        assert {bar.thread for bar in record.branches} <= {-1, 0, 1}
        until(lambda: any(bar.outcome != "used" for bar in app.board.last.branches), "no branch is left out")


def test_load_starts_and_ends(pi_bundle):
    def hogs():
        children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
        pids = " ".join(file.read_text() for file in children).split()
        return [pid for pid in pids if b"hog.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    with live_app(LiveOptions(pi_bundle, load=True, **FAST)) as app:
        until(hogs, "no hog")
        app.controls.change({"load": False})
        until(lambda: not hogs(), "the hog stays")
        app.controls.change({"load": True})
        until(hogs, "no hog again")
        assert frames(app).load
    assert not hogs()


@pytest.mark.parametrize(
    "changes",
    [
        {"budget_ms": 0},
        {"budget_ms": 1e9},
        {"budget_ms": "fast"},
        {"threads": 0},
        {"threads": 999},
        {"threads": 1.5},
        {"policy": "best"},
        {"count": 9},
        {"load": "yes"},
        {"speed": 3},
        {"budget_ms": 12, "policy": "best"},
    ],
)
def test_settings_that_cannot_be_change_nothing(changes):
    controls = Controls(Settings(10, 2), max_threads=4, max_count=8)
    before = controls.settings
    with pytest.raises(InputError):
        controls.change(changes)
    assert controls.settings == before
    assert not controls.news.is_set()


def test_a_folder_with_a_damaged_image(pi_bundle, images):
    with live_app(LiveOptions(pi_bundle, source="folder", folder=images, **FAST)) as app:
        frames(app, 8)
        view = app.board.look()
    assert any("damaged.png is not an image" in message for message in view.messages)
    assert 0 < view.summary.judged <= view.summary.frames


def test_a_folder_that_is_emptied_and_filled_again(pi_bundle, images):
    with live_app(LiveOptions(pi_bundle, source="folder", folder=images, **FAST)) as app:
        frames(app)
        moved = images.rename(images.with_name("elsewhere"))
        until(lambda: any("trying again" in message for message in app.board.look().messages), "no message")
        moved.rename(images)
        frames(app, 3)


@pytest.mark.parametrize(
    ("name", "folder", "message"),
    [
        ("folder", None, "add --folder"),
        ("folder", Path("nowhere"), "does not exist"),
        ("camera", None, "picamera2"),
        ("film", None, "choose one of packaged, folder, camera"),
    ],
)
def test_sources_that_cannot_be(pi_bundle, name, folder, message):
    with pytest.raises(InputError, match=message):
        open_source(name, SourceOptions(Bundle.open(pi_bundle), print, folder))


@pytest.mark.parametrize(
    "make", [SoundBranches, MotionBranches, EmbeddingBranches], ids=["sound", "motion", "embedding"]
)
def test_bundles_of_tensors_and_vectors_are_refused_in_one_line_that_names_what_works(make, tmp_path):
    model = make().eval()
    bundle = convert(model, describe(model), tmp_path / "a bundle.paraedge", target="linux")
    done = CliRunner().invoke(demo, ["--bundle", str(bundle.path), "--headless", "--frames", "1"])
    assert isinstance(done.exception, InputError), done.output
    command = f"paraedge run '{bundle.path}'"
    assert str(done.exception) == (
        f"{bundle.path} classifies neither images nor signals, which the demo shows; '{command}' runs its golden inputs"
    )
    ran = CliRunner().invoke(paraedge, shlex.split(command)[1:])
    assert ran.exit_code == 0, ran.output


# What OpenCV is to the demo: a camera that is unplugged after three images, and then plugged in again.
CAMERA = """
import numpy as np
CAP_PROP_FRAME_WIDTH, CAP_PROP_FRAME_HEIGHT = 3, 4
opened = []

class VideoCapture:
    def __init__(self, number):
        opened.append(self)
        self.left = 3

    def isOpened(self):
        return len(opened) != 2

    def set(self, property, value):
        pass

    def read(self):
        self.left -= 1
        return (self.left >= 0 or len(opened) > 2), np.full((48, 64, 3), (255, 0, 0), np.uint8)

    def release(self):
        self.released = True
"""


def test_a_camera_that_is_unplugged(pi_bundle, tmp_path, monkeypatch):
    (tmp_path / "cv2.py").write_text(CAMERA)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "cv2", raising=False)
    with live_app(LiveOptions(pi_bundle, source="camera", budget_ms=1000.0)) as app:
        frames(app, 10)
        view = app.board.look()
        import cv2
    assert any("check that it is plugged in" in message for message in view.messages)
    assert any("cannot be opened" in message for message in view.messages)
    assert view.preview.shape == (240, 240, 3)
    assert (view.preview == (0, 0, 255)).all()  # blue came as B, G, R
    assert view.record.truth is None
    assert all(camera.released for camera in cv2.opened)


@pytest.mark.parametrize(("source", "model"), [("camera", "waste"), ("packaged", "fashion-mnist")])
def test_without_a_bundle_a_packaged_model_is_shown(pi_bundle, tmp_path, monkeypatch, source, model):
    (tmp_path / "cv2.py").write_text(CAMERA)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "cv2", raising=False)
    asked = []

    def packaged_bundle(engine, name):
        asked.append((engine, name))
        return pi_bundle

    monkeypatch.setattr("paraedge.cli.packaged_bundle.packaged_bundle", packaged_bundle)
    done = CliRunner().invoke(demo, ["--source", source, "--headless", "--frames", "2", "--budget-ms", "1000"])
    assert done.exit_code == 0, done.output
    assert asked == [(None, model)]


def test_without_a_bundle_on_a_device_the_command_that_makes_one_is_told(monkeypatch):
    monkeypatch.setattr("paraedge.cli.packaged_bundle.packaged_folder", lambda name: None)
    done = CliRunner().invoke(demo, ["--source", "camera", "--headless"])
    assert isinstance(done.exception, InputError), done.output
    assert "'paraedge export --target raspberry-pi --model waste'" in str(done.exception)


def test_a_bundle_replaced_on_disk_is_loaded(own_bundle, pi_bundle):
    with live_app(LiveOptions(own_bundle, **FAST)) as app:
        assert len(frames(app).branches) == 8
        Bundle.open(pi_bundle).subset([0, 2, 5], own_bundle.with_name("small.paraedge"))
        shutil.rmtree(own_bundle)
        own_bundle.with_name("small.paraedge").rename(own_bundle)
        until(lambda: app.board.header.branches == (0, 2, 5), "the new bundle is not loaded")
        until(lambda: len(app.board.last.branches) == 3, "the new bundle predicts nothing")
        frames(app, 5)
        assert any("loaded another bundle" in message for message in app.board.look().messages)
        with pytest.raises(InputError, match="has 3 branches"):
            app.controls.change({"count": 4})


def test_a_bundle_on_disk_whose_program_kills_is_refused_and_the_old_one_stays(own_bundle, tmp_path, monkeypatch):
    with live_app(LiveOptions(own_bundle, **FAST)) as app:
        frames(app)
        deed = "os.kill(os.getpid(), signal.SIGSEGV)"
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))  # in which no bundle came through yet
        in_children(tmp_path / "site", monkeypatch, deed, "litert", ".tflite", "ai-edge-litert")
        Bundle.open(own_bundle).subset([0, 2, 5], tmp_path / "small.paraedge")
        shutil.rmtree(own_bundle)
        (tmp_path / "small.paraedge").rename(own_bundle)
        until(lambda: any("by SIGSEGV" in message for message in app.board.look().messages), "no message")
        assert len(frames(app, 5).branches) == 8


def _replace(bundle, new):
    shutil.rmtree(bundle)
    new.rename(bundle)


@pytest.mark.parametrize(
    ("signers", "version", "allow_downgrade", "message"),
    [
        (("release",), 5, False, "loaded another bundle"),
        (("release",), 2, True, "loaded another bundle"),
        (("release",), 2, False, "is a downgrade from version 3 to 2"),
        ((), 5, False, "is not signed"),
        (("stranger",), 5, False, "which is not among the trusted keys"),
    ],
)
def test_a_device_with_keys_loads_what_they_signed(own_bundle, tmp_path, signers, version, allow_downgrade, message):
    keys = write_keys(tmp_path / "keys")
    edit_manifest(own_bundle, lambda document: document.update(version=3))
    small = Bundle.open(own_bundle).subset([0, 2, 5], tmp_path / "small.paraedge").path
    edit_manifest(small, lambda document: document.update(version=version))
    signed(own_bundle, keys)
    if signers:
        signed(small, keys, *signers)
    options = {"trusted_keys": keys / "release.pub", "allow_downgrade": allow_downgrade, **FAST}
    with live_app(LiveOptions(own_bundle, **options)) as app:
        frames(app)
        _replace(own_bundle, small)
        until(lambda: any(message in said for said in app.board.look().messages), "no message")
        assert len(frames(app, 5).branches) == (3 if "loaded" in message else 8)


def test_a_device_with_keys_does_not_start_on_what_nobody_signed(own_bundle, tmp_path):
    keys = write_keys(tmp_path / "keys")
    options = ["--bundle", own_bundle, "--headless", "--frames", "1", "--key", keys / "release.pub"]
    done = CliRunner().invoke(demo, list(map(str, options)), standalone_mode=False)
    assert "is not signed" in str(done.exception)


def test_a_damaged_bundle_on_disk_is_refused_and_the_old_one_stays(own_bundle):
    with live_app(LiveOptions(own_bundle, **FAST)) as app:
        frames(app)
        part = next(own_bundle.glob("branch_03.*"))
        good = part.read_bytes()
        part.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        until(lambda: any("refused" in message for message in app.board.look().messages), "no message")
        assert len(frames(app, 5).branches) == 8
        part.write_bytes(good)
        frames(app, 5)
        assert not any("loaded another" in message for message in app.board.look().messages)


def test_a_slow_loop_takes_the_newest_frame_and_counts_the_others(pi_bundle):
    with live_app(LiveOptions(pi_bundle, fps=10_000.0, budget_ms=1000.0)) as app:
        record = until(lambda: (last := app.board.last) and last.dropped_frames > 50 and last, "nothing is dropped")
    assert record.latency_ms - record.inference_ms < 500  # the queue is one frame long


def test_a_recording_is_played_back(pi_bundle, tmp_path):
    path = tmp_path / "out.jsonl"
    with live_app(LiveOptions(pi_bundle, frames=20, record=path, **FAST)) as app:
        assert app.stop.wait(60)
    with path.open("ab") as file:  # as when the power went
        file.write(b'{"type":"frame","num')
    header, *records = read_recording(path)
    assert header == app.board.header
    assert [record.number for record in records] == list(range(1, 21))
    assert records[-1] == app.board.last
    with replay_app(path, ends=True) as played:
        assert played.stop.wait(60)
    assert played.board.look().summary == app.board.look().summary
    assert played.board.look().preview is None
    with pytest.raises(InputError, match="exists; choose another name"):
        live_app(LiveOptions(pi_bundle, record=path, **FAST))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"a": 1}\n', "line 1: not a line of a recording"),
        (b"\x00\xff\n", "line 1"),
        (b'{"type": "\xff"}\n', "line 1: not a line of a recording: 'utf-8'"),
        (b'{"type": ' + b"[" * 100_000 + b"\n", "line 1: not a line of a recording: .*recursion"),
        (b" " * (16 << 20), "line 1: too long for a line"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_no_recordings(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        replay_app(tmp_path / "a.jsonl", ends=True)


def test_a_pipe_is_not_waited_for_where_a_recording_is_read(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")  # nobody writes to it
    with pytest.raises(InputError, match=r"a\.jsonl cannot be read: It is not a plain file; make one with --record"):
        replay_app(tmp_path / "a.jsonl", ends=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"branches": []},
        {"branches": [{"index": 0, "outcome": "lost", "thread": 0, "start_ms": 0, "end_ms": 1, "reason": ""}]},
        {"budget_ms": 0},
        {"latency_ms": "soon"},
        {"label": 3},
    ],
)
def test_a_frame_that_cannot_be_ends_a_replay(pi_bundle, tmp_path, changes):
    path = tmp_path / "out.jsonl"
    with live_app(LiveOptions(pi_bundle, frames=2, record=path, **FAST)) as app:
        assert app.stop.wait(60)
    header, first, second = path.read_bytes().splitlines()
    wrong = msgspec.json.encode({**msgspec.json.decode(second), **changes})
    path.write_bytes(b"\n".join([header, first, wrong, b""]))
    with pytest.raises(InputError, match="line 3: not a line of a recording"), replay_app(path, ends=True) as played:
        assert played.stop.wait(60)
    assert played.board.last.number == 1


def test_measures_are_bounded(pi_bundle):
    with live_app(LiveOptions(pi_bundle, frames=1, **FAST)) as app:
        assert app.stop.wait(60)
    measures = Measures()
    for number in range(2 * WINDOW):
        late = number >= WINDOW
        changes = {"at_s": number / 15, "latency_ms": float(number), "deadline_met": not late}
        measures.add(msgspec.structs.replace(app.board.last, **changes))
    summary = measures.summary()
    assert (summary.frames, summary.misses, summary.recent_misses) == (2 * WINDOW, WINDOW, WINDOW)
    assert summary.p50_ms == pytest.approx(np.percentile(range(WINDOW, 2 * WINDOW), 50), abs=1)
    assert summary.fps == 15


def test_what_a_worker_raises_ends_the_demo(pi_bundle):
    app = live_app(LiveOptions(pi_bundle, **FAST))

    def fail():
        raise ZeroDivisionError("once")

    app.add("broken", fail)
    with pytest.raises(ZeroDivisionError), app:
        assert app.stop.wait(60)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("demo-")]
