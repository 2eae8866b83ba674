"""Minari data sets as a source: the same episodes as the store reads, in parts, and chosen from."""

import gymnasium
import numpy as np
import pytest
import torch
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from policysmith.common.errors import DataError, FileError
from policysmith.experience.episodes import Episodes
from policysmith.experience.files import load_data, open_data
from policysmith.experience.store import load_episodes, save_episodes

torch.set_num_threads(1)

Box = gymnasium.spaces.Box


def made(lengths=(4, 1, 3), *, parts=()):
    rng = np.random.default_rng(0)

    def observation(length):
        every = {
            "state": rng.standard_normal((length, 3)),
            "goal": rng.standard_normal((length, 2)),
            "front": rng.integers(0, 255, (length, 6, 8, 3), np.uint8),
        }
        return {name: every[name] for name in parts} if parts else every["state"]

    return Episodes.from_arrays(
        (
            {
                "observation": observation(length + 1),
                "action": rng.uniform(-1, 1, (length, 2)),
                "reward": rng.standard_normal(length),
                "terminated": bool(number % 2),
                "success": rng.random(length) < 0.5,
            }
            for number, length in enumerate(lengths)
        ),
        provenance={"environment": "here"},
    )


@pytest.mark.parametrize("parts", [(), ("state", "goal"), ("front", "state"), ("goal", "front", "state")])
def test_what_is_written_is_read_as_the_store_reads_it(tmp_path, parts):
    episodes = made(parts=parts)
    save_episodes(episodes, tmp_path / "set")
    read = load_data(tmp_path / "set", cameras="all")
    assert read.fingerprint == load_episodes(tmp_path / "set").fingerprint == episodes.fingerprint
    assert read.provenance["environment"] == "here"
    final = episodes.final_observation
    if parts:
        assert all(torch.equal(read.final_observation[name], final[name]) for name in parts)
    else:
        assert torch.equal(read.final_observation, final)


def test_pictures_are_left_out_or_resized_and_renamed_as_asked(tmp_path):
    episodes = made(parts=("state", "front"))
    save_episodes(episodes, tmp_path / "set")
    assert torch.equal(
        load_data(tmp_path / "set").steps["observation"], episodes.steps["observation"]["state"]
    )
    small = load_data(tmp_path / "set", cameras={"eye": "front"}, picture_size=(3, 4))
    assert small.pictures == {"eye": (3, 4)}
    assert len(load_data(tmp_path / "set", episodes=[1, 2])) == 2


def test_nested_observations_are_joined_in_the_order_of_their_keys(tmp_path):
    space = gymnasium.spaces.Dict(
        {
            "arm": gymnasium.spaces.Tuple((Box(-9, 9, (2,), np.float64), Box(-9, 9, (), np.float64))),
            "hand": Box(-9, 9, (1,), np.float64),
            "eye": Box(0, 255, (4, 4, 3), np.uint8),
        }
    )
    folder = tmp_path / "set"
    folder.mkdir()
    storage = MinariStorage.new(
        folder, observation_space=space, action_space=Box(-1, 1, (2,)), data_format="hdf5"
    )
    observations = {
        "arm": (np.array([[1.0, 2], [3, 4]]), np.array([5.0, 6])),
        "hand": np.array([[7.0], [8]]),
        "eye": np.full((2, 4, 4, 3), 9, np.uint8),
    }
    ends = {"rewards": np.zeros(1), "terminations": np.ones(1, bool), "truncations": np.zeros(1, bool)}
    storage.update_episodes([EpisodeBuffer(0, observations=observations, actions=np.zeros((1, 2)), **ends)])
    episodes = load_data(folder, cameras="all")
    assert episodes.steps["observation"]["state"].tolist() == [[1, 2, 5, 7]]
    assert episodes.final_observation["state"].tolist() == [[3, 4, 6, 8]]
    assert episodes.steps["observation"]["eye"].max() == 9
    chosen = load_data(folder, state=["observation/hand", "observation/arm/0"])
    assert chosen.steps["observation"].tolist() == [[7, 1, 2]]


def test_damage_is_told_with_the_episode(tmp_path):
    import h5py

    save_episodes(made(), tmp_path / "set")
    with h5py.File(tmp_path / "set" / "main_data.hdf5", "a") as file:
        file["episode_2"]["actions"][0, 1] = np.nan
        del file["episode_1"]["actions"]
    with pytest.raises(DataError, match=r"'action' is not finite\n.*episode 2, step 0, column 1"):
        load_data(tmp_path / "set", episodes=[0, 2])
    with pytest.raises(FileError, match=r"damaged or cut short(.|\n)*episode 1"):
        load_data(tmp_path / "set")


def test_declared_bounds_are_known(tmp_path):
    save_episodes(made(), tmp_path / "set", action_space=Box(-0.5, 2, (2,), np.float32))
    low, high = open_data(tmp_path / "set").ranges["action"]
    assert (low.tolist(), high.tolist()) == ([-0.5, -0.5], [2, 2])
