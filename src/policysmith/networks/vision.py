"""Pictures as a few numbers each: a small convolutional network that says where things are.

Every stage halves the picture; the last one's maps are read by a spatial softmax,

    (x, y) of a map = sum over pixels of softmax(map) * (x, y of the pixel),

so that a map becomes the place of what it looks for, and a linear layer mixes the places. GroupNorm and not
BatchNorm, because an average of the weights has no statistics of a batch. Made for pictures of 64 to 96
pixels and for CPUs: three stages and thirty thousand weights where Diffusion Policy has a ResNet-18.

Pictures are uint8 [..., height, width, 3] until they are encoded. That layout is the one in which a CPU
convolves fastest, so permuting the axes is all that is done to it. A stack of the last few pictures,
[..., time, height, width, 3], is one picture of so many more colours: what moves is seen by the first layer.

Sources: Levine et al. 2016, section 5.1 (spatial softmax); Mandlekar et al. 2021 and Chi et al. 2023 (random
crops in training, GroupNorm); Yarats et al. 2021 (random shifts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, UInt8
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.observations import Observation, are_pictures, parts_of
from policysmith.common.saving import saveable

GROUP = 8
"""Channels that are normalised together."""


def random_crop(
    pictures: UInt8[Tensor, "row *time height width 3"], size: tuple[int, int], *, rng: torch.Generator
) -> UInt8[Tensor, "row *time crop_height crop_width 3"]:
    """A window of `size` of each row's pictures, at a place drawn from `rng`, the same for all its times."""
    slack = _slack(pictures, size)
    if slack == (0, 0):
        return pictures
    places = [torch.randint(most + 1, (len(pictures),), generator=rng, device=rng.device) for most in slack]
    return torch.stack(
        [
            _window(picture, top, left, size)
            for picture, top, left in zip(pictures, *(place.tolist() for place in places), strict=True)
        ]
    )


def random_shift(
    pictures: UInt8[Tensor, "row *time height width 3"], *, pad: int = 4, rng: torch.Generator
) -> UInt8[Tensor, "row *time height width 3"]:
    """Each row's pictures moved by up to `pad` pixels either way, drawn from `rng`, alike at all its times.

    What moves in is the edge repeated. Source: Yarats et al. 2021 (DrQ), section 3.1.
    """
    if pad < 0:
        raise SettingError(f"shifts of up to {pad} pixels", expected="0 or more")
    return random_crop(_framed(pictures, pad), (pictures.shape[-3], pictures.shape[-2]), rng=rng)


def shifted(observation: Observation, *, pad: int = 4, rng: torch.Generator) -> Observation:
    """The observation with every picture of it moved at random, each row and camera on its own."""
    if isinstance(observation, Tensor):
        return observation
    parts: dict[str, Tensor] = parts_of(observation)
    moved = {name: random_shift(part, pad=pad, rng=rng) for name, part in parts.items() if are_pictures(part)}
    return TensorDict(parts | moved, batch_size=observation.batch_size)


def centre_crop(
    pictures: UInt8[Tensor, "*batch height width 3"], size: tuple[int, int]
) -> UInt8[Tensor, "*batch crop_height crop_width 3"]:
    """The middle of the pictures; pictures of that size are returned as they are."""
    top, left = (most // 2 for most in _slack(pictures, size))
    return _window(pictures, top, left, size)


@saveable
class PictureEncoder(nn.Module):
    """Encodes the pictures of one or more cameras, each camera by a network of its own.

    - `cameras`: their names; `sizes`: (height, width) of the pictures of each, or (frames, height, width)
      where they come in stacks; `crops`: (height, width) of the window of each that is encoded, by default
      all of it.
    - `widths`: channels per stage, multiples of 8; `keypoints`: maps that are reduced to a place each;
      `features`: numbers per picture.

    `output_size` is the width of what comes out: `features` per camera, in the order of `cameras`.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        sizes: Sequence[Sequence[int]],
        *,
        crops: Sequence[tuple[int, int]] | None = None,
        widths: Sequence[int] = (16, 32, 64),
        keypoints: int = 32,
        features: int = 64,
    ) -> None:
        super().__init__()
        crops = [(size[-2], size[-1]) for size in sizes] if crops is None else crops
        if not cameras or len(set(cameras)) < len(cameras) or not len(cameras) == len(sizes) == len(crops):
            raise SettingError(
                f"an encoder was given cameras {list(cameras)}, {len(sizes)} sizes and {len(crops)} crops",
                expected="cameras with names of their own, and as many of each",
            )
        if not widths or any(width < 1 or width % GROUP for width in widths):
            raise SettingError(
                f"an encoder of pictures was given the widths {list(widths)}",
                expected=f"at least one, each a multiple of {GROUP}",
            )
        for camera, size, crop in zip(cameras, sizes, crops, strict=True):
            _check_crop((size[-2], size[-1]), crop, where=f"camera '{camera}'")
        self.pictures = {camera: tuple(size) for camera, size in zip(cameras, sizes, strict=True)}
        self.crops = {camera: (crop[0], crop[1]) for camera, crop in zip(cameras, crops, strict=True)}
        self.output_size = features * len(cameras)
        # A list and not a dictionary: the names of cameras may hold dots, those of modules may not.
        self.encoders = nn.ModuleList(
            _Camera(crop, widths, keypoints, features, frames=size[0] if len(size) == 3 else 0)
            for size, crop in zip(sizes, crops, strict=True)
        )

    def forward(self, observation: Mapping[str, Tensor] | TensorDict) -> Float[Tensor, "*batch features"]:
        """The features of an observation with parts, uint8 [*batch, (time,) height, width, 3] of each camera.

        Pictures are as large as the cameras', of which the middle is encoded, or cropped already. Raises
        `ShapeError` where they are neither.
        """
        return torch.cat(
            [
                encode(self._windows(observation[camera], camera))
                for camera, encode in zip(self.pictures, self.encoders, strict=True)
            ],
            dim=-1,
        )

    def random_crops(self, observation: TensorDict, *, rng: torch.Generator) -> TensorDict:
        """The observation [row, time] with its pictures cropped at random, alike at all times of a row."""
        crops = {
            camera: random_crop(observation[camera], size, rng=rng) for camera, size in self.crops.items()
        }
        return observation.clone(recurse=False).update(crops)

    def _windows(self, pictures: Tensor, camera: str) -> Tensor:
        size = tuple(pictures.shape[-3:-1])
        whole = self.pictures[camera][-2:]
        if pictures.dtype != torch.uint8 or size not in (whole, self.crops[camera]):
            raise ShapeError(
                f"{str(pictures.dtype).removeprefix('torch.')} pictures of {size[0]} x {size[1]} pixels "
                f"from camera '{camera}'",
                expected="uint8 of {} x {}, as the encoder was made for".format(*whole),
            )
        return centre_crop(pictures, self.crops[camera])


class _Camera(nn.Module):
    """uint8 [*batch, height, width, 3] -> [*batch, features]; of `frames` at once where that is not 0."""

    def __init__(
        self, size: tuple[int, int], widths: Sequence[int], keypoints: int, features: int, *, frames: int
    ) -> None:
        super().__init__()
        self.axes = 4 if frames else 3
        stages: list[nn.Module] = []
        for index, (before, after) in enumerate(zip((3 * max(frames, 1), *widths), widths, strict=False)):
            kernel = 3 if index else 5
            stages += [nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2)]
            stages += [nn.GroupNorm(after // GROUP, after), nn.ReLU()]
        self.stages = nn.Sequential(*stages, nn.Conv2d(widths[-1], keypoints, 1))
        height, width = (-(-side // 2 ** len(widths)) for side in size)
        self.places = SpatialSoftmax(height, width)
        self.mix = nn.Linear(2 * keypoints, features)

    def forward(self, pictures: Tensor) -> Tensor:
        flat = pictures.reshape(-1, *pictures.shape[-self.axes :])
        if self.axes == 4:
            flat = flat.movedim(1, 3).flatten(3)  # times behind the places, with the colours
        flat = flat.permute(0, 3, 1, 2)
        # In place, for a copy of all pictures costs as much as a convolution does.
        maps = self.stages(flat.float().mul_(1 / 127.5).sub_(1))
        return self.mix(self.places(maps)).unflatten(0, pictures.shape[: -self.axes])


class SpatialSoftmax(nn.Module):
    """The place [x, y] in [-1, 1] at which each map is high: the softmax over its pixels as weights."""

    grid: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        y, x = torch.meshgrid(_centres(height), _centres(width), indexing="ij")
        self.register_buffer("grid", torch.stack([x, y], dim=-1).flatten(0, 1), persistent=False)

    def forward(self, maps: Float[Tensor, "batch map height width"]) -> Float[Tensor, "batch places"]:
        """Places of all maps, x and y of the first, of the second..."""
        return (maps.flatten(2).softmax(dim=2) @ self.grid).flatten(1)


def _centres(count: int) -> Tensor:
    """Where the centres of so many pixels lie in [-1, 1]."""
    return (2 * torch.arange(count) + 1) / count - 1


def _framed(pictures: Tensor, pad: int) -> Tensor:
    """The pictures with their outermost pixels repeated `pad` times on every side."""
    for axis in (-3, -2):
        first, last = pictures.narrow(axis, 0, 1), pictures.narrow(axis, pictures.shape[axis] - 1, 1)
        size = [pad if at == axis else -1 for at in range(-pictures.dim(), 0)]
        pictures = torch.cat([first.expand(size), pictures, last.expand(size)], dim=axis)
    return pictures


def _window(pictures: Tensor, top: int, left: int, size: tuple[int, int]) -> Tensor:
    return pictures[..., top : top + size[0], left : left + size[1], :]


def _slack(pictures: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    """How far a window of `size` can be moved, downwards and to the right."""
    height, width = pictures.shape[-3:-1]
    _check_crop((height, width), size)
    return height - size[0], width - size[1]


def _check_crop(picture: tuple[int, int], crop: tuple[int, int], *, where: str = "") -> None:
    if not all(1 <= part <= whole for part, whole in zip(crop, picture, strict=True)):
        raise SettingError(
            f"a crop of {crop[0]} x {crop[1]} pixels out of pictures of {picture[0]} x {picture[1]}",
            where=where,
            expected="a crop of at least one pixel, no larger than the picture",
        )
