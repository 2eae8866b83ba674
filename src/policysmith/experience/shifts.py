"""States as another camera, screen or wire would bring them: moved, turned, blurred, brighter, compressed.

Each shift is a function of states [row, height, width, plane] that returns states of the same shape. They
are ways in which data shift without anybody's intent, so they know no policy; what they do to one is asked
by `evaluation.directions`. Beyond the edge a shift finds zeros, and a blur the edge's own value.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError, ShapeError

Planes = Float[Tensor, "row height width plane"]

BLOCK = 8
"""Side of the blocks that JPEG transforms."""
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
"""How coarsely each frequency of a block is kept at quality 50 (the JPEG standard, annex K, table K.1)."""


def translate(states: Planes, *, right: int = 1, down: int = 0) -> Planes:
    """Everything `right` columns and `down` rows on, cells that nothing moves into being 0."""
    _check(states)
    height, width = states.shape[1:3]
    padded = F.pad(states, (0, 0, abs(right), abs(right), abs(down), abs(down)))
    top, left = abs(down) - down, abs(right) - right
    return padded[:, top : top + height, left : left + width]


def blur(states: Planes, *, sigma: float = 0.5) -> Planes:
    """A Gaussian blur of `sigma` pixels, cut off at three of them."""
    _check(states)
    if not sigma > 0:
        raise SettingError(f"sigma is {sigma}", expected="above 0, in pixels")
    reach = max(1, math.ceil(3 * sigma))
    place = torch.arange(-reach, reach + 1, dtype=states.dtype)
    kernel = (-0.5 * (place / sigma).square()).exp()
    kernel = kernel / kernel.sum()
    images = F.pad(states.movedim(3, 1), (reach,) * 4, mode="replicate")
    rows = images.unfold(2, 2 * reach + 1, 1) @ kernel
    return (rows.unfold(3, 2 * reach + 1, 1) @ kernel).movedim(1, 3)


def brightness_contrast(
    states: Planes, *, contrast: float = 1.0, brightness: float = 0.0, low: float = 0.0, high: float = 1.0
) -> Planes:
    """Every value times `contrast` plus `brightness`, within the bounds."""
    _check(states)
    return (contrast * states + brightness).clamp(low, high)


def rotate(states: Planes, *, degrees: float = 5.0) -> Planes:
    """Turned counterclockwise about the middle, values interpolated between the four nearest cells."""
    _check(states)
    height, width = states.shape[1:3]
    turn = math.radians(degrees)
    x, y = _places(states)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    # Where the cell came from: the turn undone, with y pointing down.
    from_x = math.cos(turn) * x - math.sin(turn) * y
    from_y = math.sin(turn) * x + math.cos(turn) * y
    return _read(states, from_x + (width - 1) / 2, from_y + (height - 1) / 2)


def perspective(states: Planes, *, tilt: float = 0.1) -> Planes:
    """Seen from below: the top edge shrinks to a share 1 - `tilt` of its length, the bottom edge stays.

    The corners of the grid go to the corners of that trapezium; between them lines stay straight.
    """
    _check(states)
    if not -1 < tilt < 1:
        raise SettingError(f"tilt is {tilt}", expected="between -1 and 1")
    height, width = states.shape[1:3]
    right, bottom = width - 1.0, height - 1.0
    corners = torch.tensor([[0, 0], [right, 0], [right, bottom], [0, bottom]], dtype=torch.double)
    inset = tilt * right / 2
    seen = corners + torch.tensor([[inset, 0], [-inset, 0], [0, 0], [0, 0]], dtype=torch.double)
    matrix = _homography(seen, corners)  # from what is seen back to where it was
    x, y = (place.double() for place in _places(states))
    source = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ matrix.T
    source = (source[..., :2] / source[..., 2:]).to(states.dtype)
    return _read(states, source[..., 0], source[..., 1])


def compress(states: Planes, *, quality: int = 50, low: float = 0.0, high: float = 1.0) -> Planes:
    """What JPEG at a `quality` of 1 to 100 leaves of each plane, read as grey values between the bounds.

    Blocks of 8 x 8 are brought to frequencies, rounded as the standard's luminance table says, and brought
    back; sides that are no multiple of 8 are filled up with their last value.
    """
    _check(states)
    if not 1 <= quality <= 100:
        raise SettingError(f"quality is {quality}", expected="1 to 100")
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = torch.tensor(LUMINANCE, dtype=torch.double)
    table = ((table * scale + 50) / 100).floor().clamp(1, 255)
    height, width = states.shape[1:3]
    images = (states.movedim(3, 1).double() - low) / (high - low) * 255 - 128
    images = F.pad(images, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    blocks = images.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)
    cosine = _cosines()
    kept = (cosine @ blocks @ cosine.T / table).round() * table
    back = (cosine.T @ kept @ cosine).movedim(4, 3).flatten(4, 5).flatten(2, 3)[..., :height, :width]
    grey = (back.round() + 128).clamp(0, 255) / 255
    return (grey * (high - low) + low).to(states.dtype).movedim(1, 3)


# ---- parts -------------------------------------------------------------------------------------------


def _places(states: Planes) -> tuple[Tensor, Tensor]:
    """Column and row of every cell, [height, width] each."""
    height, width = states.shape[1:3]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=states.dtype), torch.arange(width, dtype=states.dtype), indexing="ij"
    )
    return x, y


def _read(states: Planes, x: Float[Tensor, "height width"], y: Float[Tensor, "height width"]) -> Planes:
    """The states at these columns and rows, between cells interpolated, outside of the grid 0."""
    height, width = states.shape[1:3]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    images = states.movedim(3, 1)
    read = F.grid_sample(images, grid.expand(len(states), -1, -1, -1), align_corners=False)
    return read.movedim(1, 3)


def _homography(source: Float[Tensor, "4 2"], target: Float[Tensor, "4 2"]) -> Float[Tensor, "3 3"]:
    """The projective map that takes four points to four others."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source.tolist(), target.tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    solved = torch.linalg.solve(
        torch.tensor(rows, dtype=torch.double), torch.tensor(values, dtype=torch.double)
    )
    return torch.cat([solved, torch.ones(1, dtype=torch.double)]).view(3, 3)


def _cosines() -> Float[Tensor, "frequency place"]:
    """The orthonormal discrete cosine transform of a block's side."""
    frequency = torch.arange(BLOCK, dtype=torch.double)[:, None]
    place = torch.arange(BLOCK, dtype=torch.double)
    matrix = (math.pi / BLOCK * (place + 0.5) * frequency).cos() * math.sqrt(2 / BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix


def _check(states: Tensor) -> None:
    if states.dim() != 4 or not states.is_floating_point():
        raise ShapeError(
            f"states of shape {list(states.shape)}, {states.dtype}",
            expected="floats [row, height, width, plane]",
            cure="reshape vectors to the planes that they hold",
        )
