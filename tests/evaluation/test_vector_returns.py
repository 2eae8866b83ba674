from functools import partial

import numpy as np
import pytest
import torch

from policysmith.common.errors import SettingError, ShapeError
from policysmith.evaluation.rollouts import roll_out
from policysmith.evaluation.vector_returns import VectorReturns
from policysmith.policies.archive import ParetoArchive
from policysmith.policies.protocol import Policy
from policysmith.worlds import registry

make = partial(registry.make, "point-effort")


class Resting(Policy):
    observation_size, action_size = 4, 2

    def act(self, observation, state, *, rng):
        return torch.zeros(len(observation), 1, 2), state


class Walking(Resting):
    def act(self, observation, state, *, rng):
        position, goal = observation[:, -1, :2], observation[:, -1, 2:]
        return ((goal - position) / 0.1)[:, None], state


class Drawing(Resting):
    def act(self, observation, state, *, rng):
        return torch.rand(len(observation), 1, 2, generator=rng), state


def by_hand(seed, discount):
    """Of the walker, one episode by itself; actions outside the limits are played clipped."""
    env, returns, factor, ended = make(), np.zeros(2), 1.0, False
    seen, _ = env.reset(seed=seed)
    while not ended:
        action = np.clip((seen[2:] - seen[:2]) / 0.1, -1, 1).astype(np.float32)
        seen, reward, terminated, truncated, _ = env.step(action)
        returns, factor, ended = returns + factor * reward, factor * discount, terminated or truncated
    return returns


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_each_episode_has_the_return_it_has_alone(discount):
    found = VectorReturns(make, seeds=[3, 4, 5], discount=discount)(Walking())
    assert np.allclose(found, [by_hand(seed, discount) for seed in (3, 4, 5)], atol=1e-4)


def test_the_limit_cuts_episodes_and_the_steps_are_counted():
    player = VectorReturns(make, seeds=[0, 1], limit=10)
    assert np.allclose(player(Resting())[:, 1], 10)
    player(Resting())
    assert player.steps == 40


def test_the_same_policy_gives_the_same_returns_again():
    player = VectorReturns(make, seeds=[0, 1])
    first, again, other = player(Drawing()), player(Drawing()), player(Drawing(), seed=1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_played_for_a_single_number_a_vector_is_weighed_by_the_policys_preference():
    objectives = VectorReturns(make, seeds=[0, 1])(Walking())
    assert np.allclose(
        roll_out(Walking(), make, seeds=[0, 1], stop_on_success=False).returns, objectives.mean(1), atol=1e-5
    )
    archive = ParetoArchive([Walking()], objectives=2).prefer([3, 1])
    found = roll_out(archive, make, seeds=[0, 1], stop_on_success=False).returns
    assert np.allclose(found, objectives @ [0.75, 0.25], atol=1e-5)


def test_what_cannot_be_played_is_refused():
    with pytest.raises(SettingError):
        VectorReturns(make, seeds=[])
    with pytest.raises(SettingError):
        VectorReturns(make, seeds=[0], discount=0.0)
    wide = Resting()
    wide.observation_size = 9
    with pytest.raises(ShapeError):
        VectorReturns(make, seeds=[0])(wide)
