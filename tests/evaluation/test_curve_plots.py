import numpy as np
import pytest

from policysmith.common.errors import DataError
from policysmith.evaluation.curve_plots import curve_bands, profiles
from policysmith.evaluation.drawing import LIGHT, palette, svg
from policysmith.evaluation.learning_curves import Band

STEPS = np.array([0.0, 1000.0])
BANDS = {
    "ours": Band(STEPS, np.array([0.2, 0.8]), np.array([0.1, 0.7]), np.array([0.3, 0.9])),
    "theirs": Band(STEPS, np.array([0.1, 0.4]), np.array([0.0, 0.3]), np.array([0.2, 0.5])),
}


@pytest.mark.parametrize("draw", [lambda bands, **more: curve_bands(bands, "return", **more), profiles])
def test_every_label_has_its_line_and_its_band(draw):
    axes = draw(BANDS).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.2, 0.8], [0.1, 0.4]]
    edges = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (0.1, 0.9)


def test_a_label_keeps_its_colour():
    axes = profiles({"theirs": BANDS["theirs"]}, palette=palette(list(BANDS))).axes[0]
    assert axes.lines[0].get_color() == LIGHT.colours[1]


def test_a_profile_is_drawn_in_stairs_and_as_shares():
    axes = profiles(BANDS).axes[0]
    assert axes.lines[0].get_drawstyle() == "steps-post"
    assert "50%" in [axes.yaxis.get_major_formatter()(0.5, None)]
    assert "share of runs above" in svg(profiles(BANDS))


def test_no_bands_are_refused():
    with pytest.raises(DataError):
        curve_bands({}, "return")
