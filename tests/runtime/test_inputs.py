"""From images and arrays to what the stem reads: what fits is normalised exactly, the rest is refused."""

import io
import os
import random
import struct
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from PIL import Image
from support.bundles import fake_bundle, golden_inputs

from paraedge_runtime import InputError
from paraedge_runtime._input_kinds import as_input
from paraedge_runtime._jpeg import has_one_scan
from paraedge_runtime.core import load_core
from paraedge_runtime.inputs import (
    IMAGE_SUFFIXES,
    check_input,
    display_name,
    find_images,
    find_inputs,
    normalise,
    read_image,
    read_tensor,
    stem_input,
)
from paraedge_runtime.manifest import ImageInput, TensorInput

HEIGHT, WIDTH = 6, 8


def _spec(channels, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), size=(HEIGHT, WIDTH)):
    return ImageInput(
        name="image",
        shape=(1, channels, *size),
        mean=mean[:channels],
        std=std[:channels],
    )


COLOUR, GREY = _spec(3), _spec(1)


def _noise(*shape):
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def _formula(images, spec):
    """The documented formula in float64."""
    mean, std = np.float64(spec.mean), np.float64(spec.std)
    return ((images.astype(np.float64) / 255.0 - mean) / std).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_is_the_formula(channels):
    spec = _spec(channels, size=(16, 16))
    every_value = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), (2, 16, 16, channels))
    result = normalise(every_value, spec)
    assert result.dtype == np.float32
    assert result.shape == (2, channels, 16, 16)
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, _formula(every_value, spec), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std"), [((0.0,), (1.0,)), ((0.5,), (0.5,)), ((0.1307,), (0.3081,)), ((-3.0,), (40.0,))]
)
def test_normalise_is_the_formula_for_other_constants(mean, std):
    spec = _spec(1, mean, std, size=(16, 16))
    every_value = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_allclose(normalise(every_value, spec), _formula(every_value, spec), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("image", "spec"),
    [
        pytest.param(_noise(HEIGHT, WIDTH, 3), COLOUR, id="colour"),
        pytest.param(_noise(HEIGHT, WIDTH, 1), GREY, id="grey"),
        pytest.param(_noise(HEIGHT, WIDTH), GREY, id="grey without channels"),
        pytest.param(_noise(WIDTH, HEIGHT, 3).transpose(1, 0, 2), COLOUR, id="transposed view"),
        pytest.param(_noise(HEIGHT * 2, WIDTH, 3)[::2], COLOUR, id="every second row"),
        pytest.param(_noise(HEIGHT, WIDTH, 3)[::-1, :, ::-1], COLOUR, id="mirrored"),
        pytest.param(np.asfortranarray(_noise(HEIGHT, WIDTH, 3)), COLOUR, id="Fortran order"),
        pytest.param(np.broadcast_to(np.uint8(7), (HEIGHT, WIDTH, 3)), COLOUR, id="broadcast"),
    ],
)
def test_images_that_fit(image, spec):
    image = image.view()
    image.flags.writeable = False
    result = check_input(image, spec)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert np.array_equal(result, np.reshape(image, (HEIGHT, WIDTH, -1)))


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.ones((1, 3, HEIGHT, WIDTH), np.float32), id="as it is"),
        pytest.param(np.ones((1, HEIGHT, WIDTH, 3), np.float32).transpose(0, 3, 1, 2), id="transposed view"),
        pytest.param(np.full((1, 3, HEIGHT, WIDTH), np.float32(-1e30)), id="large"),
        pytest.param(np.broadcast_to(np.float32(2), (1, 3, HEIGHT, WIDTH)), id="broadcast"),
    ],
)
def test_normalised_arrays_that_fit_are_taken_as_they_are(image):
    result = check_input(image, COLOUR)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert np.array_equal(result, image)


def _spoilt(value):
    array = np.zeros((1, 3, HEIGHT, WIDTH), np.float32)
    array[0, 1, 2, 3:5] = value
    return array


BAD_INPUTS = {
    "list": (np.zeros((HEIGHT, WIDTH, 3)).tolist(), "or a numpy array, got list"),
    "None": (None, "or a numpy array, got NoneType"),
    "path": ("cat.png", "or a numpy array, got str"),
    "bytes": (b"123", "or a numpy array, got bytes"),
    "PIL image": (Image.new("RGB", (WIDTH, HEIGHT)), "or a numpy array, got Image"),
    "number": (np.uint8(3), "or a numpy array, got uint8"),
    "other size": (
        _noise(HEIGHT + 1, WIDTH, 3),
        r"uint8 of shape \(7, 8, 3\); this bundle reads a uint8 image of shape \(6, 8, 3\)",
    ),
    "width and height exchanged": (_noise(WIDTH, HEIGHT, 3), r"shape \(8, 6, 3\)"),
    "channels first": (_noise(3, HEIGHT, WIDTH), r"shape \(3, 6, 8\)"),
    "grey for a colour bundle": (_noise(HEIGHT, WIDTH), r"shape \(6, 8\)"),
    "one channel": (_noise(HEIGHT, WIDTH, 1), r"shape \(6, 8, 1\)"),
    "four channels": (_noise(HEIGHT, WIDTH, 4), r"shape \(6, 8, 4\)"),
    "batch": (_noise(1, HEIGHT, WIDTH, 3), r"shape \(1, 6, 8, 3\)"),
    "empty": (np.zeros((0,), np.uint8), r"shape \(0,\)"),
    "no dimensions": (np.array(3, np.uint8), r"shape \(\)"),
    "float32 image": (np.zeros((HEIGHT, WIDTH, 3), np.float32), r"float32 of shape \(6, 8, 3\); .*\(1, 3, 6, 8\)"),
    "float32 NHWC": (np.zeros((1, HEIGHT, WIDTH, 3), np.float32), r"float32 of shape \(1, 6, 8, 3\)"),
    "float32 batch of two": (np.zeros((2, 3, HEIGHT, WIDTH), np.float32), r"float32 of shape \(2, 3, 6, 8\)"),
    "NaN": (_spoilt(np.nan), "2 values that are not finite"),
    "infinity": (_spoilt(np.inf), "2 values that are not finite"),
    "minus infinity": (_spoilt(-np.inf), "2 values that are not finite"),
    "float64": (
        np.zeros((1, 3, HEIGHT, WIDTH)),
        r"is float64 of shape \(1, 3, 6, 8\); this bundle reads a uint8 image",
    ),
    "float16": (np.zeros((1, 3, HEIGHT, WIDTH), np.float16), "is float16 of shape"),
    "big-endian float32": (np.zeros((1, 3, HEIGHT, WIDTH), ">f4"), "is >f4 of shape"),
    "int64": (np.zeros((HEIGHT, WIDTH, 3), np.int64), "is int64 of shape"),
    "int8": (np.zeros((HEIGHT, WIDTH, 3), np.int8), "is int8 of shape"),
    "uint16": (np.zeros((HEIGHT, WIDTH, 3), np.uint16), "is uint16 of shape"),
    "bool": (np.zeros((HEIGHT, WIDTH, 3), bool), "is bool of shape"),
    "objects": (np.full((HEIGHT, WIDTH, 3), None), "is object of shape"),
    "structured": (np.zeros((HEIGHT, WIDTH), [("r", "u1"), ("g", "u1"), ("b", "u1")]), "of shape"),
}


@pytest.mark.parametrize(("image", "problem"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_inputs_that_do_not_fit_are_refused(image, problem):
    with pytest.raises(InputError, match=f"^input 'image' .*{problem}"):
        check_input(image, COLOUR)


def test_two_dimensions_are_for_one_channel_only():
    with pytest.raises(InputError, match=r"shape \(8, 6\); this bundle reads a uint8 image of shape \(6, 8, 1\)"):
        check_input(_noise(WIDTH, HEIGHT), GREY)


# Tensors ---------------------------------------------------------------------------------------

RNG = np.random.default_rng(5)


def _tensor(shape, axes, axis, count):
    mean, std = RNG.normal(size=count).round(3), RNG.uniform(0.1, 3.0, count).round(3)
    return TensorInput(
        name="sensor",
        shape=(1, *shape),
        axes=axes,
        normalized_axis=axis,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
    )


MOTION = _tensor((6, 128), ("channel", "time"), "channel", 6)
TENSORS = {
    "sound, one mean for all": _tensor((1, 16000), ("channel", "time"), None, 1),
    "motion, per channel": MOTION,
    "last axis": _tensor((5, 7, 3), ("y", "x", "band"), "band", 3),
    "middle axis": _tensor((5, 7, 3), ("y", "x", "band"), "x", 7),
    "one axis": _tensor((384,), ("feature",), "feature", 384),
    "five axes": _tensor((2, 3, 4, 2, 3), ("a", "b", "c", "d", "e"), "b", 3),
}


@pytest.mark.parametrize("spec", TENSORS.values(), ids=TENSORS)
def test_normalise_of_a_tensor_is_the_formula(spec):
    x = RNG.normal(scale=3, size=(4, *spec.shape[1:])).astype(np.float32)
    result = normalise(x, spec)
    assert (result.dtype, result.shape, result.flags.c_contiguous) == (np.float32, x.shape, True)
    place = None if spec.normalized_axis is None else spec.axes.index(spec.normalized_axis)
    along = [-1 if axis == place else 1 for axis in range(len(spec.axes))]
    mean, std = (np.reshape(values, along) for values in (spec.mean, spec.std))
    np.testing.assert_allclose(result, (x.astype(np.float64) - mean) / std, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", [*TENSORS.values(), COLOUR, GREY], ids=[*TENSORS, "colour", "grey"])
def test_both_readers_normalise_to_the_same_bits(tmp_path, spec):
    bundle = fake_bundle(tmp_path / "b.paraedge", input=spec)
    for value in golden_inputs(spec, 3):
        here, native = normalise(value[None], spec), load_core().normalise(str(bundle.path), value)
        assert here.shape == native.shape
        assert np.array_equal(here.view(np.uint32), native.view(np.uint32))


@pytest.mark.parametrize("spec", TENSORS.values(), ids=TENSORS)
def test_a_tensor_that_fits_is_taken_as_it_is(spec):
    x = golden_inputs(spec)[0]
    assert check_input(x, spec) is x
    turned = check_input(np.asfortranarray(x), spec)
    assert turned.flags.c_contiguous
    assert np.array_equal(turned, x)
    assert np.array_equal(stem_input(x, spec), normalise(x[None], spec))
    assert stem_input(x, spec).shape == spec.shape


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([[0.0]], "or a numpy array, got list"),
        (np.zeros((6, 127), np.float32), r"float32 of shape \(6, 127\)"),
        (np.zeros((1, 6, 128), np.float32), r"float32 of shape \(1, 6, 128\)"),
        (np.zeros((128, 6), np.float32), r"float32 of shape \(128, 6\)"),
        (np.zeros((6, 128)), r"float64 of shape \(6, 128\)"),
        (np.zeros((6, 128), np.uint8), r"uint8 of shape \(6, 128\)"),
        (np.zeros((6, 128), ">f4"), r">f4 of shape"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(value, problem):
    wanted = r"this bundle reads float32 of shape \(6, 128\), axes \(channel, time\), before it is normalised"
    with pytest.raises(InputError, match=f"^input 'sensor' .*{problem}.*; {wanted}"):
        check_input(value, MOTION)


def test_a_tensor_with_values_that_are_not_finite_is_refused(tmp_path):
    x = golden_inputs(MOTION)[0]
    x[2, 3:5] = np.nan, np.inf
    with pytest.raises(InputError, match="2 values that are not finite"):
        check_input(x, MOTION)
    with pytest.raises(InputError, match="not finite; this bundle reads a float32 tensor"):
        load_core().normalise(str(fake_bundle(tmp_path / "b", input=MOTION).path), x)


def test_an_image_for_a_bundle_that_reads_none(tmp_path):
    with pytest.raises(InputError, match=r"does not read images; this bundle reads float32 of shape \(6, 128\)"):
        read_image(_save(tmp_path / "p.png", _noise(HEIGHT, WIDTH, 3)), MOTION)


# Image files ---------------------------------------------------------------------------------


def _save(path, image, **options):
    Image.fromarray(image).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".webp", ".gif"])
def test_read_image_exactly(tmp_path, suffix):
    """An image of the right size in two plain colours comes back as it was."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, 4:] = 255
    options = {"lossless": True} if suffix == ".webp" else {}
    result = read_image(_save(tmp_path / f"p{suffix}", image, **options), COLOUR)
    assert result.dtype == np.uint8
    assert np.array_equal(result, image)
    check_input(result, COLOUR)


def test_read_image_jpeg(tmp_path):
    image = np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
    result = read_image(_save(tmp_path / "p.jpg", image, quality=95), COLOUR)
    assert result.shape == image.shape
    assert np.abs(result.astype(int) - image).max() <= 4


def test_read_image_takes_a_path_as_text(tmp_path):
    _save(tmp_path / "p.png", _noise(HEIGHT, WIDTH, 3))
    assert np.array_equal(read_image(str(tmp_path / "p.png"), COLOUR), _noise(HEIGHT, WIDTH, 3))


def test_read_image_scales_to_what_the_bundle_reads(tmp_path):
    image = np.zeros((60, 80, 3), np.uint8)
    image[:, 40:] = 240
    result = read_image(_save(tmp_path / "p.png", image), COLOUR)
    assert result.shape == (HEIGHT, WIDTH, 3)
    assert (result[:, :3] == 0).all()
    assert (result[:, 5:] == 240).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I"])
@pytest.mark.parametrize("spec", [COLOUR, GREY], ids=["colour", "grey"])
def test_every_mode_becomes_the_channels_of_the_bundle(tmp_path, mode, spec):
    name = "p.tiff"
    source = Image.fromarray(_noise(HEIGHT, WIDTH)).convert(mode)
    if mode in ("HSV", "PA"):  # no file format holds these
        source = source.convert("RGB")
    source.save(tmp_path / name)
    result = read_image(tmp_path / name, spec)
    assert result.dtype == np.uint8
    assert result.shape == (HEIGHT, WIDTH, spec.shape[1])


def test_grey_and_colour_are_turned_into_each_other(tmp_path):
    grey = _noise(HEIGHT, WIDTH)
    _save(tmp_path / "grey.png", grey)
    _save(tmp_path / "colour.png", np.stack([grey] * 3, axis=2))
    assert np.array_equal(read_image(tmp_path / "grey.png", GREY)[:, :, 0], grey)
    assert np.array_equal(read_image(tmp_path / "grey.png", COLOUR), np.stack([grey] * 3, axis=2))
    assert np.array_equal(read_image(tmp_path / "colour.png", GREY)[:, :, 0], grey)


def _transparent_images():
    """One image each: the left half opaque grey 90, the right half transparent over the value that is named."""
    clear = np.zeros((HEIGHT, WIDTH), bool)
    clear[:, WIDTH // 2 :] = True
    for hidden in (0, 255):
        grey = np.where(clear, hidden, 90).astype(np.uint8)
        alpha = np.where(clear, 0, 255).astype(np.uint8)
        yield f"RGBA over {hidden}", Image.fromarray(np.dstack([grey, grey, grey, alpha])), {}
        yield f"LA over {hidden}", Image.fromarray(np.dstack([grey, alpha])), {}
        yield f"one colour of L, {hidden}", Image.fromarray(grey), {"transparency": hidden}
        colour = Image.fromarray(np.dstack([grey] * 3))
        yield f"one colour of RGB, {hidden}", colour, {"transparency": (hidden,) * 3}
        palette = colour.quantize(4)
        place = palette.getpixel((WIDTH - 1, 0))
        yield f"one colour of P, {hidden}", palette, {"transparency": place}
        yield (
            f"one colour of I;16, {hidden}",
            Image.fromarray(grey.astype(np.uint16) * 257),
            {"transparency": hidden * 257},
        )


TRANSPARENT = {name: (image, options) for name, image, options in _transparent_images()}


@pytest.mark.parametrize("spec", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize(("image", "options"), TRANSPARENT.values(), ids=TRANSPARENT)
def test_transparent_pixels_show_white_whatever_they_hide(tmp_path, image, options, spec):
    image.save(tmp_path / "p.png", **options)
    read = read_image(tmp_path / "p.png", spec)
    assert (read[:, : WIDTH // 2] == 90).all()
    assert (read[:, WIDTH // 2 :] == 255).all()


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
    image = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    image[:] = (200, 100, 0, 102)
    read = read_image(_save(tmp_path / "p.png", image), COLOUR)
    expected = [round(0.4 * value + 0.6 * 255) for value in (200, 100, 0)]
    assert np.abs(read.astype(int) - expected).max() <= 1


def test_opaque_pixels_of_an_image_with_transparency_are_exact(tmp_path):
    image = _noise(HEIGHT, WIDTH, 4)
    image[..., 3] = 255
    assert np.array_equal(read_image(_save(tmp_path / "p.png", image), COLOUR), image[:, :, :3])


@pytest.mark.parametrize(
    ("name", "size", "most_kb"),
    [
        # As phones take them, without the memory for them: 324 MB as bytes.
        pytest.param("p.jpg", (12000, 9000), 64_000, id="a JPEG at a reduced size"),
        # 80 MB, as Pillow keeps four bytes for three.
        pytest.param("p.png", (5000, 4000), 120_000, id="a PNG whole, once"),
    ],
)
def test_large_images_do_not_take_more_memory_than_said(tmp_path, name, size, most_kb):
    with Image.new("RGB", size, (90, 120, 60)) as image:
        image.paste((200, 30, 30), (size[0] // 2, 0, *size))
        image.save(tmp_path / name, quality=40)
    code = f"""
from pathlib import Path
from paraedge_runtime.inputs import image_array
import PIL.Image
def peak_kb():  # of this program: ru_maxrss begins with that of the process that started it
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
PIL.Image.init()
before = peak_kb()
image = image_array({str(tmp_path / name)!r}, 28, 28, 3)
print(peak_kb() - before, *image[14, 3], *image[14, 24])
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    added_kb, *colours = map(int, done.stdout.split())
    assert added_kb < most_kb
    assert np.abs(np.array(colours) - (90, 120, 60, 200, 30, 30)).max() <= 6


def test_a_reduced_jpeg_looks_like_the_whole_one(tmp_path):
    """Decoding at a reduced size, then scaling, is scaling: on a smooth image, within two of 255."""
    across, down = np.meshgrid(np.linspace(0, 6, 1200), np.linspace(0, 4, 900))
    whole = np.rint(127 + 60 * np.sin(across) + 60 * np.cos(down)).astype(np.uint8)
    Image.fromarray(whole).save(tmp_path / "p.jpg", quality=95)
    Image.fromarray(whole).save(tmp_path / "p.png")
    reduced, exact = (read_image(tmp_path / name, GREY).astype(int) for name in ("p.jpg", "p.png"))
    assert np.abs(reduced - exact).max() <= 2


@pytest.mark.parametrize(
    "header",
    [
        b"P5\n#" + b"x" * (8 << 20),
        b"P6 " + b" " * (8 << 20),
        b"P6 " + b"9" * 5000,
        b"Pf 1 1 -1\n",
        b"P2 2 2 9\n" + b"#\n" * 99999,
    ],
)
def test_a_header_that_takes_long_to_read_is_refused_at_once(tmp_path, header):
    (tmp_path / "p.ppm").write_bytes(header + bytes(100))
    begin = time.monotonic()
    with pytest.raises(
        InputError, match=r"p\.ppm .*it is not a binary PGM or PPM file, or its header is too long; save it as PNG"
    ):
        read_image(tmp_path / "p.ppm", COLOUR)
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("header", [b"P6\n# a comment\n1 1\n255\n", b"P6 #x\n1\t1\r\n#y\n255\n"])
def test_a_header_with_comments_is_read(tmp_path, header):
    (tmp_path / "p.ppm").write_bytes(header + b"\7\10\11")
    assert read_image(tmp_path / "p.ppm", COLOUR).max() == 9


def _has_one_scan(path):
    with path.open("rb") as file:
        return has_one_scan(file)


def _jpeg(**options):
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 8, 7)).save(stream, "JPEG", **options)
    return stream.getvalue()


_SOI = b"\xff\xd8\xff\xe0"
SLOW_JPEGS = {
    "zeros": (_SOI + bytes(8 << 20), "too many bytes between its segments"),
    "ones": (_SOI + b"\xff" * (8 << 20), "too many bytes between its segments"),
    "escaped": (_SOI + b"\0\2" + b"\xff\0" * (4 << 20), "too many bytes between its segments"),
    "alone": (_SOI + b"\0\2" + b"\xff\xd0" * (4 << 20), "more than 2000 segments"),
    "empty": (_SOI + b"\0\2" + b"\xff\xe1\0\2" * (2 << 20), "more than 2000 segments"),
    "scans": (lambda jpeg: jpeg[:-2] + jpeg[jpeg.rindex(b"\xff\xda") : -2] * 200 + jpeg[-2:], "more than 100 scans"),
}


@pytest.mark.parametrize(("made", "problem"), SLOW_JPEGS.values(), ids=SLOW_JPEGS)
def test_a_jpeg_that_keeps_its_decoder_busy_is_refused_at_once(tmp_path, made, problem):
    (tmp_path / "a.jpg").write_bytes(made(_jpeg(progressive=True)) if callable(made) else made)
    begin = time.monotonic()
    with pytest.raises(InputError, match=rf"a\.jpg .*{problem}"):
        read_image(tmp_path / "a.jpg", COLOUR)
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("between", [b"\xff" * 99, b"junk\xff\0"])
def test_a_jpeg_with_a_little_between_its_segments_is_read(tmp_path, between, progressive):
    jpeg = _jpeg(progressive=progressive)
    (tmp_path / "a.jpg").write_bytes(
        jpeg[:2] + between + jpeg[2:] if between[0] == 255 else jpeg[:20] + between + jpeg[20:]
    )
    assert read_image(tmp_path / "a.jpg", COLOUR).shape == (*COLOUR.shape[2:], 3)


def test_a_file_of_too_many_bytes_is_refused(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"a\.png .*1,099,511,627,776 bytes, more than the 268,435,456 allowed"):
        read_image(tmp_path / "a.png", COLOUR)


def test_too_many_pixels_are_refused_with_the_limit(tmp_path):
    header = b"P6 10000 5001 255\n"
    (tmp_path / "p.ppm").write_bytes(header + b"\0" * 100)
    with pytest.raises(InputError, match=r"p\.ppm .* 50,010,000 pixels, more than the 50,000,000 allowed"):
        read_image(tmp_path / "p.ppm", COLOUR)
    Image.new("L", (16, 16)).save(tmp_path / "p.jpg")
    raw = bytearray((tmp_path / "p.jpg").read_bytes())
    place = raw.index(b"\xff\xc0") + 5
    raw[place : place + 4] = struct.pack(">HH", 16000, 16001)
    (tmp_path / "p.jpg").write_bytes(raw)
    with pytest.raises(InputError, match=r"p\.jpg .* 256,016,000 pixels, more than the 256,000,000 allowed"):
        read_image(tmp_path / "p.jpg", COLOUR)


def test_a_progressive_jpeg_is_decoded_whole_and_held_to_that_limit(tmp_path):
    """Its decoder keeps the coefficients of all pixels, at whatever size it then puts out."""
    image = np.full((HEIGHT, WIDTH, 3), (90, 120, 60), np.uint8)
    Image.fromarray(image).save(tmp_path / "p.jpg", quality=95, progressive=True)
    assert np.abs(read_image(tmp_path / "p.jpg", COLOUR).astype(int) - image).max() <= 3
    raw = bytearray((tmp_path / "p.jpg").read_bytes())
    place = raw.index(b"\xff\xc2") + 5
    raw[place : place + 4] = struct.pack(">HH", 10000, 5001)
    (tmp_path / "p.jpg").write_bytes(raw)
    with pytest.raises(InputError, match=r"p\.jpg .* 50,010,000 pixels, more than the 50,000,000 allowed"):
        read_image(tmp_path / "p.jpg", COLOUR)


def _segment(marker, payload):
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def _jpeg_of_several_scans(channels):
    """A sequential JPEG that holds one channel after the other, each as Pillow encodes it as a grey image."""
    frame, rest, scans = b"", b"", b""
    for number, channel in enumerate(channels, start=1):
        buffer = io.BytesIO()
        Image.fromarray(channel).save(buffer, "JPEG", quality=95)
        raw, place = buffer.getvalue(), 2
        rest = b""
        while True:
            marker, size = raw[place + 1], struct.unpack(">H", raw[place + 2 : place + 4])[0]
            payload = raw[place + 4 : place + 2 + size]
            place += 2 + size
            if marker == 0xDA:
                break
            if marker == 0xC0:
                frame = payload[:5] + bytes([len(channels)])
            else:
                rest += _segment(marker, payload)
        scans += _segment(0xDA, bytes([1, number, 0, 0, 63, 0])) + raw[place : raw.rindex(b"\xff\xd9")]
    frame += b"".join(bytes([number, 0x11, 0]) for number in range(1, len(channels) + 1))
    return b"\xff\xd8" + rest + _segment(0xC0, frame) + scans + b"\xff\xd9"


def test_a_sequential_jpeg_of_several_scans_is_held_to_the_limit_of_progressive_ones(tmp_path):
    """Its decoder keeps all coefficients, too, until the last channel has come."""
    colours = [np.full((HEIGHT, WIDTH), value, np.uint8) for value in (100, 128, 128)]
    raw = bytearray(_jpeg_of_several_scans(colours))
    (tmp_path / "p.jpg").write_bytes(raw)
    assert np.abs(read_image(tmp_path / "p.jpg", COLOUR).astype(int) - 100).max() <= 3
    place = raw.index(b"\xff\xc0") + 5
    raw[place : place + 4] = struct.pack(">HH", 10000, 5001)
    (tmp_path / "p.jpg").write_bytes(raw)
    with pytest.raises(InputError, match=r"p\.jpg .* 50,010,000 pixels, more than the 50,000,000 allowed"):
        read_image(tmp_path / "p.jpg", COLOUR)


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 2}, {"optimize": True}, {"exif": b"Exif\0\0" + b"\xff\xda" * 9}]
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_what_cameras_write_is_a_jpeg_of_one_scan(tmp_path, mode, options):
    Image.new(mode, (64, 48)).save(tmp_path / "p.jpg", **options)
    assert _has_one_scan(tmp_path / "p.jpg")
    Image.new(mode, (64, 48)).save(tmp_path / "p.jpg", progressive=True)
    assert not _has_one_scan(tmp_path / "p.jpg")


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\xff\xd8\xff\xda\0\1", b"\xff\xd8" + b"\xff" * 99, b"rubbish"]
)
def test_a_jpeg_that_is_not_understood_is_held_to_the_lower_limit(tmp_path, raw):
    (tmp_path / "p.jpg").write_bytes(raw)
    assert not _has_one_scan(tmp_path / "p.jpg")


def test_sixteen_bits_are_read(tmp_path):
    image = np.full((HEIGHT, WIDTH), 40_000, np.uint16)
    read = read_image(_save(tmp_path / "p.png", image), GREY)
    assert read.shape == (HEIGHT, WIDTH, 1)
    assert (read == 40_000 >> 8).all()


def test_an_image_that_lies_on_its_side_is_turned(tmp_path):
    upright = _noise(HEIGHT, WIDTH, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to see it upright
    Image.fromarray(np.rot90(upright)).save(tmp_path / "p.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "p.png", COLOUR), upright)


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "p.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "p.gif", COLOUR) == (255, 0, 0)).all()


def _png():
    stream = io.BytesIO()
    Image.fromarray(_noise(40, 40, 3)).save(stream, "PNG")
    return stream.getvalue()


def _broken_chunk():
    """A chunk in the middle of the pixels with a name that is none: Pillow answers with a ``SyntaxError``."""
    raw = _png()
    place = raw.index(b"IDAT") - 4
    pixels = raw[place + 8 : raw.index(b"IEND") - 8]
    return (
        raw[:place] + len(pixels[:99]).to_bytes(4, "big") + b"IDAT" + pixels[:99] + bytes(4) + b"\0\0\0\5\xff\0\xfe\1"
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(None, "does not exist", id="missing"),
        pytest.param(b"", "is not an image", id="empty"),
        pytest.param(b"hello, world", "is not an image", id="text"),
        pytest.param(_png()[:200], "is not an image", id="truncated"),
        pytest.param(_png()[:20], "is not an image", id="header only"),
        pytest.param(_broken_chunk(), "is not an image", id="broken chunk"),
        pytest.param(_png().replace(b"\0\0\0\x28\0\0\0\x28", b"\0\1\0\0\0\1\0\0"), "is not an image", id="bomb"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, content, problem):
    path = tmp_path / "p.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=problem) as caught:
        read_image(path, COLOUR)
    assert str(path) in str(caught.value)


def test_pipes_and_python_objects_are_no_image_and_no_tensor(tmp_path):
    os.mkfifo(tmp_path / "p.npy")
    os.mkfifo(tmp_path / "p.png")
    with pytest.raises(InputError, match="is not an image that can be read: it is a pipe"):
        read_image(tmp_path / "p.png", COLOUR)
    with pytest.raises(InputError, match=r"p\.npy is not a plain file; save the input with numpy\.save"):
        read_tensor(tmp_path / "p.npy", MOTION)
    np.save(tmp_path / "o.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(InputError, match=r"holds Python objects, .*; save numbers with numpy\.save"):
        read_tensor(tmp_path / "o.npy", MOTION)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        pytest.param(np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8), "floating point numbers", id="float"),
        pytest.param(np.arange(48, dtype=np.int32).reshape(6, 8) * 1000, "32-bit numbers", id="wide"),
        pytest.param(np.arange(48, dtype=np.int32).reshape(6, 8) - 1, "32-bit numbers", id="below zero"),
    ],
)
def test_pixels_of_no_known_range_are_refused(tmp_path, values, problem):
    Image.fromarray(values).save(tmp_path / "p.tif")
    with pytest.raises(InputError, match=f"its pixels are {problem}, whose range is unknown"):
        read_image(tmp_path / "p.tif", COLOUR)
    with pytest.raises(InputError, match=f"its pixels are {problem}, whose range is unknown"):
        as_input(Image.fromarray(values), COLOUR)


def test_32_bit_pixels_of_8_bits_are_read(tmp_path):
    values = np.arange(48, dtype=np.int32).reshape(6, 8) * 5
    Image.fromarray(values).save(tmp_path / "wide.tif")
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "p.png")
    assert np.array_equal(read_image(tmp_path / "wide.tif", COLOUR), read_image(tmp_path / "p.png", COLOUR))


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(InputError, match="is not an image"):
        read_image(tmp_path, COLOUR)


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"])
def test_a_damaged_image_never_ends_in_anything_but_an_input_error(tmp_path, suffix, capfd):
    stream = io.BytesIO()
    Image.fromarray(_noise(24, 24, 3)).save(stream, suffix)
    numbers = random.Random(suffix)
    problems = []
    for _ in range(60):
        raw = bytearray(stream.getvalue())
        for _ in range(numbers.randint(1, 3)):
            place = numbers.randrange(numbers.choice([30, len(raw)]))
            raw[place : place + numbers.choice([1, 1, 4])] = numbers.choice([b"\0", b"\xff", b"\xff\xff\xff\x7f", b""])
        (tmp_path / "p").write_bytes(raw)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own doubts
            try:
                assert read_image(tmp_path / "p", COLOUR).shape == (HEIGHT, WIDTH, 3)
            except InputError as error:
                problems.append(str(error))
    assert problems
    assert all("p is not an image that can be read: " in problem for problem in problems)


@pytest.mark.parametrize("channels", [2, 4, 12])
def test_bundles_that_read_no_images_say_so(tmp_path, channels):
    spec = _spec(channels, mean=(0.5,) * channels, std=(0.5,) * channels)
    with pytest.raises(InputError, match=f"reads {channels} channels, an image has 1 or 3; pass arrays"):
        read_image(_save(tmp_path / "p.png", _noise(HEIGHT, WIDTH, 3)), spec)


# Finding them ----------------------------------------------------------------------------------


@pytest.fixture
def album(tmp_path):
    for name in ("b.png", "a.JPG", "sub/deep/c.webp", "sub/z.bmp", "notes.txt", "sub/list.csv", "noext"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "bare").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("given", "found"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(["b.png"], ["b.png"], id="file"),
        pytest.param(["notes.txt"], ["notes.txt"], id="a file is taken whatever its name"),
        pytest.param(["."], ["a.JPG", "b.png", "sub/deep/c.webp", "sub/z.bmp"], id="folder, nested, sorted"),
        pytest.param(["sub"], ["sub/deep/c.webp", "sub/z.bmp"], id="other folder"),
        pytest.param(
            ["sub/z.bmp", "b.png", "sub/deep"], ["sub/z.bmp", "b.png", "sub/deep/c.webp"], id="in given order"
        ),
    ],
)
def test_find_images(album, given, found):
    assert find_images([album / name for name in given]) == [album / name for name in found]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["missing.png"], r"missing\.png does not exist"),
        (["b.png", "gone"], "gone does not exist"),
        (["bare"], r"bare contains no images \(\.bmp, "),
        (["folder.png"], r"folder\.png contains no images"),
    ],
)
def test_find_images_refuses_what_is_not_there(album, given, problem):
    with pytest.raises(InputError, match=problem):
        find_images([album / name for name in given])


LITTER = ("._a.png", ".hidden.png", ".thumbnails/t.png", "__MACOSX/b.png", "@eaDir/c.png", "below/.cache/d.png")


@pytest.mark.parametrize("find", [lambda folder: find_inputs([folder], COLOUR), lambda folder: find_images([folder])])
def test_what_is_hidden_in_a_folder_is_skipped(tmp_path, find):
    for name in (*LITTER, "a.png", "below/b.png", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find(tmp_path) == [tmp_path / "a.png", tmp_path / "below/b.png"]


def test_a_tensors_file_is_no_image(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 4, 4), np.float32))
    with pytest.raises(InputError, match=r"x\.npy: \.npy files are for bundles that read a tensor, this one"):
        read_image(tmp_path / "x.npy", COLOUR)


def test_hidden_tensors_are_skipped(tmp_path):
    for name in ("._x.npy", "x.npy"):
        (tmp_path / name).write_bytes(b"")
    assert find_inputs([tmp_path], MOTION) == [tmp_path / "x.npy"]


def test_a_folder_that_is_hidden_itself_is_searched(tmp_path):
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data" / "a.png").write_bytes(b"")
    assert find_images([tmp_path / ".data"]) == [tmp_path / ".data" / "a.png"]


def test_what_a_system_left_is_skipped_among_named_files(tmp_path):
    """As ``folder/*`` names them."""
    names = ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.png", ".mine.png", "a.png")
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_images([tmp_path / name for name in names])] == [".mine.png", "a.png"]
    with pytest.raises(InputError, match=r"Thumbs\.db is a system file, not an input; name images"):
        find_images([tmp_path / "Thumbs.db"])


def test_a_name_that_is_not_utf8_is_shown_with_a_replacement():
    assert display_name(os.fsdecode(b"a/latin-\xe9.png")) == "a/latin-�.png"
    assert display_name("a/plain-é.png") == "a/plain-é.png"


def test_suffixes_are_lower_case():
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", id="EPS"),
        pytest.param(b"%PDF-1.4\n", id="PDF"),
    ],
)
def test_formats_that_start_programs_are_no_images(tmp_path, content):
    """Ghostscript ran what was in a file called .png."""
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is not an image that can be read: it is none of PNG, JPEG,"):
        read_image(path, ImageInput(name="image", shape=(1, 1, 8, 8), mean=(0.5,), std=(0.5,)))
