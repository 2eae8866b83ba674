import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from policysmith.common.errors import SettingError
from policysmith.evaluation.robustness import grid_points, over_grid
from policysmith.policies.protocol import Policy


class Payer(gymnasium.Env):
    """Five steps; each pays gain times the action, minus loss, plus a hundredth of the reset's seed."""

    def __init__(self, gain, loss):
        self.gain, self.loss = gain, loss
        self.observation_space = Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.seed = 0, seed
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        reward = self.gain * float(action[0]) - self.loss + self.seed / 100
        return np.zeros(1, np.float32), reward, False, self.steps == 5, {"success": True}


class Half(Policy):
    observation_size, action_size = 1, 1

    def act(self, observation, state, *, rng):
        return torch.full((len(observation), 1, 1), 0.5), state


def make(parameters):
    return Payer(**parameters)


def test_the_worst_and_the_average_over_a_grid():
    result = over_grid(Half(), make, {"gain": [1, 2], "loss": [0, 3]}, episodes=2)
    assert result.points[1] == {"gain": 1, "loss": 3}
    # Episodes are not cut at success: five steps of gain / 2 - loss, and the seeds 0 and 1.
    assert result.returns[0].tolist() == pytest.approx([2.5, 2.55])
    assert result.mean.tolist() == pytest.approx([2.525, -12.475, 5.025, -9.975])
    assert result.worst == pytest.approx(-12.475)
    assert result.worst_point == {"gain": 1, "loss": 3}
    assert result.average == pytest.approx(result.mean.mean())


def test_points_may_be_listed_and_seeds_chosen():
    result = over_grid(Half(), make, [{"gain": 2, "loss": 0}], seeds=[100], limit=2)
    assert result.returns.tolist() == [[pytest.approx(2 * (1 + 1))]]


def test_an_empty_grid_and_no_episodes_are_refused():
    for grid in ({}, {"gain": []}, []):
        with pytest.raises(SettingError, match="no points"):
            grid_points(grid)
    with pytest.raises(SettingError, match="no episodes"):
        over_grid(Half(), make, [{"gain": 1, "loss": 0}], episodes=0)
