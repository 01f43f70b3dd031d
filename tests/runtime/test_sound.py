"""WAV files as a bundle reads them: every width of PCM, what is refused in one line, windows of clips."""

import numpy as np
import pytest
from msgspec.structs import replace
from support.bundles import MOTION
from support.recordings import tone, write_wav

from paraedge_runtime.errors import InputError
from paraedge_runtime.inputs import find_inputs, read_input
from paraedge_runtime.manifest import TensorInput
from paraedge_runtime.sound import fitted, hears, read_wav

SOUND = TensorInput(
    name="signal", shape=(1, 1, 8000), axes=("channel", "time"), normalized_axis="channel", mean=(0.0,), std=(0.1,),
    rate_hz=8000.0, channel_names=("mono",),
)  # fmt: skip


@pytest.mark.parametrize(("width", "error"), [(1, 1e-2), (2, 1e-4), (3, 1e-6), (4, 1e-6)])
def test_every_width_of_pcm_is_read(tmp_path, width, error):
    expected = tone(440)
    samples, rate_hz = read_wav(write_wav(tmp_path / "a.wav", expected, width=width))
    assert (samples.dtype, rate_hz) == (np.float32, 8000)
    assert np.abs(samples - expected).max() < error


def extensible(raw, guid="0100000000001000800000aa00389b71"):
    """The same file with the header that ffmpeg writes for more than 16 bits."""
    bits = raw[34:36]
    fmt = b"\xfe\xff" + raw[22:36] + (22).to_bytes(2, "little") + bits + (4).to_bytes(4, "little") + bytes.fromhex(guid)
    riff_size = int.from_bytes(raw[4:8], "little") + len(fmt) - 16
    return raw[:4] + riff_size.to_bytes(4, "little") + raw[8:16] + len(fmt).to_bytes(4, "little") + fmt + raw[36:]


@pytest.mark.parametrize("width", [2, 3])
def test_the_extensible_header_is_read_as_the_plain_one(tmp_path, width):
    path = write_wav(tmp_path / "a.wav", tone(440), width=width)
    plain, _ = read_wav(path)
    path.write_bytes(extensible(path.read_bytes()))
    assert np.array_equal(read_wav(path)[0], plain)
    path.write_bytes(extensible(write_wav(path, tone(440), width=width).read_bytes(), "03" + "00" * 15))
    with pytest.raises(InputError, match="its samples are floating point"):
        read_wav(path)


def test_channels_are_mixed(tmp_path):
    left, right = tone(440), 0.2 * tone(300)
    samples, _ = read_wav(write_wav(tmp_path / "a.wav", np.stack([left, right], axis=1)))
    assert np.abs(samples - (left + right) / 2).max() < 1e-4


def test_a_shorter_clip_is_in_the_middle_and_a_longer_one_where_it_is_loudest(tmp_path):
    clip = read_input(write_wav(tmp_path / "a.wav", tone(440, 0.5)), SOUND)
    assert clip.shape == (1, 8000)
    assert (clip[0, :2000] == 0).all()
    assert (clip[0, 6000:] == 0).all()
    long = np.zeros(30_000, np.float32)
    long[12_345:20_345] = 0.5
    assert (fitted(long, 8000) == 0.5).all()
    assert (fitted(np.zeros(9000, np.float32), 8000) == 0).all()


def _float_wav(path):
    raw = write_wav(path, tone(440)).read_bytes()
    path.write_bytes(raw[:20] + b"\x03\0" + raw[22:])  # IEEE float


def _damaged(change):
    def make(path):
        raw = write_wav(path, tone(440)).read_bytes()
        path.write_bytes(change(raw))

    return make


def _with_size(size_bytes):
    return _damaged(lambda raw: raw[:40] + size_bytes.to_bytes(4, "little") + raw[44:])


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "a.wav does not exist"),
        (lambda path: path.mkdir(), "a.wav is not a plain file; name a .wav file"),
        (lambda path: path.write_bytes(b""), "a.wav is empty; record it again, or remove it"),
        (lambda path: write_wav(path, tone(440)[:0]), "a.wav has no samples, as its header says; record"),
        (_damaged(lambda raw: raw[:30]), r"a.wav is not a WAV file of PCM samples \(.+\); convert it, such as with"),
        (_damaged(lambda raw: raw[:6]), "its header is cut short"),
        (_damaged(lambda raw: raw[:-100]), "a.wav is cut short: 9500 bytes of the 9600 that its header names; copy"),
        (lambda path: path.write_bytes(b"\xff\xfb\x90\x64" + bytes(4000)), "file does not start with RIFF id"),
        (_float_wav, "its samples are floating point"),
        (_with_size(0), "a.wav has no samples, as its header says"),
        (_with_size(0xFFFFFFFE), "a.wav is cut short: 9600 bytes of the 4294967294"),  # of a stream
        (lambda path: write_wav(path, np.zeros(8 * 61), 8), "61 s of sound, more than the 60 s allowed; cut it"),
        (lambda path: write_wav(path, np.zeros((5, 9))), "a.wav has 9 channels, more than the 8 allowed"),
        (lambda path: write_wav(path, tone(440), 96_000), "96000 samples a second, not 1 to 48000; .* -ar 16000 "),
        (
            lambda path: write_wav(path, tone(440), 44_100),
            "a.wav has 44100 samples a second, this bundle reads 8000; convert it, such as with "
            "'ffmpeg -i IN -ac 1 -ar 8000 -c:a pcm_s16le OUT.wav'",
        ),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_in_one_line(tmp_path, make, problem):
    path = tmp_path / "a.wav"
    make(path)
    with pytest.raises(InputError, match=problem) as caught:
        read_input(path, SOUND)
    assert "\n" not in str(caught.value)


def test_an_hour_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, tone(440))
    with path.open("r+b") as file:
        file.truncate(3600 * 48_000 * 4)  # sparse
    with pytest.raises(InputError, match=r"a\.wav has 691200000 bytes, more than 60 s of sound; cut it"):
        read_wav(path)


def test_which_bundles_hear(tmp_path):
    assert hears(SOUND)
    for other in (MOTION, replace(MOTION, rate_hz=100.0), replace(SOUND, rate_hz=None)):
        assert not hears(other)
    path = write_wav(tmp_path / "a.wav", tone(440))
    (tmp_path / "b.txt").write_text("no sound")
    assert find_inputs([tmp_path], SOUND) == [path]
    with pytest.raises(InputError, match=r"contains no files"):
        find_inputs([tmp_path], MOTION)
    with pytest.raises(InputError, match=r"a\.wav"):
        read_input(path, MOTION)
