"""Cells and grids: which there are, and what is refused."""

import math

import msgspec
import pytest

from paraedge_measure.deadlines.cells import Cell, grid
from paraedge_runtime.errors import InputError

VALID = {
    "deadlines": (0.4, 0.7),
    "arrivals": ("closed", "periodic"),
    "interference": ("none", "square"),
    "requests": 64,
    "load": None,
    "hogs": 1,
    "square_period_s": 0.2,
    "quota": 0.5,
}


def test_a_grid_is_every_combination():
    cells = grid(**VALID)
    assert len(cells) == len(set(cells)) == 8
    assert [cell.label for cell in cells[:3]] == [
        "closed, none, deadline 0.4",
        "closed, none, deadline 0.7",
        "closed, square, deadline 0.4",
    ]


def test_what_does_not_apply_makes_no_difference():
    one = grid(**{**VALID, "interference": ("none",), "arrivals": ("closed",)})
    other = grid(
        **{**VALID, "interference": ("none",), "arrivals": ("closed",), "hogs": 7, "load": 0.2, "square_period_s": 5.0}
    )
    assert one == other


def test_repeated_names_make_one_cell():
    assert len(grid(**{**VALID, "deadlines": (0.7, 0.7), "arrivals": ("closed", "closed")})) == 2


def test_a_cell_survives_json():
    for cell in grid(**VALID):
        assert msgspec.json.decode(msgspec.json.encode(cell), type=Cell) == cell


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"deadlines": (0.0,)}, r"invalid deadline 0\.0: give a multiple of the full model's time"),
        ({"deadlines": (-1.0,)}, r"invalid deadline -1\.0"),
        ({"deadlines": (math.nan,)}, "invalid deadline nan"),
        ({"deadlines": (math.inf,)}, "invalid deadline inf"),
        ({"deadlines": ()}, "name at least one deadline"),
        ({"arrivals": ()}, "name at least one"),
        ({"arrivals": ("rain",)}, "unknown arrivals 'rain'; choose from closed, periodic, poisson, bursty"),
        (
            {"interference": ("noise",)},
            "unknown interference 'noise'; choose from none, compute, memory, square, quota",
        ),
        ({"requests": 0}, "--requests must be an integer of at least 1, got 0"),
        ({"requests": 10**9}, "--requests must be at most 10000000, got 1000000000"),
        ({"load": 0.0}, r"--load must be above 0, got 0\.0"),
        ({"load": math.nan}, "--load must be above 0, got nan"),
        ({"hogs": 0}, "--hogs must be an integer of at least 1, got 0"),
        ({"hogs": 10**5}, "--hogs must be at most 256, got 100000"),
        ({"square_period_s": 0.0}, r"--square-period-s must be above 0 and at most 3600, got 0\.0"),
        ({"square_period_s": 1e308}, r"--square-period-s must be above 0 and at most 3600, got 1e\+308"),
        ({"quota": 0.0}, r"--quota must be above 0 .*, got 0\.0"),
        ({"quota": 1.5}, r"--quota must be above 0 .*, got 1\.5"),
    ],
)
def test_grid_refuses(change, problem):
    with pytest.raises(InputError, match=problem):
        grid(**{**VALID, **change})
