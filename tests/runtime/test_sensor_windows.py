"""Tests of paraedge_runtime.sensor_windows: CSV and npz of sensors, and what is wrong with those from outside."""

import numpy as np
import pytest

from paraedge_runtime.errors import InputError
from paraedge_runtime.sensor_windows import Window, WindowShape, read_window

GOOD = "time_ms,acc_x,acc_y\n0,1,-2.5\n20,2e-3, 4\n40,.5,6\n"
NAMES = np.array(["acc_x", "acc_y"])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(GOOD, id="milliseconds"),
        pytest.param("\ufeff" + GOOD.replace("\n", "\r\n"), id="as-a-spreadsheet-writes-it"),
        pytest.param(GOOD.replace("time_ms", "timestamp"), id="as-edge-impulse-writes-it"),
        pytest.param("acc_x,time_s,acc_y\n1,100.00,-2.5\n2e-3,100.02,4\n0.5,100.04,6\n\n", id="seconds"),
        pytest.param('"time_ms","acc_x","acc_y"\n"0","1","-2.5"\n"20","0.002","4"\n"40","0.5","6"', id="quoted"),
    ],
)
def test_csv_is_read(tmp_path, content):
    path = tmp_path / "walk.csv"
    path.write_bytes(content.encode())
    window = read_window(path)
    assert window.values.dtype == np.float32
    np.testing.assert_array_equal(window.values, np.array([[1, -2.5], [2e-3, 4], [0.5, 6]], np.float32))
    assert window.channel_names == ("acc_x", "acc_y")
    assert window.rate_hz == pytest.approx(50)


def test_times_in_whole_milliseconds_are_even_enough(tmp_path):
    path = tmp_path / "fast.csv"
    times = np.floor(np.arange(400) * 2.5).astype(int)  # 400 per second: steps of 2 and 3
    path.write_text("time_ms,x\n" + "".join(f"{time},1\n" for time in times))
    assert read_window(path).rate_hz == pytest.approx(400, rel=1e-3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("", "it is empty; it must have a header and rows of numbers", id="empty"),
        pytest.param(" \n\n", "it is empty; it must have a header and rows of numbers", id="blank"),
        pytest.param("time_ms,x\n", r"it must have at least 2 rows of numbers, got 0", id="header-alone"),
        pytest.param("time_ms,x\n0,1\n", r"it must have at least 2 rows of numbers, got 1", id="one-row"),
        pytest.param("0,1\n20,2\n40,3\n", "its first line is '0,1'; it must name every column", id="no-header"),
        pytest.param("time_ms,x,x\n0,1,1\n9,1,1\n", "each differently, separated by commas", id="two-of-a-name"),
        pytest.param("time_ms,\n0,1\n9,1\n", "it must name every column", id="column-without-name"),
        pytest.param("a" * 200_000 + "\n0\n1\n", "it must name every column", id="endless-name"),
        pytest.param("x,y\n0,1\n20,2\n", "one column must be the time: .* found none among x, y", id="no-time"),
        pytest.param("time_ms;x\n0;1\n20;2\n", "separated by semicolons; separate them by commas", id="semicolons"),
        pytest.param("time_ms\tx\n0\t1\n20\t2\n", "separated by tabs; separate them by commas", id="tabs"),
        pytest.param("time_ms,time_s,x\n0,0,1\n9,9,1\n", "found time_ms, time_s", id="two-times"),
        pytest.param("time_ms,acc x\n0,1\n9,1\n", "the channel 'acc x' must be named with letters", id="odd-name"),
        pytest.param("time_ms\n0\n20\n", "only the column time_ms; add a column for each channel", id="no-channel"),
        pytest.param("time_ms,x\n0,1\n20,nan\n", "line 3, channel x is nan; every value must be a", id="nan"),
        pytest.param("time_ms,x\n0,1e39\n20,1\n", "line 2, channel x is 1e.39; every value", id="beyond-float32"),
        pytest.param("time_ms,x\nnan,1\n20,1\n", "line 2, the time is not finite", id="nan-time"),
        pytest.param("time_ms,x\n0,1\n20,\n", "line 3, column x is '', not a number", id="missing-value"),
        pytest.param("time_ms,x\n0,1\n20,1_0\n", "line 3, column x is '1_0', not a number", id="underscore"),
        pytest.param("time_ms,x,label\n0,1,walk\n9,1,walk\n", "'walk', not a number; labels are the names", id="label"),
        pytest.param("time_ms,x\n0,1\n20,1,2\n", r"line 3 has 3 value\(s\), the header names 2 columns", id="longer"),
        pytest.param("time_ms,x\n0\n20\n", r"line 2 has 1 value\(s\), the header names 2 columns", id="shorter"),
        pytest.param("time_ms,x\n0,1\n\n20,1\n", r"line 3 has 0 value\(s\)", id="gap"),
        pytest.param("time_ms,x\n0,1\n20,1\n60,1\n80,1\n100,1\n", "line 3 to 4 it moves by 40 ms, by 25 ms", id="lost"),
        pytest.param("time_ms,x\n40,1\n20,1\n0,1\n", "its time does not increase .*; sort the rows", id="backwards"),
        pytest.param("time_ms,x\n0,1\n0,1\n", "its time does not increase", id="standing-still"),
    ],
)  # fmt: skip
def test_csv_is_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "walk.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"walk\.csv: .*{said}") as refused:
        read_window(path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "walk.csv"
    path.write_bytes(b"time_ms,x\n\xff\xfe\n")
    with pytest.raises(InputError, match=r"it is not UTF-8 text .*; save it as CSV"):
        read_window(path)


def test_what_is_no_recording_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv does not exist"):
        read_window(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"none\.npz does not exist"):
        read_window(tmp_path / "none.npz")
    with pytest.raises(InputError, match=r"walk\.txt is not a window of samples; give a \.csv or \.npz file"):
        read_window(tmp_path / "walk.txt")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv cannot be read"):
        read_window(tmp_path / "folder.csv")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(InputError, match=r"large\.csv cannot be read: It has more than 67108864 bytes"):
        read_window(tmp_path / "large.csv")


def test_npz_is_read(tmp_path):
    x = np.arange(6).reshape(3, 2) / 4
    np.savez(tmp_path / "w.npz", x=x, rate_hz=50, channel_names=NAMES)
    window = read_window(tmp_path / "w.npz")
    np.testing.assert_array_equal(window.values, x.astype(np.float32))
    assert (window.rate_hz, window.channel_names) == (50.0, ("acc_x", "acc_y"))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((3, 2))}, "it has no array rate_hz, channel_names; it holds x"),
        ({}, "it has no array x, rate_hz, channel_names; it holds none"),
        (
            {"x": np.zeros(3), "rate_hz": 50, "channel_names": NAMES},
            r"x must be numbers of shape .*, got float64 of shape \(3,\)",
        ),
        (
            {"x": np.array([["a", "b"]]), "rate_hz": 50, "channel_names": NAMES},
            "x must be numbers of shape .*, got <U1",
        ),
        (
            {"x": np.zeros((3, 3)), "rate_hz": 50, "channel_names": NAMES},
            "channel_names must be 3 different",
        ),
        (
            {"x": np.zeros((3, 2)), "rate_hz": 0, "channel_names": NAMES},
            "rate_hz must be one number of samples per second, got 0",
        ),
        (
            {"x": np.zeros((3, 2)), "rate_hz": [1, 2], "channel_names": NAMES},
            r"rate_hz must be one number .*, got \[1, 2\]",
        ),
        ({"x": np.full((3, 2), np.nan), "rate_hz": 50, "channel_names": NAMES}, "row 0, channel acc_x is nan"),
    ],
)
def test_npz_is_refused_by_name(tmp_path, arrays, said):
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(InputError, match=rf"w\.npz: {said}"):
        read_window(tmp_path / "w.npz")


WINDOW = Window(np.array([[1, 2], [3, 4], [5, 6]], np.float32), 50.0, ("acc_x", "acc_y"))


def test_a_window_is_fitted_by_the_names_of_its_channels():
    fitted = WINDOW.fitted(WindowShape(3, 51.0, ("acc_y", "acc_x")), "the bundle")
    np.testing.assert_array_equal(fitted, [[2, 1], [4, 3], [6, 5]])
    assert fitted.flags.c_contiguous


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            WindowShape(3, 50, ("acc_x",)),
            "the channels are acc_x, acc_y, the bundle reads acc_x; rename, add or",
        ),
        (WindowShape(3, 50, ("acc_x", "z")), "the channels are acc_x, acc_y, the bundle reads acc_x, z; rename"),
        (WindowShape(3, 53, WINDOW.channel_names), "the rate is 50 samples per second, the bundle reads 53; resample"),
        (WindowShape(4, 50, WINDOW.channel_names), r"the window has 3 samples, the bundle reads 4 \(0.08 s\); cut win"),
        (WindowShape(2, 50, WINDOW.channel_names), r"the window has 3 samples, the bundle reads 2 \(0.04 s\); cut win"),
    ],
)
def test_another_window_is_refused_with_what_to_do(wanted, said):
    with pytest.raises(InputError, match=said):
        WINDOW.fitted(wanted, "the bundle")
