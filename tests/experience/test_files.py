"""What lies at a path is known by its contents, and where nothing is known, by what would be."""

import pytest
import torch
from robot_files import LeRobotWriter, write_zarr, zarr_arrays

from policysmith.common.errors import FileError
from policysmith.experience.episodes import Episodes
from policysmith.experience.files import load_data, open_data
from policysmith.experience.store import save_episodes

torch.set_num_threads(1)


def test_each_format_is_known_by_its_contents_whatever_the_name(tmp_path):
    episode = {"observation": [[0.0], [1.0]], "action": [[0.0]]}
    save_episodes(Episodes.from_arrays([episode]), tmp_path / "lerobot.zarr")
    LeRobotWriter((2,), films=()).write(tmp_path / "minari", "v2.1")
    write_zarr(tmp_path / "x", *zarr_arrays())
    found = [open_data(tmp_path / name).format for name in ("lerobot.zarr", "minari", "x")]
    assert found == ["Minari", "LeRobot", "Zarr"]


def test_what_is_unknown_lists_what_would_be_known(tmp_path):
    with pytest.raises(FileError, match="nothing at this path"):
        load_data(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("none")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(
            FileError, match=r"no data set that is known here(.|\n)*Minari(.|\n)*LeRobot(.|\n)*Zarr"
        ):
            load_data(path)


def test_a_data_set_one_folder_further_down_is_pointed_at(tmp_path):
    LeRobotWriter((2, 2), films=()).write(tmp_path / "set", "v3.0")
    with pytest.raises(FileError, match=rf"give {tmp_path / 'set'}"):
        load_data(tmp_path)


def test_hdf5_files_of_others_say_how_they_can_be_read(tmp_path):
    (tmp_path / "demo.hdf5").write_bytes(b"x")
    with pytest.raises(FileError, match="h5py"):
        load_data(tmp_path)
