"""BESO as a recipe: the published settings, what is drawn, shown and learnt, what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import CapabilityError, DataError, SettingError, ShapeError
from policysmith.common.rng import generator
from policysmith.experience.episodes import Episodes
from policysmith.policies.score import resampled
from policysmith.systems.beso import BLOCK_PUSH, PRESETS, Config, train
from policysmith.training.learner import staircase_schedule
from policysmith.training.learners.goals import kept_goals
from policysmith.training.learners.score import score_loss, score_model

TINY = PRESETS["tiny"]


def episodes(count: int = 4, length: int = 15, *, goal: int = 0) -> Episodes:
    random = np.random.default_rng(0)
    walk = random.normal(size=(count, length, 3)).cumsum(1).astype(np.float32)

    def seen(states):
        return {"state": states, "goal": np.ones((length, goal))} if goal else states

    return Episodes.from_arrays(
        {"observation": seen(states), "action": 0.1 * states[:, :2] + 5} for states in walk
    )


EPISODES = episodes()


def trained(config: Config = TINY, *, steps: int = 3, seed: int = 0):
    """The state of a run after so many steps."""
    return list(itertools.islice(train(EPISODES, config=config, seed=seed), steps))[-1].state


def drawn(config: Config = TINY, rows: int = 0, seed: int = 0):
    """A model, and a batch as its training sees it before noise is added."""
    state = trained(replace(config, batch_size=rows or config.batch_size), steps=1, seed=seed)
    batch = state.sources["windows"].sample(rows or config.batch_size)  # type: ignore[attr-defined]
    return state.learners["policy"].module, kept_goals(batch, config, generator(seed, "goals"))


# ---- settings ----------------------------------------------------------------------------------------


def test_defaults_are_the_published_settings_of_the_kitchen():
    config = Config()
    assert (config.window, config.goal_steps, config.separation, config.goal_dimensions) == (4, 2, 0, ())
    assert (config.width, config.depth, config.heads) == (360, 6, 6)
    assert (config.attention_dropout, config.residual_dropout) == (0.3, 0)
    assert (config.sigma_min, config.sigma_max, config.sigma_data) == (0.005, 1, 0.5)
    assert (config.steps, config.batch_size, config.learning_rate) == (40_000, 1024, 1e-4)
    assert (config.adam_betas, config.weight_decay) == ((0.9, 0.999), 0.01)
    assert (config.sampler, config.schedule, config.sampling_steps) == ("ddim", "exponential", 3)
    assert (config.decay, config.decay_every, config.average_maximum) == (0.99, 100, 0.999)
    assert (config.standardise, config.goal_dropping, config.guidance) == (False, 0, 1)
    assert PRESETS["paper"] == config


def test_the_published_settings_of_block_push():
    config = BLOCK_PUSH
    assert (config.window, config.goal_steps, config.goal_dimensions) == (5, 1, (0, 1, 3, 4))
    assert (config.width, config.depth, config.heads) == (240, 4, 12)
    assert (config.attention_dropout, config.residual_dropout) == (0.05, 0.05)
    assert (config.sigma_min, config.sigma_max, config.steps, config.batch_size) == (0.05, 1, 60_000, 1024)
    assert (config.standardise, config.weight_decay) == (True, 0)
    assert PRESETS["block-push"] is config


def test_three_exponential_steps_of_ddim_over_the_kitchens_range():
    policy = trained(replace(TINY, sampling_steps=3)).policy()
    assert policy.sigmas.tolist() == pytest.approx([1, 0.070711, 0.005, 0], abs=1e-6)
    assert policy.calls_per_decision == 3


def test_block_push_scales_and_keeps_the_blocks_places_alone():
    random = np.random.default_rng(1)
    made = Episodes.from_arrays(
        [{"observation": 3 + 2 * random.normal(size=(30, 10)), "action": random.normal(size=(30, 2))}]
    )
    model = score_model(made, settings=replace(BLOCK_PUSH, width=24, depth=1), seed=0)
    state = made.steps["observation"]
    scaled = (state - state.mean(0)) / state.std(0)
    goal = model.condition.scale_goal(state[:, None, [0, 1, 3, 4]])[:, 0]
    torch.testing.assert_close(goal[:, [0, 1, 3, 4]], scaled[:, [0, 1, 3, 4]])
    assert not goal[:, [2, 5, 6, 7, 8, 9]].any()
    action = made.steps["action"]
    standard = (action - action.mean(0)) / action.std(0)
    torch.testing.assert_close(model.low, standard.amin(0))
    torch.testing.assert_close(model.high, standard.amax(0))


def test_the_kitchen_leaves_states_and_actions_as_they_are():
    model = score_model(EPISODES, settings=replace(TINY, standardise=False), seed=0)
    assert torch.equal(model.action_normalizer(EPISODES.steps["action"]), EPISODES.steps["action"])
    assert torch.equal(model.low, EPISODES.steps["action"].amin(0))
    assert torch.equal(model.condition.normalizer.offset, torch.zeros(3))


# ---- what is drawn and learnt -------------------------------------------------------------------------


def test_goals_are_left_out_whole_or_number_by_number():
    config = replace(TINY, goal_dropping=0.4)
    _, whole = drawn(config, rows=500)
    assert whole["goal_mask"].shape == (500, 1, 1)
    share = whole["goal_mask"][whole["has_goal"]].float().mean()
    assert share == pytest.approx(0.6, abs=0.07)
    _, single = drawn(replace(config, drop_elements=True), rows=500)
    mask = single["goal_mask"][single["has_goal"]].float()
    assert mask.shape[1:] == (2, 3)
    assert mask.mean() == pytest.approx(0.6, abs=0.04)
    assert 0 < mask[:, 0].mean(-1).mul(3).eq(1).float().mean() < 1, "some rows lose some numbers only"
    assert not single["goal_mask"][~single["has_goal"]].any()


def test_the_plain_model_is_told_every_goal_there_is():
    _, batch = drawn(replace(TINY, goal_dropping=0.0))
    assert torch.equal(batch["goal_mask"][:, 0, 0], batch["has_goal"])


def test_noise_is_one_size_per_window_and_from_the_truncated_log_logistic_density():
    progress = train(EPISODES, config=replace(TINY, batch_size=3000, width=2, heads=1))
    learner, drawn_sigma = next(progress).state.learners["policy"], []

    def note(policy, batch):
        drawn_sigma.append(batch["sigma"])
        return score_loss(policy, batch)

    learner.loss = note
    next(progress)
    (sigma,) = drawn_sigma
    assert sigma.shape == (3000,)
    assert 0.005 <= sigma.min() <= sigma.max() <= 1
    # The share below 0.3 of a logistic in ln sigma around ln 0.5 with scale 0.5, between the two ends.
    below = 1 / (1 + np.exp(-(np.log([0.005, 1.0, 0.3]) - np.log(0.5)) / 0.5))
    share = (below[2] - below[0]) / (below[1] - below[0])
    assert (sigma < 0.3).float().mean() == pytest.approx(share, abs=4 * (share * (1 - share) / 3000) ** 0.5)


def test_the_loss_is_the_networks_squared_error_over_the_whole_window_in_scaled_units():
    policy, batch = drawn()
    sigma = torch.linspace(0.01, 0.9, len(batch))
    batch = policy.model.corrupt(batch, sigma, rng=generator(0, "noise"))
    told = []

    class Half(torch.nn.Module):
        """Answers 0.5 everywhere."""

        def forward(self, noisy, level, condition):
            told.append((noisy, level, condition))
            return torch.full_like(noisy, 0.5)

        def check(self, noisy, level, condition):
            return level

    policy.model.denoiser.network = Half()
    values, statistics = score_loss(policy, batch)
    ((noisy, level, condition),) = told
    clean = policy.model.action_normalizer(batch["action"]).double()
    s = sigma.double()[:, None, None]
    total = s**2 + 0.25
    x = clean + s * batch["noise"]
    target = (clean - 0.25 / total * x) / (s * 0.5 / total.sqrt())
    torch.testing.assert_close(values.double(), (0.5 - target).square().mean((1, 2)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(noisy.double(), x / total.sqrt(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(level, sigma.log() / 4)
    assert condition.shape == (len(batch), (2 + 3) * 3)
    assert statistics == {}


def test_what_a_window_without_a_goal_is_told_is_zero_and_not_the_scaled_zero():
    policy, batch = drawn(rows=60)
    assert not batch["has_goal"].all()
    told = []
    network = policy.model.denoiser.network
    forward = network.forward
    network.forward = lambda noisy, level, condition: (
        told.append(condition) or forward(noisy, level, condition)
    )
    policy.model.estimate(policy.model.corrupt(batch, torch.ones(60), rng=generator(0, "noise")))
    goals = told[0].unflatten(1, (5, 3))[:, :2]
    empty = (goals == 0).flatten(1).all(1)
    assert torch.equal(empty, ~batch["goal_mask"][:, 0, 0])


def test_the_rate_falls_by_a_hundredth_every_hundred_steps():
    schedule = staircase_schedule(every=100, factor=0.99)
    assert [schedule(step) for step in (0, 99, 100, 250)] == pytest.approx([1, 1, 0.99, 0.99**2])


def test_the_policy_that_acts_has_the_averaged_weights():
    state = trained(replace(TINY, learning_rate=0.1), steps=1)
    learner = state.learners["policy"]
    begun = score_model(EPISODES, settings=TINY, seed=0)
    name = "denoiser.network.action_input.weight"
    start, now, acting = (
        dict(module.named_parameters())[name]
        for module in (begun, learner.module.model, state.policy().model)
    )
    torch.testing.assert_close(acting, 0.1 * start + 0.9 * now)


def test_dropout_is_repeated_by_the_seed_and_by_nothing_global():
    config = replace(TINY, attention_dropout=0.5, residual_dropout=0.5)
    torch.manual_seed(1)
    one = [now.metrics for now in train(EPISODES, config=config, seed=3)]
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = [now.metrics for now in train(EPISODES, config=config, seed=3)]
    assert one == other
    assert torch.equal(before, torch.get_rng_state())
    plain = [now.metrics for now in train(EPISODES, config=TINY, seed=3)]
    assert one != plain


def test_a_killed_run_goes_on_bit_for_bit_with_dropout_too():
    config = replace(TINY, attention_dropout=0.5, residual_dropout=0.5)
    third = trained(config).state_dict()
    whole = [now.metrics for now in train(EPISODES, config=config)][3:]
    assert [now.metrics for now in train(EPISODES, config=config, state=third)] == whole


def test_where_play_goes_two_ways_both_are_learnt_and_not_their_mean():
    random = np.random.default_rng(0)
    made = Episodes.from_arrays(
        {"observation": 0.1 * random.normal(size=(9, 2)), "action": np.full((8, 1), way)}
        for way in [1.0, -1.0] * 8
    )
    config = replace(TINY, window=1, goal_steps=1, steps=250, batch_size=32, learning_rate=1e-2)
    *_, last = train(made, config=config)
    policy = resampled(last.state.policy(), sampling_steps=10)
    parts = {"state": torch.zeros(200, 1, 2), "goal": torch.full((200, 1, 2), 0.05)}
    seen = TensorDict(parts, batch_size=[200, 1])
    action = policy.act(seen, policy.initial_state(200), rng=generator(0, "act"))[0].flatten()
    assert 0.2 < (action > 0).float().mean() < 0.8
    assert (action.abs() > 0.4).float().mean() > 0.95


# ---- bad input ----------------------------------------------------------------------------------------


def test_episodes_shorter_than_a_window_are_skipped_and_counted_and_all_of_them_an_error():
    mixed = Episodes.from_arrays(
        {"observation": np.ones((n, 2)) * np.arange(n)[:, None], "action": np.zeros((n, 1))}
        for n in (2, 9, 1)
    )
    state = next(train(mixed, config=TINY)).state
    assert state.sources["windows"].skipped == 2
    with pytest.raises(DataError, match="as long as a window"):
        next(train(mixed.select([0, 2]), config=TINY))


def test_goals_of_another_width_than_the_state_are_refused_and_both_are_named():
    with pytest.raises(ShapeError, match=r"goals of width 2 and states of width 3(.|\n)*goal_dimensions"):
        next(train(episodes(goal=2), config=TINY))
    policy = next(train(episodes(goal=2), config=replace(TINY, goal_dimensions=(0, 1)))).state.policy()
    assert policy.parts == {"state": (3,), "goal": (2,)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"sigma_min": 0.0},
        {"sigma_min": 1.0},
        {"sigma_max": 0.001},
        {"window": 0},
        {"goal_dropping": 1.0},
        {"attention_dropout": -0.1},
        {"decay": 1.5},
        {"separation": -1},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingError):
        replace(TINY, **wrong)


def test_no_steps_of_sampling_are_refused():
    with pytest.raises(SettingError, match="0 steps"):
        next(train(EPISODES, config=replace(TINY, sampling_steps=0)))


def test_guidance_without_goal_dropping_is_refused_before_training_and_after():
    with pytest.raises(CapabilityError, match="goal_dropping above 0"):
        next(train(EPISODES, config=replace(TINY, goal_dropping=0.0, guidance=1.5)))
    policy = trained(replace(TINY, goal_dropping=0.0)).policy()
    with pytest.raises(CapabilityError, match="goal_dropping above 0"):
        resampled(policy, guidance=0.0)
