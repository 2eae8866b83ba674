import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from policysmith.common.errors import CapabilityError
from policysmith.worlds import registry
from policysmith.worlds.vector_rewards import objectives_of, require_objectives


class Paying(gymnasium.Env):
    """Pays what it is told to, and does not say of what shape that is."""

    def __init__(self, reward):
        self.reward = reward
        self.observation_space = self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), self.reward, False, False, {}


def test_the_number_of_objectives_is_what_is_declared_or_else_what_a_step_pays():
    assert objectives_of(registry.make("point-effort")) == 2
    assert objectives_of(registry.make("point-reach")) == 0
    assert objectives_of(Paying(np.zeros(3))) == 3
    assert objectives_of(Paying(1.0)) == 0
    with pytest.raises(CapabilityError, match="shape"):
        objectives_of(Paying(np.zeros((2, 2))))


@pytest.mark.parametrize("reward", [0.5, np.zeros(1)])
def test_a_reward_that_is_no_vector_is_refused_by_who_needs_one(reward):
    with pytest.raises(CapabilityError, match="Somebody needs an environment with a reward vector"):
        require_objectives(Paying(reward), by="Somebody")
    assert require_objectives(Paying(np.zeros(2)), by="Somebody") == 2


def test_worlds_of_mo_gymnasium_have_vectors_of_rewards():
    pytest.importorskip("mo_gymnasium")
    env = registry.make("mo_gymnasium:deep-sea-treasure-concave-v0")
    assert objectives_of(env) == 2
    assert "mo_gymnasium:mo-hopper-2obj-v5" in registry.known_names()
