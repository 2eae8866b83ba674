"""The cloning learner: what each loss makes of two answers, and which actions of a window it reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policysmith.common.errors import CapabilityError, DataError, SettingError
from policysmith.experience.episodes import Episodes
from policysmith.policies.cloning import MixturePolicy, RegressionPolicy
from policysmith.training.learners.cloning import (
    CloningSettings,
    cloning_policy,
    cloning_run,
    likelihood_loss,
    regression_loss,
)
from policysmith.training.loop import finish

torch.set_num_threads(1)
SMALL = CloningSettings(hidden=(16,), steps=300, batch_size=32, learning_rate=1e-2, minimum_deviation=1e-2)


def one_state(actions):
    """Episodes of two steps in which one state is answered by `actions`."""
    rows = [{"observation": np.zeros((2, 2)), "action": np.full((2, 1), a)} for a in actions]
    return Episodes.from_arrays(rows)


def answered(policy, count=200):
    state = policy.initial_state(count)
    actions, _ = policy.act(torch.zeros(count, 1, 2), state, rng=torch.Generator().manual_seed(0))
    return actions.flatten()


def trained(episodes, settings, loss):
    policy = cloning_policy(episodes, settings=settings, seed=0)
    return finish(cloning_run(policy, loss, episodes, settings=settings, seed=0)).policy()


def test_squared_error_acts_the_mean_of_two_answers():
    policy = trained(one_state([-0.5, -0.5, -0.5, 0.5]), SMALL, regression_loss)
    assert answered(policy).detach().numpy() == pytest.approx(-0.25, abs=0.1)


def test_a_mixture_keeps_both_answers_and_their_shares():
    settings = CloningSettings(**{**vars(SMALL), "components": 4})
    policy = trained(one_state([-0.5, -0.5, -0.5, 0.5]), settings, likelihood_loss)
    answers = answered(policy, 1000).detach()
    assert float(torch.minimum((answers - 0.5).abs(), (answers + 0.5).abs()).max()) < 0.1
    assert (answers > 0).float().mean().item() == pytest.approx(0.25, abs=0.1)


def test_losses_are_per_row_and_do_not_mix_rows():
    episodes = one_state([-0.5, 0.5])
    for components, loss in ((0, regression_loss), (3, likelihood_loss)):
        settings = CloningSettings(**{**vars(SMALL), "components": components})
        policy = cloning_policy(episodes, settings=settings, seed=0)
        batch = next(iter_batches(policy, episodes))
        values, _ = loss(policy, batch)
        assert values.shape == (len(batch),)
        torch.testing.assert_close(loss(policy, batch[1:3])[0], values[1:3])


def iter_batches(policy, episodes):
    from policysmith.experience.windows import WindowSampler

    horizon = policy.observation_steps - 1 + policy.action_steps
    windows = WindowSampler(
        episodes,
        horizon=horizon,
        observation_steps=policy.observation_steps,
        action_steps=policy.action_steps,
        rng=torch.Generator().manual_seed(0),
    )
    while True:
        yield windows.sample(4)


def test_actions_before_now_are_not_learnt():
    steps = np.arange(6.0)[:, None] / 10
    episodes = Episodes.from_arrays([{"observation": np.repeat(steps, 2, 1), "action": steps}])
    settings = CloningSettings(hidden=(4,), observation_steps=3, action_steps=2)
    policy = cloning_policy(episodes, settings=settings, seed=0)
    batch = next(iter_batches(policy, episodes))
    expected = (policy.predict(batch["observation"]) - batch["action"][:, 2:]).square().flatten(1).mean(1)
    torch.testing.assert_close(regression_loss(policy, batch)[0], expected)
    # The action for now is the one taken at the newest observation (but where the window ends the episode).
    newest, now = batch["observation"][:, -1, 0], batch["action"][:, 2, 0]
    torch.testing.assert_close(newest, now)


def test_scales_are_those_of_the_data_or_none():
    episodes = Episodes.from_arrays([{"observation": [[0.0], [8.0]], "action": [[0.0], [0.5]]}])
    plain = cloning_policy(episodes, settings=SMALL, seed=0)
    assert plain.observation_normalizer.scale.tolist() == [1.0]
    fitted = cloning_policy(episodes, settings=CloningSettings(normalise=True), seed=0)
    assert fitted.observation_normalizer.scale.tolist() == [4.0]
    assert fitted.action_normalizer.offset.tolist() == [0.25]


def test_the_kind_of_policy_follows_the_components():
    episodes = one_state([0.0])
    assert isinstance(cloning_policy(episodes, settings=SMALL, seed=0), RegressionPolicy)
    mixture = cloning_policy(episodes, settings=CloningSettings(components=3), seed=0)
    assert isinstance(mixture, MixturePolicy)
    assert mixture.components == 3


def test_actions_beyond_the_output_are_refused_unless_scaled():
    episodes = one_state([0.0, 2.5])
    with pytest.raises(DataError, match=r"reach 2\.5[\s\S]*normalise"):
        cloning_policy(episodes, settings=SMALL, seed=0)
    cloning_policy(episodes, settings=CloningSettings(normalise=True), seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"action_steps": 0},
        {"components": -1},
        {"learning_rate": float("nan")},
        {"hidden": (0,)},
        {"minimum_deviation": 0.0},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong)).split("_")[0]):
        CloningSettings(**wrong)


def test_goals_are_learnt_from_and_pictures_refused():
    parts = {"state": np.zeros((4, 2)), "goal": np.arange(4.0)[:, None]}
    episodes = Episodes.from_arrays([{"observation": parts, "action": np.arange(4.0)[:, None] / 4}])
    settings = CloningSettings(**{**vars(SMALL), "normalise": True})
    policy = trained(episodes, settings, regression_loss)
    assert policy.goal_size == 1
    batch = next(iter_batches(policy, episodes))
    assert regression_loss(policy, batch)[0].max().item() < 0.01

    seen = {"state": np.zeros((4, 2)), "camera": np.zeros((4, 8, 8, 3), np.uint8)}
    pictures = Episodes.from_arrays([{"observation": seen, "action": np.zeros((4, 1))}])
    with pytest.raises(CapabilityError, match="camera"):
        cloning_policy(pictures, settings=SMALL, seed=0)
