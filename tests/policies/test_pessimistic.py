"""The rule by which IWOCS acts: who knows the world, and who expects least of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.common.errors import CapabilityError, SettingError, ShapeError
from policysmith.common.saving import saveable
from policysmith.policies.distributions import Certain
from policysmith.policies.pessimistic import PessimisticPolicy, WorldExpertise
from policysmith.policies.protocol import load_policy

RNG = torch.Generator()


@saveable
class Always(nn.Module):
    """An actor of one action."""

    def __init__(self, action: float) -> None:
        super().__init__()
        self.action = action

    def distribution(self, observation):
        return Certain(torch.full((len(observation), 1), self.action))


@saveable
class Says(nn.Module):
    """Twin critics of fixed opinions, plus the action, so that each judges its own."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.opinions = (low, high)

    def forward(self, observation, action):
        return torch.stack([opinion + action[:, 0] for opinion in self.opinions])


@saveable
class Moves(nn.Module):
    """Expects the observation to grow by a length times the action."""

    def __init__(self, length: float) -> None:
        super().__init__()
        self.length = length

    def forward(self, observation, action):
        return observation + self.length * action


def expert(action, value, length=0.0, *, threshold=0.5, spread=1.0):
    """Whose judgement of its own action is `value`."""
    made = WorldExpertise(Always(action), Says(value - action, value - action + spread), Moves(length))
    made.threshold.fill_(threshold)
    return made


def policy(*experts, default=None):
    return PessimisticPolicy(2, 1, experts=experts, default=None if default is None else Always(default))


def acts(policy, *observations):
    """The actions of one episode per row; `observations` [row, 2] step by step."""
    state = policy.initial_state(len(observations[0]))
    actions = []
    for observation in observations:
        action, state = policy.act(observation[:, None], state, rng=RNG)
        actions.append(action[:, 0, 0].tolist())
    return actions, state


def test_the_expert_that_expects_least_acts():
    actions, _ = acts(policy(expert(1, 4.0), expert(2, 2.5), expert(3, 3.0)), torch.zeros(2, 2))
    assert actions == [[2, 2]]


def test_the_lower_of_twin_critics_counts():
    optimist = expert(1, 2.0, spread=-1.5)  # twins say 2.0 and 0.5
    assert acts(policy(optimist, expert(2, 1.0)), torch.zeros(1, 2))[0] == [[1]]


def test_in_the_first_step_all_are_valid():
    nobody = expert(1, 1.0, length=100.0, threshold=0.0)
    assert acts(policy(expert(2, 3.0), nobody), torch.full((1, 2), 7.0))[0] == [[1]]


def test_an_expert_whose_prediction_failed_does_not_act():
    # Values 4, 2.5 and 1: the third acts (3). Its predictions are off by 0.2, 0.3 and 0.9: then the second.
    three = [expert(1, 4.0, 2.9 / 3), expert(2, 2.5, 2.85 / 3), expert(3, 1.0, 2.55 / 3)]
    assert acts(policy(*three), torch.zeros(1, 2), torch.full((1, 2), 3.0))[0] == [[3], [2]]


def test_predictions_are_of_the_action_that_was_played():
    # The first expert acts; the second predicts rightly what that action does, and is valid.
    right = expert(5, 2.0, length=1.0, threshold=1e-6)
    wrong = expert(2, 1.0, length=0.0, threshold=1e-6)
    actions, _ = acts(policy(wrong, right), torch.zeros(1, 2), torch.full((1, 2), 2.0))
    assert actions == [[2], [5]]


def test_rows_are_apart_and_a_new_episode_forgets():
    both = policy(expert(1, 1.0, 1.0, threshold=0.1), expert(2, 2.0, 2.0, threshold=0.1))
    second = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    actions, state = acts(both, torch.zeros(2, 2), second)
    assert actions == [[1, 1], [1, 2]]  # in the second row the world moves twice as far
    state = both.reset(state, torch.tensor([False, True]))
    assert state["has_begun"].tolist() == [True, False]
    action, _ = both.act(torch.full((2, 1, 2), 9.0)[1:], state[1:], rng=RNG)
    assert action.item() == 1


def test_where_nobody_is_valid_the_default_acts_and_without_one_it_is_an_error():
    lost = expert(1, 1.0, threshold=0.1)
    away = torch.tensor([[5.0, 5.0], [0.0, 0.0]])
    actions, state = acts(policy(lost, default=-1), torch.zeros(2, 2), away)
    assert actions == [[1, 1], [-1, 1]]
    assert state["network_calls"].tolist() == [7, 6]
    with pytest.raises(CapabilityError, match="no default policy"):
        acts(policy(lost), torch.zeros(2, 2), away)


def test_without_experts_the_default_acts():
    actions, state = acts(policy(default=-1), torch.zeros(1, 2), torch.ones(1, 2))
    assert (actions, state["network_calls"].tolist()) == ([[-1], [-1]], [2])
    with pytest.raises(SettingError, match="either"):
        policy()


def test_observations_of_another_width_are_refused():
    with pytest.raises(ShapeError):
        acts(policy(default=0), torch.zeros(1, 3))


def test_a_saved_policy_acts_the_same_and_knows_its_worlds(tmp_path):
    made = PessimisticPolicy(
        2,
        1,
        experts=(
            WorldExpertise(Always(1.0), Says(1.0, 1.0), Moves(1.0), point=(31.0, 1.0)),
            expert(2.0, 3.0, threshold=0.25),
        ),
        default=Always(-1.0),
        parameters=("pole mass", "cart mass"),
    )
    made.save_pretrained(tmp_path / "policy")
    again = load_policy(tmp_path / "policy")
    steps = (torch.zeros(3, 2), torch.randn(3, 2), torch.randn(3, 2))
    assert acts(again, *steps)[0] == acts(made, *steps)[0]
    assert again.parameter_names == ("pole mass", "cart mass")
    assert again.experts[0].point == (31.0, 1.0)
    assert [float(one.threshold) for one in again.experts] == [torch.inf, 0.25]
