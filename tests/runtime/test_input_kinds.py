"""What a session takes: a path, a PIL image, a torch tensor, an array of another size, a list of these."""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image
from support.bundles import EMBEDDING, IMAGE, MOTION, fake_bundle

from paraedge_runtime import InputError, Session, session
from paraedge_runtime._input_kinds import as_input
from paraedge_runtime.inputs import read_image
from paraedge_runtime.manifest import ImageInput

HEIGHT, WIDTH = 6, 8
GREY = ImageInput(name="image", shape=(1, 1, HEIGHT, WIDTH), mean=(0.5,), std=(0.25,))
COLOUR = ImageInput(name="image", shape=(1, 3, HEIGHT, WIDTH), mean=(0.5,) * 3, std=(0.25,) * 3)

RNG = np.random.default_rng(0)
PHOTO = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((40, 30), Image.Resampling.BICUBIC)
)


@pytest.fixture
def photo_file(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


class Labelled(torch.Tensor):
    """As torchvision's tv_tensors: its module is not torch."""


FORMS = {
    "path": lambda path: path,
    "text": str,
    "PIL, not decoded yet": lambda path: Image.open(path),
    "PIL, decoded": lambda path: Image.open(path).copy(),
    "PIL with an opaque fourth channel": lambda path: Image.open(path).convert("RGBA"),
    "array": lambda path: PHOTO,
    "array with gaps": lambda path: np.repeat(PHOTO, 2, axis=0)[::2],
    "array with an opaque fourth channel": lambda path: np.dstack([PHOTO, np.full((30, 40), 255, np.uint8)]),
    "channels first": lambda path: PHOTO.transpose(2, 0, 1),
    "torch": lambda path: torch.from_numpy(PHOTO.copy()),
    "torch, channels first": lambda path: torch.from_numpy(PHOTO.copy()).permute(2, 0, 1),
    "subclass of a torch tensor": lambda path: torch.from_numpy(PHOTO.copy()).as_subclass(Labelled),
}


CHANNELS_FIRST = (FORMS["channels first"], FORMS["torch, channels first"])


@pytest.mark.parametrize(
    ("form", "spec"),
    [
        pytest.param(form, spec, id=f"{name}, {'grey' if spec is GREY else 'colour'}")
        for name, form in FORMS.items()
        for spec in (GREY, COLOUR)
        if spec is COLOUR or form not in CHANNELS_FIRST  # may be three grey images, see below
    ],
)
def test_one_image_is_the_same_in_every_form(photo_file, form, spec):
    wanted = read_image(photo_file, spec)
    assert wanted.shape == (HEIGHT, WIDTH, spec.shape[1])
    got = as_input(form(photo_file), spec)
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("grey", [lambda p: p, lambda p: p[:, :, None], lambda p: p[None]], ids=["2d", "HW1", "1HW"])
def test_a_grey_array_of_any_size(tmp_path, spec, grey):
    Image.fromarray(PHOTO[:, :, 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(as_input(grey(PHOTO[:, :, 0]), spec), read_image(tmp_path / "grey.png", spec))


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (30, 40)], ids=["exact", "another"])
@pytest.mark.parametrize(("spec", "count"), [(GREY, 3), (GREY, 4), (COLOUR, 4)])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_a_stack_of_grey_images_is_not_taken_for_one_image(spec, count, size, kind):
    stack = np.zeros((count, *size), np.uint8)
    with pytest.raises(
        InputError, match=rf"one image of {count} channels, or {count} grey images; pass a list of images"
    ):
        as_input(kind(stack), spec)
    for image in stack:  # the list that the message asks for
        assert as_input(kind(image), spec).shape == (HEIGHT, WIDTH, spec.shape[1])


def test_what_fits_is_taken_as_it_is():
    exact = np.ascontiguousarray(PHOTO[:HEIGHT, :WIDTH])
    assert as_input(exact, COLOUR) is exact
    floats = np.zeros(COLOUR.shape, np.float32)
    assert as_input(floats, COLOUR) is floats
    np.testing.assert_array_equal(as_input(torch.ones(COLOUR.shape), COLOUR), np.ones(COLOUR.shape, np.float32))
    with_gradient = torch.ones(COLOUR.shape, requires_grad=True)
    assert as_input(with_gradient, COLOUR).dtype == np.float32


@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.quantize(16),
        lambda image: image.convert("1"),
        lambda image: image.convert("LA"),
        lambda image: image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE),
    ],
    ids=["palette", "one bit", "grey and alpha", "adaptive palette"],
)
def test_other_modes_of_pil_are_read_as_their_files(tmp_path, change, spec):
    image = change(Image.fromarray(PHOTO))
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(as_input(image, spec), read_image(tmp_path / "p.png", spec))


def test_a_pil_image_of_a_damaged_file_is_refused_in_one_line(tmp_path):
    Image.fromarray(np.tile(PHOTO, (8, 8, 1))).save(tmp_path / "p.jpg")
    data = (tmp_path / "p.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    with (
        Image.open(tmp_path / "cut.jpg") as image,
        pytest.raises(InputError, match=r"the PIL image .*cut\.jpg cannot be read: .*truncated"),
    ):
        as_input(image, COLOUR)


def test_an_open_file_is_refused_and_not_taken_apart(photo_file):
    with photo_file.open("rb") as file:
        with pytest.raises(InputError, match="got BufferedReader"):
            as_input(file, COLOUR)
        assert file.read(4) == b"\x89PNG"  # detach() would have taken its buffer


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_middle_is_cut_out_where_the_bundle_says_so(photo_file, form):
    spec = replace(COLOUR, resize="crop")  # 8 of 6, of 40 of 30: nothing to cut
    np.testing.assert_array_equal(as_input(form(photo_file), spec), as_input(photo_file, COLOUR))
    square = replace(spec, shape=(1, 3, 6, 6))  # 30 of the 40 columns
    middle = Image.fromarray(PHOTO[:, 5:35]).resize((6, 6), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(as_input(form(photo_file), square), np.asarray(middle))


def test_the_turn_of_a_photo_counts_in_pil_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(PHOTO).save(tmp_path / "turned.jpg", exif=exif)
    wanted = read_image(tmp_path / "turned.jpg", COLOUR)
    np.testing.assert_array_equal(as_input(Image.open(tmp_path / "turned.jpg"), COLOUR), wanted)


REFUSED = {
    "floats of another size": (np.zeros((1, 3, 30, 40), np.float32), r"float32 of shape \(1, 3, 30, 40\)"),
    "floats without the batch axis": (np.zeros((3, HEIGHT, WIDTH), np.float32), "normalised already"),
    "floats in torch": (torch.zeros(3, 30, 40), r"float32 of shape \(3, 30, 40\)"),
    "float64": (np.zeros(COLOUR.shape), "is float64"),
    "whole numbers": (np.zeros((30, 40, 3), np.int32), "is int32"),
    "bfloat16": (
        torch.zeros(COLOUR.shape, dtype=torch.bfloat16),
        r"tensor of torch.bfloat16 cannot be read: .*pass uint8",
    ),
    "a batch": (np.zeros((4, HEIGHT, WIDTH, 3), np.uint8), "pass several images as a list to run"),
    "two channels": (np.zeros((30, 40, 2), np.uint8), r"\(30, 40, 2\); .*an image has 1, 3 or 4 channels"),
    "nothing": (np.zeros((0, 40, 3), np.uint8), r"shape \(0, 40, 3\)"),
    "None": (None, "must be a path, a PIL image, a torch tensor or a numpy array, got NoneType"),
    "bytes": (b"x", "or a numpy array, got bytes"),
    "gone": ("gone.png", r"gone\.png does not exist"),
}


@pytest.mark.parametrize(("value", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_right_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        as_input(value, COLOUR)


def test_a_bundle_of_tensors_takes_files_and_torch(tmp_path):
    value = RNG.normal(size=MOTION.shape[1:]).astype(np.float32)
    np.save(tmp_path / "m.npy", value)
    for form in (tmp_path / "m.npy", str(tmp_path / "m.npy"), torch.from_numpy(value), value):
        np.testing.assert_array_equal(as_input(form, MOTION), value)
    for form in (Image.new("L", (8, 8)), np.zeros((8, 8), np.uint8)):
        with pytest.raises(InputError, match="input 'motion' "):
            as_input(form, MOTION)


def test_without_pillow_the_extra_is_named_and_what_fits_still_runs(monkeypatch, photo_file):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    for value in (photo_file, PHOTO):
        with pytest.raises(InputError, match=r"reading images needs Pillow .*; pip install 'paraedge\[cli\]'"):
            as_input(value, COLOUR)
    assert as_input(PHOTO[:HEIGHT, :WIDTH], COLOUR).shape == (HEIGHT, WIDTH, 3)


# In a session ----------------------------------------------------------------------------------


@pytest.fixture(params=["core", "one after another"])
def opened(request, tmp_path, fake_engine, monkeypatch):
    if request.param != "core":
        monkeypatch.setattr(session, "core_problem", lambda: "not built")
    with Session.open(fake_bundle(tmp_path / "b", [{"add": 0.1}, {"add": 0.2}])) as made:
        yield made


def test_a_session_takes_every_kind_in_every_call(opened, photo_file):
    wanted = opened.run(read_image(photo_file, IMAGE)).output
    for form in set(FORMS.values()) - set(CHANNELS_FIRST):
        np.testing.assert_array_equal(opened.run(form(photo_file)).output, wanted)
        np.testing.assert_array_equal(opened.run(form(photo_file), budget_ms=5000).output, wanted)
    *_, last = opened.stream(photo_file)
    np.testing.assert_array_equal(last.output, wanted)
    np.testing.assert_array_equal(asyncio.run(opened.arun(Image.open(photo_file))).output, wanted)


@pytest.mark.parametrize("call", ["arun", "stream"])
def test_a_list_where_one_image_is_read_names_run(opened, call):
    def run():
        made = getattr(opened, call)([PHOTO, PHOTO])
        return asyncio.run(made) if call == "arun" else next(made)

    with pytest.raises(InputError, match=r"pass one image, got a list of 2; run\(\) takes lists"):
        run()


def test_a_slow_file_holds_up_nobody_else(opened, photo_file):
    asked, goes_on = threading.Event(), threading.Event()

    class SlowPath:
        def __fspath__(self):
            asked.set()
            assert goes_on.wait(30)
            return str(photo_file)

    os.PathLike.register(SlowPath)
    exact = read_image(photo_file, IMAGE)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(opened.run, SlowPath())
        try:
            assert asked.wait(30)
            output = pool.submit(opened.run, exact).result(timeout=30).output
        finally:
            goes_on.set()
        np.testing.assert_array_equal(slow.result(timeout=30).output, output)


def test_a_list_of_images_is_a_list_of_predictions(opened, photo_file):
    images = [photo_file, PHOTO[::-1], Image.open(photo_file)]
    predictions = opened.run(images)
    assert [type(one).__name__ for one in predictions] == ["Prediction"] * 3
    for image, prediction in zip(images, predictions, strict=True):
        np.testing.assert_array_equal(prediction.output, opened.run(image).output)
    assert opened.run([]) == []
    assert [one.branches_used for one in opened.run(tuple(images), branches=1)] == [(0,)] * 3
    assert all(one.deadline_met for one in opened.run([PHOTO] * 3, budget_ms=5000))


def test_one_bad_image_of_a_list_is_named_before_the_first_runs(opened, fake_engine):
    with pytest.raises(InputError, match=r"image 2 of the list of 3: gone\.png does not exist"):
        opened.run([PHOTO, PHOTO, "gone.png"])
    assert all(part.threads == [] for part in fake_engine.PARTS)


def test_a_vector_bundle_takes_a_list_too(tmp_path, fake_engine):
    bundle = fake_bundle(tmp_path / "b", input=MOTION, output=EMBEDDING)
    inputs = list(bundle.golden().inputs)
    with Session.open(bundle) as made:
        assert [one.output.shape for one in made.run(inputs)] == [(7,)] * len(inputs)
