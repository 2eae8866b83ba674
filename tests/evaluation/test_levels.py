"""Levels of data from an agent that learns: which of its stages acts, and what the data say of themselves."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.common.stages import result_of
from policysmith.evaluation.levels import record_levels
from policysmith.policies.protocol import Policy
from policysmith.training.loop import Progress
from policysmith.worlds.registry import make as make_world

HORIZON = 20


class Walks(Policy):
    """Walks to the goal at a share of the full speed: the better, the faster."""

    def __init__(self, speed):
        super().__init__()
        self.observation_size, self.action_size, self.speed = 4, 2, speed

    def act(self, observation, state, *, rng):
        newest = observation[:, -1]
        return (self.speed * (10 * (newest[:, 2:4] - newest[:, :2])).clamp(-1, 1))[:, None], state


class Run:
    """Stands in for a run's state."""

    def __init__(self, policy):
        self.policy = lambda: policy


def make():
    return make_world("point-reach", horizon=HORIZON)


def learning(speeds, *, steps=40):
    """A training run whose agent walks at each of the speeds in turn, and plays `steps` steps with it."""

    def train(maker):
        environment = maker()
        seed = 0
        for number, speed in enumerate(speeds):
            observation, _ = environment.reset(seed=seed)
            for _ in range(steps):
                move = speed * (10 * (observation[2:4] - observation[:2])).clip(-1, 1)
                observation, _, terminated, truncated, _ = environment.step(move)
                if terminated or truncated:
                    seed += 1
                    observation, _ = environment.reset(seed=seed)
            yield Progress(number + 1, len(speeds), {"loss": 0.0}, {}, Run(Walks(speed)))

    return train


def levels(*names, speeds=(0.0, 0.1, 0.3, 1.0, 0.2), steps=120, **options):
    return result_of(
        record_levels(
            learning(speeds), make, levels=names, steps=steps, agent_steps=200, evaluations=5, **options
        )
    )


def test_medium_is_worse_than_expert_and_better_than_random():
    found = levels("random", "medium", "expert")
    random, medium, expert = (found[name].returns.mean() for name in ("random", "medium", "expert"))
    assert random < medium < expert
    (agent,) = found["medium"].provenance["agents"]
    assert 1 / 3 <= agent["normalised_score"] < 1
    assert found["expert"].provenance["agents"][0]["steps"] == 160
    assert found["random"].provenance["agents"] == []


def test_each_level_has_as_many_steps_as_were_asked_for_and_the_replay_as_many_as_were_taken():
    found = levels("medium", "medium-expert", "medium-replay")
    assert [int(found[name].lengths.sum()) for name in ("medium", "medium-expert")] == [120, 120]
    (agent,) = found["medium-replay"].provenance["agents"]
    assert int(found["medium-replay"].lengths.sum()) == agent["steps"] == 120
    # The agent stood still at first: so does its replay, and nothing recorded from medium does.
    assert float(found["medium-replay"].steps["action"][:40].abs().max()) == 0
    assert len(found["medium-expert"].provenance["agents"]) == 2


def test_the_same_seed_records_the_same_and_another_one_something_else():
    first, again, other = (levels("medium", seed=seed)["medium"].fingerprint for seed in (0, 0, 1))
    assert first == again != other


def test_nothing_is_trained_for_random_actions():
    def train(maker):
        raise AssertionError("no agent is needed")

    found = result_of(record_levels(train, make, levels=["random"], steps=30, agent_steps=10))
    assert int(found["random"].lengths.sum()) == 30
    assert torch.equal(found["random"].lengths, torch.tensor([20, 10]))


def test_an_agent_that_learns_nothing_and_levels_without_a_name_are_refused():
    with pytest.raises(DataError, match="best mean return"):
        levels("medium", speeds=(-1.0,))
    with pytest.raises(SettingError, match="middling"):
        levels("middling")
