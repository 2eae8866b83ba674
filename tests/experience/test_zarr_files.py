"""Diffusion Policy's Zarr data sets: folders and zips, both versions, and what is refused."""

import shutil

import numpy as np
import pytest
import torch
from robot_files import SIZE, grey, write_zarr, zarr_arrays

from policysmith.common.errors import DataError, FileError
from policysmith.experience.files import load_data, open_data

torch.set_num_threads(1)


def written(path, *, zarr_format=2, lengths=(4, 3, 5), ends=None, **changes):
    arrays, own_ends = zarr_arrays(lengths)
    arrays = {key: values for key, values in (arrays | changes).items() if values is not None}
    return write_zarr(path, arrays, own_ends if ends is None else ends, zarr_format=zarr_format)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", ["set.zarr", "set.zarr.zip"])
def test_both_versions_are_read_from_folders_and_zips(tmp_path, name, zarr_format):
    path = written(tmp_path / name, zarr_format=zarr_format)
    episodes = load_data(path, cameras=["img"])
    steps = [(e, t) for e, n in enumerate((4, 3, 5)) for t in range(n)]
    assert episodes.lengths.tolist() == [4, 3, 5]
    assert episodes.steps["observation"]["state"].tolist() == [[e, t] for e, t in steps]
    assert episodes.steps["action"].tolist() == [[t, -e, 0.5] for e, t in steps]
    assert episodes.pictures == {"img": SIZE}
    assert episodes.steps["observation"]["img"].dtype == torch.uint8
    assert episodes.steps["observation"]["img"][:, 5, 5, 0].tolist() == [grey(e, t) for e, t in steps]
    assert open_data(path).version == f"v{zarr_format}"


def test_arrays_of_more_axes_are_flattened_and_joined_in_the_order_of_choice(tmp_path):
    path = written(tmp_path / "set", keypoint=np.arange(12 * 6, dtype=np.float32).reshape(12, 3, 2))
    episodes = load_data(path, state=["keypoint", "state"])
    assert episodes.observation_size == 8
    assert episodes.steps["observation"][1].tolist() == [6, 7, 8, 9, 10, 11, 0, 1]


def test_without_a_state_the_other_numbers_make_one_and_time_and_marks_do_not(tmp_path):
    path = written(
        tmp_path / "set",
        state=None,
        keypoint=None,
        robot_eef_pose=np.ones((12, 2)),
        gripper=np.zeros((12, 1)),
        timestamp=np.concatenate([np.arange(n) / 20 for n in (4, 3, 5)]),
        stage=np.zeros(12),
        reward=np.arange(12.0),
    )
    episodes = load_data(path)
    assert episodes.provenance["state"] == ["gripper", "robot_eef_pose"]
    assert episodes.provenance["rate"] == pytest.approx(20)
    assert episodes.steps["reward"].tolist() == list(range(12))


def test_pictures_of_zero_to_one_and_of_bytes_are_read_alike_even_where_one_is_dark(tmp_path):
    arrays, _ = zarr_arrays()
    arrays["img"][2] = 0
    shown = {}
    for name, values in (("unit", arrays["img"] / 255), ("bytes", arrays["img"].astype(np.uint8))):
        episodes = load_data(written(tmp_path / name, img=values), cameras=["img"])
        shown[name] = episodes.steps["observation"]["img"]
    assert torch.equal(shown["unit"], shown["bytes"])
    assert torch.equal(shown["unit"], torch.tensor(arrays["img"].astype(np.uint8)))
    assert shown["unit"][2].max() == 0


@pytest.mark.parametrize("values", [-1.0, 256.0, np.nan])
def test_pictures_beyond_bytes_are_refused(tmp_path, values):
    arrays, _ = zarr_arrays()
    arrays["img"][7, 0, 0, 0] = values
    with pytest.raises(DataError, match="beyond 0 to 255"):
        load_data(written(tmp_path / "set", img=arrays["img"]), cameras=["img"])


@pytest.mark.parametrize("ends", [[4, 4, 12], [7, 4, 12], [0, 12], []])
def test_ends_that_do_not_rise_are_refused(tmp_path, ends):
    with pytest.raises(DataError, match="ends of the episodes do not rise"):
        load_data(written(tmp_path / "set", ends=np.array(ends, dtype=np.int64)))


def test_an_array_of_another_length_is_named(tmp_path):
    with pytest.raises(DataError, match="'state' has 11 steps, the episodes 12"):
        load_data(written(tmp_path / "set", state=np.zeros((11, 2))))


def test_a_value_that_is_not_finite_is_named(tmp_path):
    arrays, _ = zarr_arrays()
    arrays["state"][8, 1] = np.inf
    with pytest.raises(DataError, match=r"'state' is not finite\n.*episode 2, step 1, column 1"):
        load_data(written(tmp_path / "set", state=arrays["state"]))


def test_a_damaged_piece_is_named(tmp_path):
    path = written(tmp_path / "set")
    piece = path / "data" / "action" / "0.0"
    piece.write_bytes(piece.read_bytes()[:10])
    with pytest.raises(FileError, match="'data/action' is damaged or cut short"):
        load_data(path)


def test_a_compression_that_nothing_undoes_is_named_with_the_cure(tmp_path):
    path = written(tmp_path / "set")
    described = path / "data" / "img" / ".zarray"
    described.write_text(described.read_text().replace('"blosc"', '"imagecodecs_jpegxl"'))
    with pytest.raises(FileError, match=r"imagecodecs_jpegxl(.|\n)*write the arrays anew"):
        load_data(path, cameras=["img"])


def test_a_zip_cut_short_and_a_group_of_other_things_are_refused(tmp_path):
    path = written(tmp_path / "set.zip")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FileError, match="no data set that is known here"):
        load_data(path)
    other = written(tmp_path / "other")
    shutil.rmtree(other / "meta")
    with pytest.raises(FileError, match="there is no group 'meta'"):
        load_data(other)
    no_action = written(tmp_path / "no-action", action=None)
    with pytest.raises(DataError, match="nothing says which key is the action"):
        load_data(no_action)


def test_absent_pieces_are_complained_about(tmp_path):
    path = written(tmp_path / "set")
    (path / "data" / "action" / "1.0").unlink()
    (complaint,) = [one for one in open_data(path).complaints() if "action" in one.what]
    assert "1 of 4 pieces of 'action' are absent and read as zeros" in complaint.what
    assert not complaint.stops
