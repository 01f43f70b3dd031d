"""The demo's images from a folder: which files, which right labels, and names that everything can show."""

import itertools
import os
import unicodedata

import msgspec
import numpy as np
import pytest
from PIL import Image
from support.bundles import fake_bundle

from paraedge_demo.board import Board
from paraedge_demo.messages import FORMAT, Header
from paraedge_demo.shots import SourceOptions
from paraedge_demo.sources import open_source
from paraedge_runtime.inputs import read_image
from paraedge_runtime.manifest import LabelsOutput

LABELS = LabelsOutput(labels=("caf\u00e9", "tea", "milk"))
LATIN = os.fsdecode(b"latin-\xe9.png")


def _shots(folder, bundle, count):
    options = SourceOptions(bundle, pytest.fail, folder)
    return list(itertools.islice(open_source("folder", options).shots(options), count))


def _save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, "PNG")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_folder_s_label_is_known_in_whatever_form_unicode_writes_it(tmp_path, form):
    bundle = fake_bundle(tmp_path / "b.paraedge", output=LABELS)
    _save(tmp_path / "images" / unicodedata.normalize(form, "caf\u00e9") / "1.png", np.zeros((4, 4, 3), np.uint8))
    (shot,) = _shots(tmp_path / "images", bundle, 1)
    assert shot.truth == "caf\u00e9"


def test_hidden_files_are_no_shots(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge", output=LABELS)
    _save(tmp_path / "images" / "a.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "images" / "._a.png").write_bytes(b"\0\5\26\7")
    assert [shot.name for shot in _shots(tmp_path / "images", bundle, 2)] == ["a.png", "a.png"]


def test_transparent_pixels_are_what_every_other_reader_makes_of_them(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge", output=LABELS)
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype=np.uint8)
    _save(tmp_path / "images" / "a.png", image)
    (shot,) = _shots(tmp_path / "images", bundle, 1)
    assert np.array_equal(shot.image, read_image(tmp_path / "images" / "a.png", bundle.manifest.input))


def test_names_that_are_not_utf8_can_be_sent_and_written(tmp_path):
    bundle = fake_bundle(tmp_path / "b.paraedge", output=LABELS)
    _save(tmp_path / "images" / LATIN, np.zeros((4, 4, 3), np.uint8))
    (shot,) = _shots(tmp_path / "images", bundle, 1)
    assert shot.name == "latin-\ufffd.png"
    board = Board(Header(FORMAT, "fake", "fake", (0,), ("a",), "folder", 1))
    board.say(f"{LATIN} is not an image")
    assert msgspec.json.decode(msgspec.json.encode(board.look().messages)) == ["latin-\ufffd.png is not an image"]
