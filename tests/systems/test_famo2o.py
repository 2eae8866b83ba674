"""FamO2O: two phases on one replay, either base, and data that it cannot learn from."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from policysmith.cli.main import main
from policysmith.common.errors import CapabilityError, DataError, SettingError, ShapeError
from policysmith.evaluation.conformance import ENVIRONMENT, check_training
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.experience.store import save_episodes
from policysmith.policies.family import BalanceChooser, UniformChooser, member
from policysmith.policies.protocol import load_policy
from policysmith.systems import famo2o
from policysmith.training.loop import finish

torch.set_num_threads(1)

TINY = famo2o.PRESETS["tiny"]


@pytest.fixture(scope="module")
def episodes():
    return Episodes.from_arrays(Demonstrations(ENVIRONMENT, episodes=6, action_noise=0.3).record())


def changed(episodes, **steps):
    """The episodes with some of their entries replaced."""
    tensors = episodes.steps.clone()
    for name, value in steps.items():
        tensors[name] = value
    return dataclasses.replace(episodes, steps=tensors)


def test_the_first_steps_only_read_and_the_others_act_and_keep_what_they_see(episodes):
    rows = len(episodes.steps)
    phases, sizes = [], []
    for now in famo2o.train(ENVIRONMENT, episodes, config=TINY):
        phases.append(now.state.phase)
        sizes.append(now.state.sources["replay"].written - rows)
    assert phases == ["offline"] * 4 + ["online"] * 4
    assert sizes == [0, 0, 0, 0, 1, 2, 3, 4]


def test_rewards_are_shifted_and_scaled_where_they_are_learnt_from_and_kept_as_they_were(episodes):
    def first_loss(**changes):
        config = dataclasses.replace(TINY, **changes)
        return next(famo2o.train(ENVIRONMENT, episodes, config=config)).metrics["critic_loss"]

    shifted = changed(episodes, reward=2 * episodes.steps["reward"] - 3)
    config = dataclasses.replace(TINY, reward_shift=0.0)
    wanted = next(famo2o.train(ENVIRONMENT, shifted, config=config)).metrics["critic_loss"]
    assert first_loss(reward_scale=2.0, reward_shift=-3.0) == pytest.approx(wanted, rel=1e-5)


def test_rewards_scaled_by_the_spread_of_the_returns(episodes):
    spread = float(episodes.returns.max() - episodes.returns.min())
    found = [
        next(famo2o.train(ENVIRONMENT, episodes, config=dataclasses.replace(TINY, reward_shift=0.0, **how)))
        for how in ({"scale_by_returns": True}, {"reward_scale": 1000 / spread})
    ]
    assert found[0].metrics == found[1].metrics


def test_a_family_over_cql_conforms_too(episodes, tmp_path):
    over_cql = dataclasses.make_dataclass("Module", ["train", "PRESETS"])
    check_training(
        over_cql(famo2o.train, {"tiny": famo2o.PRESETS["tiny-cql"]}), (ENVIRONMENT, episodes), tmp_path
    )


def test_the_policy_chooses_by_state_and_any_member_can_be_taken(episodes):
    policy = finish(famo2o.train(ENVIRONMENT, episodes, config=TINY)).policy()
    assert policy.deterministic
    assert isinstance(policy.chooser, BalanceChooser)
    seen = episodes.steps["observation"]
    low, high = TINY.balance_range
    balance = policy.chooser(seen)
    assert bool(((balance >= low) & (balance <= high)).all())
    assert len(balance.unique()) > 1
    assert len(member(policy, high).chooser(seen).unique()) == 1


def test_balances_at_random_have_no_chooser_to_learn(episodes):
    config = dataclasses.replace(TINY, random_balances=True)
    state = finish(famo2o.train(ENVIRONMENT, episodes, config=config))
    assert "chooser" not in state.learners
    assert isinstance(state.policy().chooser, UniformChooser)


# ---- bad input -----------------------------------------------------------------------------------------


def test_actions_beyond_the_limits_are_refused_with_the_worst_of_them(episodes):
    action = episodes.steps["action"].clone()
    action[3, 1] = -1.75
    first = int(episodes.lengths[0])
    action[first + 1, 0] = 1.5
    with pytest.raises(DataError, match=r"-1\.75") as caught:
        next(famo2o.train(ENVIRONMENT, changed(episodes, action=action), config=TINY))
    assert "step" in str(caught.value)
    assert "rescale" in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rewards_that_are_not_finite_are_refused_with_their_place(value):
    arrays = [
        {"observation": np.zeros((4, 4)), "action": np.zeros((3, 2)), "reward": np.zeros(3)} for _ in range(2)
    ]
    arrays[1]["reward"][2] = value
    with pytest.raises(DataError, match="'reward' is not finite") as caught:
        Episodes.from_arrays(arrays)
    assert "episode 1, step 2" in str(caught.value)


def test_data_of_another_environment_are_refused(episodes):
    with pytest.raises(ShapeError, match="4 numbers"):
        next(famo2o.train("Pendulum-v1", changed(episodes, action=episodes.steps["action"]), config=TINY))
    with pytest.raises(CapabilityError, match="dqn"):
        next(famo2o.train("CartPole-v1", episodes, config=TINY))


def test_data_that_the_replay_cannot_hold_are_refused(episodes):
    config = dataclasses.replace(TINY, replay_capacity=10)
    with pytest.raises(DataError, match="the replay holds 10"):
        next(famo2o.train(ENVIRONMENT, episodes, config=config))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"balance_range": (14.0, 8.0)}, r"14\.0 to 8\.0"),
        ({"encoding_size": 7}, "encoding size must be even"),
        ({"encoding_size": 0}, "encoding size must be even"),
        ({"offline_steps": -1}, "offline_steps"),
        ({"online_steps": 0}, "online_steps"),
        ({"reward_scale": 0.0}, "reward_scale"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(SettingError, match=said):
        dataclasses.replace(TINY, **changes)


def test_a_run_cut_in_its_online_phase_goes_on_from_there(episodes):
    whole = [now.metrics for now in famo2o.train(ENVIRONMENT, episodes, config=TINY)]
    part = list(itertools.islice(famo2o.train(ENVIRONMENT, episodes, config=TINY), 6))
    saved = part[-1].state.state_dict()
    rest = [now.metrics for now in famo2o.train(ENVIRONMENT, episodes, config=TINY, state=saved)]
    assert rest == whole[6:]


# ---- from the command line -----------------------------------------------------------------------------


def test_the_command_line_brings_environment_and_data(episodes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_episodes(episodes, tmp_path / "data")
    words = ["run", "famo2o", "--env", ENVIRONMENT, "--data", "data", "--preset", "tiny", "--out", "made"]
    assert main([*words, "--balance-range", "2", "3"]) == 0
    chooser = load_policy(tmp_path / "made").chooser
    assert (chooser.low, chooser.high) == (2.0, 3.0)
