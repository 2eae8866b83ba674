"""Observations as policies see them: flat where they are vectors, in parts where they are not."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from policysmith.common.errors import CapabilityError
from policysmith.worlds.parts import as_policies_see


class Fixed(gymnasium.Env):
    """Sees its number twice over, in whatever space it is given."""

    def __init__(self, **spaces):
        self.observation_space = Dict(spaces)
        self.action_space = Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        fill = {name: np.full(space.shape, 7, space.dtype) for name, space in self.observation_space.items()}
        return fill, {}


def vector(size):
    return Box(-np.inf, np.inf, (size,), np.float64)


def picture():
    return Box(0, 255, (4, 5, 3), np.uint8)


def test_vectors_become_one():
    env = as_policies_see(Fixed(a=vector(2), b=vector(3)))
    assert env.observation_space.shape == env.reset()[0].shape == (5,)


def test_vectors_beside_a_picture_are_joined_and_the_picture_keeps_its_name():
    env = as_policies_see(Fixed(hand=vector(2), front=picture(), gripper=vector(1)))
    seen, _ = env.reset()
    assert {name: (part.shape, part.dtype) for name, part in seen.items()} == {
        "front": ((4, 5, 3), np.uint8),
        "state": ((3,), np.float32),
    }
    assert env.observation_space.contains(seen)


def test_the_desired_goal_is_a_part_where_it_is_asked_for():
    goals = {"observation": vector(4), "achieved_goal": vector(2), "desired_goal": vector(2)}
    assert as_policies_see(Fixed(**goals)).observation_space.shape == (8,)
    env = as_policies_see(Fixed(**goals), goal=True)
    seen, _ = env.reset()
    assert {name: part.shape for name, part in seen.items()} == {"state": (4,), "goal": (2,)}
    assert env.observation_space.contains(seen)


def test_an_environment_without_a_goal_is_refused():
    with pytest.raises(CapabilityError, match="no goal apart"):
        as_policies_see(Fixed(a=vector(2)), goal=True)


def test_a_part_that_is_neither_vector_nor_picture_is_named():
    with pytest.raises(CapabilityError, match="part Box"):
        as_policies_see(Fixed(front=picture(), grid=Box(0, 1, (2, 2, 2))))


def test_stacked_observations_are_stacks_of_pictures_and_one_longer_state():
    from gymnasium.wrappers import FrameStackObservation

    env = as_policies_see(FrameStackObservation(Fixed(front=picture(), a=vector(2)), 3))
    seen, _ = env.reset()
    assert {name: part.shape for name, part in seen.items()} == {
        "front": (3, *picture().shape),
        "state": (6,),
    }
    assert env.observation_space.contains(seen)
