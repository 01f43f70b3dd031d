"""``paraedge run``: results as they come, what cannot be read is skipped and named, nothing is lost."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bundles import EMBEDDING, IMAGE_SHAPE, MOTION, fake_bundle

from paraedge_runtime.manifest import LabelsOutput

# The command in a process of its own, which knows the fake engine.
FAKE_PARAEDGE = """
import sys
sys.argv[0] = "paraedge"
from paraedge_runtime.engines import ENGINES, EngineInfo
ENGINES["fake"] = EngineInfo("support.fake_engine:FakeEngine", ".fake", ("fake",), "fake")
from paraedge.cli.main import main
main()
"""


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", FAKE_PARAEDGE, "run", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


def run(*arguments, code=0):
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return out, err


@pytest.fixture
def images(tmp_path):
    """Thirty images, of which the second and the last are none."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(30):
        Image.fromarray(np.full(IMAGE_SHAPE[:2], 8 * number, dtype=np.uint8)).save(folder / f"{number:02d}.png")
    (folder / "01.png").write_bytes(b"no image")
    (folder / "29.png").write_bytes((folder / "28.png").read_bytes()[:40])
    return folder


def test_json_is_one_line_per_image(tmp_path, images):
    out, _ = run(fake_bundle(tmp_path / "b").path, images / "00.png", images / "02.png", "--json")
    documents = [json.loads(line) for line in out.splitlines()]
    assert [Path(document["input"]).name for document in documents] == ["00.png", "02.png"]
    for document in documents:
        assert set(document) == {
            "input", "true_label", "label", "label_index", "confidence", "is_unknown", "is_calibrated", "output",
            "branches_used", "branches_dropped", "elapsed_ms", "deadline_met", "requests_to_learn", "engine",
            "timeline",
        }  # fmt: skip
        assert document["label"] == ("ant", "bee", "cat")[int(np.argmax(document["output"]))]
        assert document["branches_used"] == [0, 1, 2]
        assert {part["part"] for part in document["timeline"]} == {"stem", "branch_00", "branch_01", "branch_02"}


def test_a_file_that_is_no_image_is_named_and_skipped(tmp_path, images):
    out, err = run(fake_bundle(tmp_path / "b").path, images, "--json", code=2)
    documents = [json.loads(line) for line in out.splitlines()]
    assert [Path(document["input"]).name for document in documents] == [f"{n:02d}.png" for n in range(30)]
    assert [n for n, document in enumerate(documents) if "error" in document] == [1, 29]
    first, second, last = err.splitlines()[-3:]
    assert first.startswith(f"Skipped: {images / '01.png'} is not an image that can be read: ")
    assert first == f"Skipped: {documents[1]['error']}"
    assert second.startswith(f"Skipped: {images / '29.png'} is not an image that can be read: ")
    assert last == "Error: 2 of 30 file(s) could not be read and were skipped; replace or remove them"

    out, err = run(fake_bundle(tmp_path / "b").path, images, code=2)
    assert [Path(line.split()[0]).name for line in out.splitlines()[1:29]] == [
        f"{n:02d}.png" for n in range(30) if n not in (1, 29)
    ]
    assert "28 image(s), 2 skipped, median " in out
    assert err.splitlines()[-1] == last


def test_a_tensor_file_that_cannot_be_read_is_skipped_too(tmp_path):
    bundle = fake_bundle(tmp_path / "b", input=MOTION, output=EMBEDDING)
    folder = tmp_path / "tensors"
    folder.mkdir()
    np.save(folder / "good.npy", bundle.golden().inputs[0])
    np.save(folder / "short.npy", bundle.golden().inputs[0][:, :3])
    out, err = run(bundle.path, folder, "--json", code=2)
    good, short = map(json.loads, out.splitlines())
    assert (good["label"], good["confidence"], len(good["output"])) == (None, None, EMBEDDING.size)
    assert "short.npy: input 'motion' is float32 of shape (6, 3)" in short["error"]
    assert "Error: 1 of 2 file(s)" in err


def test_results_come_one_by_one_and_ctrl_c_loses_none(tmp_path, images):
    bundle = fake_bundle(tmp_path / "b", [{"sleep_s": 0.3}])
    process = start(bundle.path, images, "--json")
    seen = [process.stdout.readline() for _ in range(3)]  # while most are still to be run
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "Error: interrupted"
    documents = [json.loads(line) for line in [*seen, *out.splitlines()]]
    assert 3 <= len(documents) < 30
    assert [Path(document["input"]).name for document in documents] == [f"{n:02d}.png" for n in range(len(documents))]


def test_after_ctrl_c_text_still_ends_in_a_summary(tmp_path, images):
    bundle = fake_bundle(tmp_path / "b", [{"sleep_s": 0.3}])
    process = start(bundle.path, images)
    for _ in range(3):  # names of the columns, and two results
        assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "1 skipped, median " in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--early-stop"], "early_stop needs thresholds"),
        (["--budget-ms", "nan"], "budget_ms must be finite and above 0, got nan"),
    ],
)
def test_what_is_wrong_for_every_image_is_no_skipped_image(tmp_path, images, options, problem):
    bundle = fake_bundle(tmp_path / "b", stop_rules=None)
    out, err = run(bundle.path, images, *options, code=2)
    assert out == ""
    assert problem in err.splitlines()[-1]
    assert "Skipped: " not in err


def test_the_reasons_stand_below_each_result(tmp_path, images):
    out, _ = run(fake_bundle(tmp_path / "b").path, images / "00.png", "--explain")
    lines = out.splitlines()
    assert lines[0].split() == ["image", "label", "confidence", "branches", "ms"]
    place = next(number for number, line in enumerate(lines) if "00.png" in line)
    assert any(line.startswith("  branch 0 ran from ") for line in lines[place + 1 :])


def test_a_label_stands_in_one_line_as_it_is_shown(tmp_path, images):
    labels = LabelsOutput(labels=("\x1b[31mant", "\x1b[32mbee", "\x1b[33mcat"))
    out, _ = run(fake_bundle(tmp_path / "b", output=labels).path, images / "00.png", images / "02.png")
    lines = [line for line in out.splitlines() if ".png" in line]
    assert len(lines) == 2
    assert all(re.search(r"\\x1b\[3[123]m(ant|bee|cat) ", line) for line in lines)


def test_confidences_without_a_temperature_are_named(tmp_path, images):
    out, _ = run(fake_bundle(tmp_path / "b", stop_rules=None).path, images / "00.png", images / "02.png")
    assert out.splitlines()[-1] == "2 confidence(s) not calibrated: no temperature for the branches used"


def test_unknown_predictions_and_the_most_probable_labels_are_shown(tmp_path, images):
    bundle = fake_bundle(tmp_path / "b")
    options = ("--min-confidence", "0.9", "--top-k", "2")
    out, _ = run(bundle.path, images / "00.png", images / "02.png", *options)
    lines = out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith(str(images)[:20]) or ".png" in line] == ["unknown"] * 2
    assert len([line for line in lines if line.startswith("  ") and line.count(" %") == 2]) == 2
    assert "2 unknown" in lines[-1]
    out, _ = run(bundle.path, images / "00.png", *options, "--json")
    document = json.loads(out)
    assert (document["label"], document["is_unknown"], len(document["top_k"])) == (None, True, 2)
    assert document["top_k"][0]["label"] == bundle.manifest.labels[document["label_index"]]


@pytest.mark.parametrize(
    ("output", "options", "problem"),
    [
        (None, ["--min-confidence", "0"], "--min-confidence must be above 0 and at most 1, got 0.0"),
        (None, ["--top-k", "99"], "--top-k must be from 1 to 3 (the number of labels), got 99"),
        (EMBEDDING, ["--top-k", "1"], "is a vector without labels; leave out --min-confidence and --top-k"),
    ],
)
def test_what_no_prediction_could_be_asked_is_refused_first(tmp_path, images, output, options, problem):
    bundle = fake_bundle(tmp_path / "b", **({} if output is None else {"output": output}))
    out, err = run(bundle.path, images, *options, code=2)
    assert out == ""
    assert problem in err.splitlines()[-1]


def test_an_image_from_the_standard_input(tmp_path, images):
    bundle = fake_bundle(tmp_path / "b").path
    (named,) = run(bundle, images / "02.png", "--json")[0].splitlines()
    for content, code in (((images / "02.png").read_bytes(), 0), (b"no image", 2), (b"", 2)):
        process = start(bundle, "-", "--json")
        process.stdin.buffer.write(content)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        document = json.loads(out)
        assert document["input"] == "-"
        if code:
            assert document["error"].startswith("the standard input is not an image that can be read: ")
            assert str(tmp_path.parent) not in err
        else:
            assert document["output"] == json.loads(named)["output"]
    assert "- was given more than once" in run(bundle, "-", "-", code=2)[1]
