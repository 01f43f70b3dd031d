"""Figures: what they are called is drawn as it is."""

import numpy as np
import pytest
from PIL import Image

from paraedge_measure.plots.figures import png_figure


def _drawn(path, title):
    with png_figure(path, 4.0, 3.0) as figure:
        axes = figure.subplots()
        axes.plot([1, 2], label=title)
        axes.set_title(title)
        figure.suptitle(title)
        figure.legend()
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("title", [r"pictures $\frac$ [b]", "100 $ or $ 200"])
def test_a_title_is_no_formula(tmp_path, title):
    picture = _drawn(tmp_path / "p.png", title)
    assert not np.array_equal(picture, _drawn(tmp_path / "q.png", title.replace("$", "")))
