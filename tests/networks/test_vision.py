"""Crops and the encoder of pictures: what is cut out, where things are said to be, what is refused."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.rng import seeded_initialisation
from policysmith.common.saving import from_pretrained, save_pretrained
from policysmith.networks.vision import PictureEncoder, SpatialSoftmax, centre_crop, random_crop, random_shift

torch.set_num_threads(1)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(rows: int = 3, times: int = 2, height: int = 6, width: int = 8) -> torch.Tensor:
    """Pictures whose pixel says where it is (16 y + x), the same in every row, time and colour."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (16 * y + x).to(torch.uint8)[None, None, ..., None].expand(rows, times, height, width, 3).clone()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, shape, generator=rng(seed), dtype=torch.uint8)


def encoder(**options) -> PictureEncoder:
    with seeded_initialisation(0):
        return PictureEncoder(
            ["front.top", "wrist"], [(16, 20), (12, 12)], widths=(8, 8), features=5, **options
        )


# ---- crops -------------------------------------------------------------------------------------------


def test_a_random_crop_is_a_window_of_the_picture_alike_at_all_times_of_a_row():
    cropped = random_crop(numbered(rows=20), (4, 5), rng=rng())
    assert cropped.shape == (20, 2, 4, 5, 3)
    assert cropped.dtype == torch.uint8
    corner = cropped[:, :1, :1, :1, :1].int()
    window = 16 * torch.arange(4)[:, None] + torch.arange(5)
    assert torch.equal(cropped.int(), (corner + window[None, None, :, :, None]).expand(20, 2, 4, 5, 3))


def test_a_shift_is_a_padded_picture_cropped_back():
    pictures = noise(40, 2, 6, 8, 3)
    shifted = random_shift(pictures, pad=2, rng=rng())
    flat = pictures.flatten(0, 1).permute(0, 3, 1, 2).float()
    padded = torch.nn.functional.pad(flat, (2, 2, 2, 2), mode="replicate").permute(0, 2, 3, 1)
    padded = padded.to(torch.uint8).unflatten(0, (40, 2))
    found = set()
    for row in range(40):
        places = [
            (dy, dx)
            for dy in range(5)
            for dx in range(5)
            if torch.equal(padded[row, :, dy : dy + 6, dx : dx + 8], shifted[row])
        ]
        assert len(places) == 1  # alike at both times
        found |= set(places)
    assert len(found) > 12


def test_a_shift_by_nothing_changes_nothing_and_one_below_is_refused():
    pictures = noise(3, 6, 8, 3)
    assert torch.equal(random_shift(pictures, pad=0, rng=rng()), pictures)
    assert torch.equal(random_shift(pictures, rng=rng(1)), random_shift(pictures, rng=rng(1)))
    with pytest.raises(SettingError, match="-1 pixels"):
        random_shift(pictures, pad=-1, rng=rng())


def test_random_crops_reach_every_place_and_differ_between_rows():
    corners = random_crop(numbered(rows=400, times=1), (4, 5), rng=rng())[:, 0, 0, 0, 0]
    assert set(corners.tolist()) == {16 * top + left for top in range(3) for left in range(4)}


def test_random_crops_repeat_with_their_stream():
    pictures = numbered(rows=20)
    assert torch.equal(random_crop(pictures, (4, 5), rng=rng(1)), random_crop(pictures, (4, 5), rng=rng(1)))
    assert not torch.equal(
        random_crop(pictures, (4, 5), rng=rng(1)), random_crop(pictures, (4, 5), rng=rng(2))
    )


def test_the_centre_crop_leaves_as_much_on_either_side():
    assert centre_crop(numbered(), (4, 4))[0, 0, :, :, 0].tolist() == [
        [16 * y + x for x in (2, 3, 4, 5)] for y in (1, 2, 3, 4)
    ]


def test_a_crop_of_the_pictures_own_size_changes_nothing_and_draws_nothing():
    pictures, stream = numbered(), rng()
    before = stream.get_state()
    assert torch.equal(random_crop(pictures, (6, 8), rng=stream), pictures)
    assert torch.equal(centre_crop(pictures, (6, 8)), pictures)
    assert torch.equal(stream.get_state(), before)


@pytest.mark.parametrize("size", [(7, 8), (6, 9), (0, 4)])
def test_a_crop_that_is_no_part_of_the_picture_is_refused(size):
    with pytest.raises(SettingError, match="out of pictures of 6 x 8"):
        centre_crop(numbered(), size)
    with pytest.raises(SettingError, match="out of pictures of 6 x 8"):
        random_crop(numbered(), size, rng=rng())


# ---- the encoder -------------------------------------------------------------------------------------


def test_a_spatial_softmax_says_where_the_map_is_high():
    maps = torch.full((1, 2, 4, 8), -100.0)
    maps[0, 0, 0, 7] = 100.0  # the first row, the last column
    maps[0, 1, 2, :] = 100.0  # all of the third row
    places = SpatialSoftmax(4, 8)(maps)
    torch.testing.assert_close(places, torch.tensor([[7 / 8, -3 / 4, 0.0, 1 / 4]]))


def test_features_are_per_picture_in_the_order_of_the_cameras():
    eyes = encoder()
    seen = {"front.top": noise(3, 2, 16, 20, 3), "wrist": noise(3, 2, 12, 12, 3, seed=1)}
    features = eyes(seen)
    assert features.shape == (3, 2, eyes.output_size) == (3, 2, 10)
    other = eyes(seen | {"wrist": noise(3, 2, 12, 12, 3, seed=2)})
    assert torch.equal(features[..., :5], other[..., :5])
    assert not torch.equal(features[..., 5:], other[..., 5:])
    alone = eyes({name: part[1:2, 1:] for name, part in seen.items()})
    torch.testing.assert_close(alone[0, 0], features[1, 1])


def test_pictures_are_cropped_in_the_middle_unless_they_are_cropped_already():
    eyes = encoder(crops=[(10, 12), (12, 12)])
    seen = {"front.top": noise(3, 2, 16, 20, 3), "wrist": noise(3, 2, 12, 12, 3)}
    middle = seen | {"front.top": centre_crop(seen["front.top"], (10, 12))}
    assert torch.equal(eyes(seen), eyes(middle))
    outside = seen | {"front.top": seen["front.top"].clone()}
    outside["front.top"][..., :3, :, :] = 0
    assert torch.equal(eyes(outside), eyes(seen))


def test_random_crops_leave_other_parts_and_the_callers_observation_alone():
    eyes = encoder(crops=[(10, 12), (12, 12)])
    parts = {
        "state": torch.ones(3, 2, 1),
        "front.top": noise(3, 2, 16, 20, 3),
        "wrist": noise(3, 2, 12, 12, 3),
    }
    seen = TensorDict(parts, batch_size=[3, 2])
    cropped = eyes.random_crops(seen, rng=rng())
    assert cropped["front.top"].shape == (3, 2, 10, 12, 3)
    assert torch.equal(cropped["wrist"], parts["wrist"])
    assert torch.equal(cropped["state"], parts["state"])
    assert seen["front.top"].shape == (3, 2, 16, 20, 3)


def test_every_weight_gets_a_gradient():
    eyes = encoder()
    seen = {"front.top": noise(3, 2, 16, 20, 3), "wrist": noise(3, 2, 12, 12, 3)}
    eyes(seen).square().sum().backward()
    without = {name for name, weight in eyes.named_parameters() if not bool(weight.grad.any())}
    # A constant added to a whole map moves no place: the bias of the last convolution gets at most rounding.
    assert without <= {f"encoders.{camera}.stages.6.bias" for camera in (0, 1)}


def test_an_encoder_learns_where_a_dot_is():
    """A few steps suffice to read a position off pictures to a fraction of their width."""
    place = torch.rand(256, 2, generator=rng())
    grid = (torch.arange(24) + 0.5) / 24
    far = (grid[:, None] - place[:, 1, None, None]) ** 2 + (grid[None, :] - place[:, 0, None, None]) ** 2
    pictures = torch.where(far[..., None] < 0.12**2, 255, 30).to(torch.uint8).expand(-1, -1, -1, 3)
    with seeded_initialisation(0):
        eyes = PictureEncoder(["top"], [(24, 24)], widths=(8, 16), features=2)
    optimizer = torch.optim.Adam(eyes.parameters(), lr=1e-2)
    for step in range(60):
        rows = torch.arange(64) + 64 * (step % 3)
        loss = (eyes({"top": pictures[rows]}) - place[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = (eyes({"top": pictures[192:]}) - place[192:]).square().mean().sqrt()
    assert float(error) < 0.08  # saying the middle always would be wrong by 0.29


def test_a_saved_encoder_sees_the_same(tmp_path):
    eyes = encoder(crops=[(10, 12), (12, 12)])
    save_pretrained(eyes, tmp_path / "eyes")
    seen = {"front.top": noise(3, 2, 16, 20, 3), "wrist": noise(3, 2, 12, 12, 3)}
    again = from_pretrained(tmp_path / "eyes", expected=PictureEncoder)
    assert again.pictures == eyes.pictures
    assert torch.equal(again(seen), eyes(seen))


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (noise(1, 1, 15, 20, 3), "15 x 20 pixels from camera 'front.top'"),
        (noise(1, 1, 16, 20, 3).float(), "float32 pictures"),
        (noise(1, 1, 20, 16, 3), "20 x 16"),
    ],
)
def test_pictures_of_another_size_or_kind_are_refused(picture, said):
    with pytest.raises(ShapeError, match=said) as caught:
        encoder()({"front.top": picture, "wrist": noise(1, 1, 12, 12, 3)})
    assert "uint8 of 16 x 20" in caught.value.expected


@pytest.mark.parametrize(
    ("cameras", "sizes", "options", "said"),
    [
        ([], [], {}, "cameras"),
        (["a", "a"], [(8, 8), (8, 8)], {}, "cameras"),
        (["a"], [(8, 8), (8, 8)], {}, "2 sizes"),
        (["a"], [(8, 8)], {"crops": [(9, 8)]}, "a crop of 9 x 8"),
        (["a"], [(8, 8)], {"widths": (8, 12)}, "widths"),
        (["a"], [(8, 8)], {"widths": ()}, "widths"),
    ],
)
def test_an_encoder_that_cannot_be_is_refused(cameras, sizes, options, said):
    with pytest.raises(SettingError, match=said):
        PictureEncoder(cameras, sizes, **options)


# ---- stacks ------------------------------------------------------------------------------------------


def test_a_stack_is_encoded_as_one_picture_of_more_colours_and_its_order_matters():
    with seeded_initialisation(0):
        eyes = PictureEncoder(["top"], [(3, 16, 12)], widths=(8,), features=4)
    assert eyes.encoders[0].stages[0].in_channels == 9
    pictures = noise(5, 2, 3, 16, 12, 3)
    found = eyes({"top": pictures})
    assert found.shape == (5, 2, 4)
    joined = torch.cat([pictures[:, :, time] for time in range(3)], -1).flatten(0, 1)
    maps = eyes.encoders[0].stages(joined.permute(0, 3, 1, 2) / 127.5 - 1)
    expected = eyes.encoders[0].mix(eyes.encoders[0].places(maps)).unflatten(0, (5, 2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, eyes({"top": pictures.flip(2)}), atol=1e-3)
