"""Figures: what they are called is drawn as it is."""

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from paraedge_measure.plots.figures import png_figure


def _draw(figure, title):
    axes = figure.subplots()
    axes.plot([1, 2], label=title)
    axes.set_title(title)
    figure.suptitle(title)
    figure.legend()


def _pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("title", [r"images $\frac$ [b]", "100 $ or $ 200", "plain"])
def test_a_title_is_no_formula(tmp_path, title):
    with png_figure(tmp_path / "drawn.png", 4.0, 3.0) as figure:
        _draw(figure, title)
    with rc_context({"text.parse_math": False}):  # matplotlib's own way, for every text
        figure = Figure(figsize=(4.0, 3.0), dpi=120, layout="constrained")
        _draw(figure, title)
        figure.savefig(tmp_path / "right.png")
    np.testing.assert_array_equal(_pixels(tmp_path / "drawn.png"), _pixels(tmp_path / "right.png"))
