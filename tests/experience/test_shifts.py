"""Shifts of states: hand numbers, what leaves them alone, and JPEG as a codec writes it."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from policysmith.common.errors import SettingError, ShapeError
from policysmith.experience.shifts import (
    blur,
    brightness_contrast,
    compress,
    perspective,
    rotate,
    translate,
)

ALL = [translate, blur, brightness_contrast, rotate, perspective, compress]


def random_planes(rows=3, height=10, width=12, planes=2, seed=0):
    return torch.rand(rows, height, width, planes, generator=torch.Generator().manual_seed(seed))


def point(row, column, side=5):
    planes = torch.zeros(1, side, side, 1)
    planes[0, row, column, 0] = 1.0
    return planes


@pytest.mark.parametrize("shift", ALL)
def test_a_shift_keeps_shape_and_dtype_and_treats_rows_and_planes_alike(shift):
    states = random_planes()
    moved = shift(states)
    assert moved.shape == states.shape
    assert moved.dtype == states.dtype
    assert torch.allclose(shift(states[1:2]), moved[1:2], atol=1e-6)
    assert torch.allclose(shift(states.flip(3)), moved.flip(3), atol=1e-6)


@pytest.mark.parametrize(
    "nothing",
    [
        partial(translate, right=0),
        partial(brightness_contrast, contrast=1.0, brightness=0.0),
        partial(rotate, degrees=0.0),
        partial(perspective, tilt=0.0),
        partial(blur, sigma=0.01),
    ],
)
def test_a_shift_of_nothing_is_the_identity(nothing):
    states = random_planes()
    assert torch.allclose(nothing(states), states, atol=1e-5)


def test_translation_moves_cells_and_fills_with_zero():
    assert torch.equal(translate(point(1, 1)), point(1, 2))
    assert torch.equal(translate(point(1, 1), right=-1, down=2), point(3, 0))
    assert translate(point(1, 4)).sum() == 0


def test_a_blur_spreads_a_point_evenly_and_keeps_a_constant():
    spread = blur(point(2, 2), sigma=0.5)[0, :, :, 0]
    assert float(spread[2, 2]) == pytest.approx((1 / (1 + 2 * np.exp(-2) + 2 * np.exp(-8))) ** 2, rel=1e-5)
    assert float(spread[1, 2] / spread[2, 2]) == pytest.approx(np.exp(-2), rel=1e-5)
    assert torch.allclose(spread, spread.T)
    assert torch.allclose(blur(torch.full((1, 5, 5, 1), 0.7)), torch.full((1, 5, 5, 1), 0.7))


def test_brightness_and_contrast_are_clipped():
    states = torch.tensor([0.0, 0.4, 1.0]).view(1, 1, 3, 1)
    assert brightness_contrast(states, contrast=1.5, brightness=0.1).flatten().tolist() == pytest.approx(
        [0.1, 0.7, 1.0]
    )


def test_a_quarter_turn_is_counterclockwise():
    states = random_planes(height=6, width=6)
    assert torch.allclose(rotate(states, degrees=90), torch.rot90(states, 1, (1, 2)), atol=1e-5)


def test_a_tilt_takes_the_upper_corners_inwards_and_leaves_the_bottom():
    side, tilt = 11, 0.4  # the top edge of length 10 becomes 6: corners at columns 2 and 8
    assert float(perspective(point(0, 0, side), tilt=tilt)[0, 0, 2, 0]) == pytest.approx(1.0, abs=1e-5)
    assert float(perspective(point(0, 10, side), tilt=tilt)[0, 0, 8, 0]) == pytest.approx(1.0, abs=1e-5)
    states = random_planes(height=side, width=side)
    assert torch.allclose(perspective(states, tilt=tilt)[:, -1], states[:, -1], atol=1e-5)


@pytest.mark.parametrize("quality", [10, 50, 90])
def test_compression_is_what_a_jpeg_codec_leaves(quality):
    grey = np.random.default_rng(0).integers(0, 256, (24, 16), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG", quality=quality)
    theirs = np.asarray(Image.open(buffer)).astype(float)
    states = torch.from_numpy(grey.astype(np.float32) / 255)[None, :, :, None]
    ours = compress(states, quality=quality)[0, :, :, 0].numpy() * 255
    # The codec's transforms are in integers, so that a frequency may be rounded to the other side.
    assert np.abs(ours - theirs).max() <= 3
    assert np.abs(ours - theirs).mean() < 1


def test_sides_that_are_no_multiple_of_a_block_are_filled_up_and_cut_again():
    constant = torch.full((1, 10, 10, 1), 0.6)
    assert torch.allclose(compress(constant), constant, atol=0.02)


def test_what_is_no_planes_is_refused():
    for shift in ALL:
        with pytest.raises(ShapeError, match="height, width, plane"):
            shift(torch.zeros(2, 100))
        with pytest.raises(ShapeError, match="uint8"):
            shift(torch.zeros(1, 5, 5, 1, dtype=torch.uint8))


def test_settings_out_of_range_are_refused():
    with pytest.raises(SettingError, match="sigma"):
        blur(random_planes(), sigma=0.0)
    with pytest.raises(SettingError, match="tilt"):
        perspective(random_planes(), tilt=1.0)
    with pytest.raises(SettingError, match="quality"):
        compress(random_planes(), quality=0)
