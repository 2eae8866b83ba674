"""Policies' scores, the states they meet and those states moved; and that a direction is told from noise."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.spaces import ActionSpace
from policysmith.evaluation.directions import (
    ATTACKS,
    SHIFTS,
    changed_along,
    changed_at_random,
    changed_decisions,
    greedy_episodes,
    moved,
    moves_for,
    scores_of,
)
from policysmith.networks.bodies import Body
from policysmith.networks.critics import DuellingQ
from policysmith.objectives.decisions import greedy, unstable_direction
from policysmith.policies.actors import NetworkPolicy, actor_for
from policysmith.policies.heads import CategoricalHead, GreedyHead
from policysmith.worlds import registry


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def value_policy(size=6, choices=3, **body):
    q = DuellingQ(Body(size, hidden=(8,), **body), choices)
    return NetworkPolicy(q, GreedyHead(choices))


def sees_first(states):
    """Two actions, told apart by the first number alone, the boundary at 1/2."""
    return torch.stack([states[:, 0], 1 - states[:, 0]], dim=1)


# ---- scores of policies -------------------------------------------------------------------------------


def test_a_value_policys_scores_are_its_q_values_without_dropout():
    policy = value_policy(dropout=0.5).train()
    states = torch.rand(5, 6, generator=rng())
    scores = scores_of(policy)
    assert torch.equal(scores(states), scores(states))
    assert torch.equal(scores(states), policy.eval().body(states))


def test_a_categorical_policys_scores_give_the_direction_of_its_logits():
    body = Body(4, hidden=(8,))
    policy = NetworkPolicy(body, CategoricalHead(body.width, (3,)))
    states = torch.rand(5, 4, generator=rng())
    found = unstable_direction(scores_of(policy), states)
    logits = unstable_direction(lambda s: policy.head.logits(policy.body(s)), states)
    assert torch.allclose(found, logits, atol=1e-6)
    assert all(p.grad is None for p in policy.parameters())


def test_a_function_is_its_own_scores():
    assert scores_of(sees_first) is sees_first


@pytest.mark.parametrize(
    "policy",
    [
        actor_for(gymnasium.spaces.Box(-1, 1, (4,)), ActionSpace.of(gymnasium.spaces.Box(-1, 1, (2,)))),
        actor_for(gymnasium.spaces.Box(-1, 1, (4,)), ActionSpace.of(gymnasium.spaces.MultiDiscrete([2, 3]))),
        NetworkPolicy(Body(4, cell="gru", memory_width=8), CategoricalHead(8, (3,))),
        nn.Linear(4, 2),
        "a name",
    ],
)
def test_other_policies_are_refused_with_the_kinds_that_there_are(policy):
    with pytest.raises(CapabilityError, match="discrete action") as caught:
        scores_of(policy)
    assert isinstance(caught.value, TypeError)


# ---- states that are met ------------------------------------------------------------------------------


def test_episodes_hold_the_states_in_which_the_greedy_policy_decided():
    def push_to_the_lean(states):
        return torch.stack([-states[:, 2], states[:, 2]], dim=1)

    make = partial(registry.make, "CartPole-v1")
    episodes, returns = greedy_episodes(push_to_the_lean, make, episodes=3, seed=4)
    assert returns == [len(episode) for episode in episodes]
    environment = make()
    for number, episode in enumerate(episodes):
        assert len(episode) > 15
        # Played again from its first action on, an episode goes through the same states.
        environment.reset(seed=0)
        environment.unwrapped.state = episode[0].double().numpy()
        for before, after in pairwise(episode):
            seen, *_ = environment.step(greedy(push_to_the_lean, before[None]).numpy())
            assert np.allclose(seen, after, atol=1e-4), number
    again = greedy_episodes(push_to_the_lean, make, episodes=3, seed=4).states
    assert all(torch.equal(a, b) for a, b in zip(episodes, again, strict=True))
    other = greedy_episodes(push_to_the_lean, make, episodes=3, seed=5).states
    assert not torch.equal(episodes[0][0], other[0][0])


def test_a_limit_cuts_episodes():
    cut = greedy_episodes(sees_first, partial(registry.make, "CartPole-v1"), episodes=2, seed=0, limit=5)
    assert [len(one) for one in cut.states] == [5, 5]
    with pytest.raises(SettingError, match="episodes"):
        greedy_episodes(sees_first, partial(registry.make, "CartPole-v1"), episodes=0, seed=0)


# ---- decisions that change ----------------------------------------------------------------------------


def test_decisions_that_change_are_counted():
    states = torch.tensor([[0.3, 0.0], [0.6, 0.0], [0.7, 0.0], [0.9, 0.0]])
    assert changed_decisions(sees_first, states, states - torch.tensor([0.15, 0.0])) == 0.25
    # By 0.25 one way crosses for the first, the other way for the second and the third.
    assert changed_along(sees_first, states, torch.tensor([1.0, 0.0]), size=0.25) == pytest.approx(3 / 8)
    assert changed_along(sees_first, states, torch.tensor([0.0, 1.0]), size=5.0) == 0


def test_random_directions_change_fewer_decisions_than_the_one_that_matters():
    states = torch.rand(200, 50, generator=rng())
    along = changed_along(sees_first, states, torch.eye(50)[0], size=0.3)
    random = changed_at_random(sees_first, states, size=0.3, draws=20, rng=rng(1))
    assert along > 3 * random > 0


# ---- states that are moved ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SHIFTS, *ATTACKS])
def test_every_way_moves_flat_states_within_the_bounds(name):
    planes = (4, 5, 2)
    network = value_policy(40, 3)
    states = 2 + 3 * torch.rand(6, 40, generator=rng())
    found = moved(name, scores_of(network), states, planes=planes, low=0.0, high=5.0)
    assert found.shape == states.shape
    assert not torch.equal(found, states)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 5 + 1e-5
    if name in ("gradient sign", "nesterov"):
        assert float((found - states).abs().max()) == pytest.approx(0.05 * 5, abs=1e-5)


def test_vectors_are_moved_by_attacks_alone():
    assert moves_for(()) == list(ATTACKS)
    assert moves_for((4, 4, 1)) == [*SHIFTS, *ATTACKS]
    assert moves_for((), ["deepfool"]) == ["deepfool"]
    with pytest.raises(SettingError, match="planes"):
        moves_for((), ["blur"])
    with pytest.raises(SettingError, match="elastic net"):
        moves_for((), ["smearing"])
