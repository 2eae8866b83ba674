"""C-MORL: bad input, what its loss is made of, resuming to the same archive, and that it finds a front."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from policysmith.common.errors import CapabilityError, DataError, SettingError
from policysmith.common.saving import load_tree, save_tree
from policysmith.policies.archive import ParetoArchive
from policysmith.policies.protocol import load_policy
from policysmith.systems import c_morl
from policysmith.training.loop import finish

TINY = c_morl.PRESETS["tiny"]


class Three(gymnasium.Env):
    """One choice among three: all of the first, all of the second, or a little less than half of both."""

    rewards = np.array([[1.0, 0.0], [0.45, 0.45], [0.0, 1.0]], np.float32)

    def __init__(self, below: float = 0.0) -> None:
        self.observation_space, self.action_space = Box(-1, 1, (1,), np.float32), Discrete(3)
        self.reward_space = Box(-9, 9, (2,), np.float32)
        self.below = below

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), self.rewards[action] - self.below, True, False, {}


def updates(environment, **changes):
    return list(c_morl.train(environment, config=replace(TINY, **changes), seed=0))


# ---- bad input ---------------------------------------------------------------------------------------


def test_a_scalar_reward_is_refused():
    with pytest.raises(CapabilityError, match="C-MORL needs an environment with a reward vector"):
        updates("point-reach")


@pytest.mark.parametrize("bad", [{"reference": (0.0,)}, {"reference": ()}, {"return_shift": (1.0, 2.0, 3.0)}])
def test_a_reference_or_shift_of_another_length_is_refused(bad):
    with pytest.raises(SettingError, match="2 numbers, one for each objective"):
        updates("point-effort", **bad)


def test_a_reference_that_nothing_reaches_is_told_with_the_best_of_each_objective():
    with pytest.raises(DataError, match=r"the best value of each objective is \['1', '1'\]"):
        updates(Three, reference=(2.0, 2.0))


@pytest.mark.parametrize(
    "bad",
    [
        {"lowest_weight": 0.6, "highest_weight": 0.4},
        {"weight_step": 0.0},
        {"beta": 0.0},
        {"beta": 1.1},
        {"sharpness": 0.0},
        {"selection": "best"},
        {"cell": "gru"},
        {"normalise_rewards": False},
        {"episodes": 0},
    ],
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError):
        replace(TINY, **bad)


def test_too_few_updates_for_the_weights_are_refused():
    with pytest.raises(SettingError, match="2 updates for 3 weight vectors"):
        updates(Three, environment_steps=32)


def test_an_objective_that_moving_bounds_do_not_hold_is_warned_of():
    negative = partial(Three, below=2.0)
    with pytest.warns(UserWarning, match="is inactive"):
        updates(negative, moving_bounds=True)


# ---- the method --------------------------------------------------------------------------------------


def test_advantages_are_weighed_in_the_rewards_own_units():
    advantage = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [-1.0, -1.0]])
    deviation, weights = torch.tensor([2.0, 10.0]), torch.tensor([0.5, 0.5], dtype=torch.double)
    found = c_morl.weighted_advantage(advantage, deviation, weights)
    raw = torch.tensor([1.0, 5.0, 0.0, -6.0])
    assert torch.allclose(found, (raw - raw.mean()) / (raw.std() + 1e-5))
    alone = c_morl.weighted_advantage(advantage, deviation, torch.tensor([0.0, 1.0], dtype=torch.double))
    assert torch.allclose(alone, c_morl.weighted_advantage(advantage[:, 1:], deviation[1:], torch.ones(1)))


def test_the_barrier_is_paid_in_the_second_stage_alone():
    told = updates(Three)
    assert [now.metrics["stage"] for now in told] == [1.0] * 3 + [2.0] * 7
    assert all(now.metrics["barrier"] == 0 for now in told[:3])
    assert all(now.metrics["barrier"] != 0 for now in told[3:])


def test_a_first_stage_of_all_steps_has_all_updates():
    told = updates(Three, initial_steps=160)
    assert [now.metrics["stage"] for now in told] == [1.0] * 10


def test_both_ways_of_dropping_and_bounding_learn():
    for changes in ({"row_dropping": True}, {"moving_bounds": True}, {"decayed_rate": True}):
        changed, plain = updates(Three, **changes)[-1], updates(Three)[-1]
        mine, theirs = (now.state.learners["policy"].module.state_dict() for now in (changed, plain))
        assert any(not torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_run_killed_in_either_stage_goes_on_to_the_same_archive(tmp_path):
    train = partial(c_morl.train, "point-effort", config=replace(TINY, selected=2), seed=3)
    whole = finish(train())
    for steps in (2, 5, 8):
        stopped = list(itertools.islice(train(), steps))[-1]
        save_tree(tmp_path / "state", stopped.state.state_dict())
        resumed = finish(train(state=load_tree(tmp_path / "state")))
        assert torch.equal(resumed.policy().returns, whole.policy().returns)
        mine, theirs = (one.learners["policy"].module.state_dict() for one in (resumed, whole))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_archive_is_the_policy_and_its_members_do_what_it_says_of_them(tmp_path):
    config = replace(TINY, environment_steps=320, learning_rate=0.05)
    policy = finish(c_morl.train(Three, config=config, seed=0)).policy()
    assert isinstance(policy, ParetoArchive)
    policy.save_pretrained(tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    for number, returns in enumerate(loaded.returns):
        member = loaded.members[number]
        action, _ = member.act(torch.zeros(1, 1, 1), member.initial_state(1), rng=torch.Generator())
        assert Three.rewards[int(action)].tolist() == pytest.approx(returns.tolist())


def test_a_front_is_found_and_a_preference_is_answered():
    # Both ends are optimal for a weight; the middle is optimal for none, and only an extension passes it.
    config = replace(
        TINY, environment_steps=1600, initial_steps=960, rollout_steps=16, learning_rate=0.03, epochs=4,
        extension_updates=10, normalise_observations=False,
    )  # fmt: skip
    policy = finish(c_morl.train(Three, config=config, seed=0)).policy()
    found = {tuple(round(value, 2) for value in row) for row in policy.returns.tolist()}
    assert {(1.0, 0.0), (0.0, 1.0)} <= found
    assert policy.returns[policy.assign([1, 0])].tolist() == pytest.approx([1, 0])
    assert policy.returns[policy.assign([0, 1])].tolist() == pytest.approx([0, 1])
