"""One rule for photographs: whatever reads them, upright, the middle square; what is none is refused in a line."""

import struct

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from PIL import Image
from sklearn.datasets import load_sample_image
from support.bundles import IMAGE, fake_bundle

from paraedge.cli.main import paraedge
from paraedge.data import FolderOptions, load_dataset
from paraedge.data.datasets import files_left_out, options_for
from paraedge_demo.shots import SourceOptions
from paraedge_demo.sources import open_source
from paraedge_runtime import InputError
from paraedge_runtime._input_kinds import as_input
from paraedge_runtime.inputs import read_image

SIDE = 64
SPEC = replace(IMAGE, shape=(1, 3, SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3, resize="crop")
RED = (255, 0, 0)


@pytest.fixture(scope="module")
def upright():
    """3000×4000, as a telephone that is held upright makes it; red above and below the middle square."""
    image = Image.fromarray(load_sample_image("china.jpg")).resize((3000, 4000), Image.Resampling.BICUBIC)
    image.paste(RED, (0, 0, 3000, 480))
    image.paste(RED, (0, 3520, 3000, 4000))
    return image


@pytest.fixture(scope="module")
def folder(upright, tmp_path_factory):
    """The photograph as its file has it: 4000×3000, and a note to turn it; and one of another class."""
    root = tmp_path_factory.mktemp("photographs")
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("ant", "bee"):
        (root / name).mkdir()
        upright.transpose(Image.Transpose.ROTATE_90).save(root / name / "photo.jpg", exif=exif, quality=95)
    return root


def test_every_reader_makes_the_same_of_one_photograph(folder, upright, tmp_path):
    path = folder / "ant" / "photo.jpg"
    with Image.open(path) as stored:
        assert stored.size == (4000, 3000)
    read = read_image(path, SPEC)
    middle = upright.crop((0, 500, 3000, 3500)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    assert np.abs(read.astype(int) - np.asarray(middle)).mean() < 3  # decoded at a reduced size, from a JPEG
    assert not (read.astype(int) - RED == 0).all(axis=2).any()

    data = load_dataset("folder", folder, FolderOptions(image_size=SIDE, test_fraction=0.5))
    bundle = fake_bundle(tmp_path / "b.paraedge", input=SPEC)
    options = SourceOptions(bundle, lambda text: None, folder=folder)
    shot = next(open_source("folder", options).shots(options))
    for other in (data.train.images[0], data.test.images[0], as_input(str(path), SPEC), shot.image):
        assert np.array_equal(other, read)
    for spec in (
        SPEC,
        replace(SPEC, shape=(1, 3, 48, 64)),
        replace(SPEC, shape=(1, 1, 64, 48), mean=(0.5,), std=(0.25,)),
    ):
        compared = load_dataset("folder", folder, options_for(spec, None)).test  # as export and evaluate load it
        assert np.array_equal(compared.images[0], read_image(path, spec))
    whole = as_input(Image.open(path), SPEC)  # PIL decodes all of it
    assert np.abs(whole.astype(int) - read).mean() < 3


def test_a_wide_image_is_stretched_where_the_bundle_says_nothing(folder):
    read = read_image(folder / "ant" / "photo.jpg", replace(SPEC, resize="stretch"))
    assert (np.abs(read[:4].astype(int) - RED) < 8).all()


def _truncated(path):
    Image.fromarray(load_sample_image("flower.jpg")).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:20_000])


def _header_only(path):
    _truncated(path)
    path.write_bytes(path.read_bytes()[:20])


def _bomb(path):
    Image.new("RGB", (64, 64)).save(path, "JPEG")
    raw = bytearray(path.read_bytes())
    place = raw.index(b"\xff\xc0") + 5
    raw[place : place + 4] = struct.pack(">HH", 60_000, 60_000)
    path.write_bytes(raw)


def _large(path):
    Image.new("1", (8000, 7000)).save(path, "PNG")


def _empty(path):
    path.write_bytes(b"")


def _text(path):
    path.write_text("no image")


REFUSED = {
    "truncated": (_truncated, "truncated"),
    "cut off in its header": (_header_only, "its header is damaged"),
    "a bomb": (_bomb, "3,600,000,000 pixels, more than the 256,000,000 allowed"),
    "56 million pixels that cannot be read smaller": (_large, "56,000,000 pixels, more than the 50,000,000 allowed"),
    "empty": (_empty, "is not an image that can be read"),
    "text": (_text, "is not an image that can be read"),
}


@pytest.mark.parametrize(("spoil", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_photograph_is_one_line_and_nothing_is_lost(tmp_path, spoil, problem):
    root = tmp_path / "mine"
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        Image.fromarray(load_sample_image("china.jpg")).save(root / name / "a.jpg")
    spoil(root / "bee" / "b.jpg")
    with pytest.raises(InputError, match=problem):
        load_dataset("folder", root)
    arguments = ["train", "--backbone", "efficientnet-lite0", "--data-dir", str(root), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(paraedge, [*arguments, "--dataset", "folder"])
    assert isinstance(result.exception, InputError)  # the command line makes one line and status 2 of it
    assert "\n" not in str(result.exception)
    assert "b.jpg" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_files_that_train_nothing_are_counted_by_suffix(tmp_path):
    for name, suffixes in (("ant", ".png .HEIC .heic .mp3"), ("bee", ".jpg .heic")):
        (tmp_path / name).mkdir()
        for number, suffix in enumerate(suffixes.split()):
            (tmp_path / name / f"{number}{suffix}").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("beside the class folders")
    (tmp_path / "ant" / ".DS_Store").write_text("hidden")
    assert files_left_out("folder", tmp_path).startswith("Left out: 3 .heic, 1 .mp3; files that are read end in .bmp, ")
    (tmp_path / "ant" / "0.png").unlink()
    with pytest.raises(
        InputError, match=r"ant has no images, only 2 \.heic, 1 \.mp3; convert them, or remove that folder"
    ):
        load_dataset("folder", tmp_path)
    (tmp_path / "bee" / "0.jpg").unlink()
    with pytest.raises(
        InputError, match=r"has no images in its class folders \(ant, bee\), only 3 \.heic, 1 \.mp3; conv"
    ):
        load_dataset("folder", tmp_path)


def test_what_no_image_file_has_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="the model reads 4 channels, image files have 1 or 3; use --dataset npz"):
        load_dataset(
            "folder", folder, options_for(replace(SPEC, shape=(1, 4, 8, 8), mean=(0.5,) * 4, std=(0.25,) * 4), None)
        )
    arguments = ["train", "--dataset", "folder", "--data-dir", str(folder), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(paraedge, [*arguments, "--image-size", "0"])
    assert result.exit_code == 2
    assert "0 is not in the range x>=1" in result.stderr


def test_one_class_is_no_data_set(tmp_path):
    (tmp_path / "only").mkdir()
    with pytest.raises(InputError, match=r"must have at least 2 class folders, got 1"):
        load_dataset("folder", tmp_path)


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "LA", "P", "1"])
def test_other_modes_are_read(tmp_path, mode):
    photo = Image.fromarray(load_sample_image("flower.jpg"))
    name = "p.jpg" if mode == "CMYK" else "p.png"
    if mode == "I;16":
        Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) << 8).save(tmp_path / name)
    else:
        photo.convert(mode).save(tmp_path / name)
    wanted = read_image_of(photo if mode in ("CMYK", "P") else photo.convert("1" if mode == "1" else "L"))
    assert np.abs(read_image(tmp_path / name, SPEC).astype(int) - wanted).mean() < 12


def read_image_of(image):
    return as_input(image.convert("RGB"), SPEC).astype(int)
