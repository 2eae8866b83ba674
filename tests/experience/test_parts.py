"""Observations with parts, from an environment through episodes, disk and windows to a policy that acts."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from tensordict import TensorDict

from policysmith.common.errors import DataError, ShapeError
from policysmith.evaluation.rollouts import check_spaces, roll_out
from policysmith.experience.collect import record
from policysmith.experience.episodes import Episodes
from policysmith.experience.store import load_episodes, save_episodes
from policysmith.experience.windows import WindowSampler
from policysmith.policies.acting import Actor
from policysmith.policies.protocol import Policy

torch.set_num_threads(1)


class Counting(gymnasium.Env):
    """Its state and every pixel of its picture are the number of the step; ends after five."""

    observation_space = Dict(state=Box(-np.inf, np.inf, (2,)), front=Box(0, 255, (4, 5, 3), np.uint8))
    action_space = Box(-10, 10, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {}

    def step(self, action):
        self.t += 1
        return self.seen(), float(action[0]), self.t == 5, False, {}

    def seen(self):
        return {"state": np.full(2, self.t, np.float32), "front": np.full((4, 5, 3), self.t, np.uint8)}


class Reader(Policy):
    """Acts ten times what the oldest picture of its window shows plus what the newest state says."""

    observation_size, action_size, observation_steps = 2, 1, 2
    pictures = {"front": (4, 5)}  # noqa: RUF012

    def act(self, observation, state, *, rng):
        self.check_batch(observation, state)
        oldest = observation["front"][:, 0, 0, 0, :1].float()
        return (0.1 * oldest + observation["state"][:, -1, :1])[:, None], state


class Constant:
    def reset(self, seed=None):
        pass

    def act(self, observation):
        return np.ones(1)


@pytest.fixture
def episodes():
    return Episodes.from_arrays(record(Counting(), Constant(), episodes=2, seed=0))


def test_recorded_parts_are_those_of_their_steps(episodes):
    assert (episodes.observation_size, episodes.pictures) == (2, {"front": (4, 5)})
    assert episodes[1]["observation", "state"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert episodes[1]["observation", "front"][:, 3, 4, 2].tolist() == [0, 1, 2, 3, 4]
    assert episodes[1]["observation", "front"].dtype == torch.uint8
    assert episodes.final_observation["front"][:, 0, 0, 0].tolist() == [5, 5]


def test_parts_survive_a_data_set_on_disk(episodes, tmp_path):
    save_episodes(episodes, tmp_path / "data")
    again = load_episodes(tmp_path / "data")
    assert again.fingerprint == episodes.fingerprint
    assert torch.equal(again.final_observation["front"], episodes.final_observation["front"])


def test_a_changed_pixel_changes_the_fingerprint(episodes):
    before = episodes.fingerprint
    episodes.steps["observation", "front"][3, 0, 0, 0] += 1
    assert episodes.fingerprint != before


def test_windows_slice_every_part_alike(episodes):
    windows = WindowSampler(
        episodes, horizon=3, observation_steps=2, action_steps=1, rng=torch.Generator().manual_seed(0)
    )
    batch = windows.sample(6)
    assert batch["observation"].batch_size == (6, 2)
    assert torch.equal(
        batch["observation", "front"][..., 0, 0, 0].float(), batch["observation", "state"][..., 0]
    )


def test_a_policy_sees_windows_of_parts_that_begin_with_the_episode():
    actor, env = Actor(Reader(), 1, rng=torch.Generator()), Counting()
    seen, _ = env.reset()
    said = []
    for _ in range(3):
        batch = {name: part[None] for name, part in seen.items()}
        said.append(float(actor.act(batch)[0, 0]))
        seen, *_ = env.step(np.zeros(1))
    assert said == pytest.approx([0.0, 0.1 * 0 + 1, 0.1 * 1 + 2])


def test_roll_outs_play_environments_with_parts():
    rollouts = roll_out(Reader(), Counting, seeds=[0, 1, 2], parallel=2)
    assert rollouts.returns == pytest.approx([10 + 0.1 * (0 + 0 + 1 + 2 + 3)] * 3)


def test_a_camera_that_no_policy_reads_is_named():
    class Blind(Reader):
        pictures = {}  # noqa: RUF012

    with pytest.raises(ShapeError, match="front have shape"):
        check_spaces(Blind(), Counting())


def test_a_missing_part_is_named_when_acting():
    with pytest.raises(ShapeError, match=r"state \[1, 2\]\n.*front \[1, 4, 5, 3\]"):
        Actor(Reader(), 1, rng=torch.Generator()).act({"state": np.zeros((1, 2))})


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        ({"state": np.zeros((3, 2)), "front": np.zeros((2, 4, 5, 3), np.uint8)}, "'front': 2"),
        ({"front": np.zeros((3, 4, 5, 3))}, "float64 of shape"),
        ({"front": np.zeros((3, 3, 4, 5), np.uint8)}, "'front'"),
        ({"state": np.zeros(3)}, "'state'"),
        ({}, "no entries"),
    ],
)
def test_parts_that_do_not_fit_are_named(observation, said):
    with pytest.raises(DataError, match=said):
        Episodes.from_arrays([{"observation": observation, "action": np.zeros((3, 1))}])


def test_a_selection_keeps_the_parts(episodes):
    chosen = episodes.select([1])
    assert isinstance(chosen.steps["observation"], TensorDict)
    assert len(chosen.final_observation) == 1
