"""SDP as a recipe: the published settings, what is drawn and learnt, what is refused, what is saved."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.experience.episodes import Episodes
from policysmith.policies.diffusion import DiffusionPolicy
from policysmith.policies.protocol import load_policy
from policysmith.policies.streaming import StreamingPolicy
from policysmith.systems import diffusion_policy
from policysmith.systems.sdp import PRESETS, Config, level_regime, train

TINY = PRESETS["tiny"]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def episodes(count: int = 4, length: int = 15) -> Episodes:
    random = np.random.default_rng(0)
    walk = random.normal(size=(count, length, 3)).cumsum(1)
    return Episodes.from_arrays(
        {"observation": states, "action": 0.1 * states[:, :2] + 5} for states in walk.astype(np.float32)
    )


EPISODES = episodes()


def trained(config: Config = TINY, *, steps: int = 3, seed: int = 0):
    """The state of a run after so many steps."""
    return list(itertools.islice(train(EPISODES, config=config, seed=seed), steps))[-1].state


# ---- settings ----------------------------------------------------------------------------------------


def test_defaults_are_the_published_settings():
    config = Config()
    assert (config.horizon, config.observation_steps, config.action_steps) == (20, 2, 8)
    assert (config.noise_levels, config.sampling_steps) == (100, None)
    assert config.regimes == (0.2, 0, 0, 0.8)
    assert (config.buffer_start, config.noise_past) == ("zero", True)
    assert (config.widths, config.kernel, config.groups, config.level_size) == ((256, 512, 1024), 5, 8, 256)
    assert (config.learning_rate, config.adam_betas, config.weight_decay) == (1e-4, (0.95, 0.999), 1e-6)
    assert (config.warmup_steps, config.batch_size) == (500, 256)
    assert (config.average_power, config.average_maximum) == (0.75, 0.9999)
    assert PRESETS["paper"] == config


def test_the_experiments_settings_cost_a_third_of_the_calls():
    bench = PRESETS["bench"]
    assert (bench.horizon, bench.observation_steps, bench.action_steps, bench.noise_levels) == (16, 2, 4, 50)
    assert (bench.widths, bench.steps, bench.batch_size) == ((64, 128), 3000, 256)
    single = replace(bench, action_steps=1)  # the second setting of the experiment is legal as it stands
    assert single.horizon - 1 == 15


# ---- the levels of training --------------------------------------------------------------------------


def kind_of(levels: torch.Tensor, config: Config) -> str:
    """Which regime a batch of levels came from."""
    if bool((levels == levels[:, :1]).all()):
        return "constant"
    if torch.equal(levels, levels[:1].expand_as(levels)) and bool((levels.diff() >= 0).all()):
        return "increasing" if int(levels[0, 0]) == 0 and int(levels[0, 1]) > 0 else "chunkwise"
    return "chunkwise" if bool((levels.diff() >= 0).all()) else "independent"


@pytest.mark.parametrize(
    ("regimes", "kind"),
    [
        ((1.0, 0.0, 0.0, 0.0), "constant"),
        ((0.0, 1.0, 0.0, 0.0), "increasing"),
        ((0.0, 0.0, 1.0, 0.0), "independent"),
        ((0.0, 0.0, 0.0, 1.0), "chunkwise"),
    ],
)
def test_probabilities_are_constant_increasing_independent_chunkwise_in_this_order(regimes, kind):
    config = replace(TINY, regimes=regimes, noise_levels=20)
    assert kind_of(level_regime(config)(50, rng()), config) == kind


def test_the_default_mixture_is_one_constant_batch_in_five():
    config, stream = Config(), rng()
    regime = level_regime(config)
    kinds = [kind_of(regime(8, stream), config) for _ in range(1000)]
    assert set(kinds) == {"constant", "chunkwise"}
    assert kinds.count("constant") / 1000 == pytest.approx(0.2, abs=0.05)


# ---- runs --------------------------------------------------------------------------------------------


def test_the_policy_streams_and_is_scaled_to_the_range_of_the_data():
    policy = trained(steps=1).policy()
    assert isinstance(policy, StreamingPolicy)
    assert policy.model.network.level_positions == TINY.horizon
    low, high = (EPISODES.steps["action"].amin(0), EPISODES.steps["action"].amax(0))
    torch.testing.assert_close(policy.model.action_normalizer(low), -torch.ones(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(policy.model.action_normalizer(high), torch.ones(2), atol=1e-4, rtol=0)
    scaled = policy.model.observation_normalizer(EPISODES.steps["observation"])
    torch.testing.assert_close(scaled.abs().amax(0), torch.ones(3), atol=1e-4, rtol=0)


def test_calls_per_decision_are_levels_over_chunks():
    policy = trained(steps=1).policy()
    state, stream = policy.initial_state(2), rng()
    for decision in range(1, 5):
        actions, state = policy.act(torch.zeros(2, 2, 3), state, rng=stream)
        assert actions.shape == (2, 2, 2)
        assert state["network_calls"].tolist() == [2 * decision] * 2  # 6 levels, 3 chunks


def test_diffusion_policy_has_the_same_weights_but_for_the_level_encoder():
    """The one change to the network: its first layer reads a vector of levels."""
    plain = next(iter(diffusion_policy.train(EPISODES, config=diffusion_policy.PRESETS["tiny"]))).state
    ours, theirs = (state.policy().model.network.state_dict() for state in (trained(steps=1), plain))
    assert set(ours) == set(theirs)
    differing = [name for name in ours if ours[name].shape != theirs[name].shape]
    assert len(differing) == 1
    assert differing[0].startswith("level_encoder")
    assert ours[differing[0]].shape[1] == TINY.horizon * theirs[differing[0]].shape[1]
    assert isinstance(plain.policy(), DiffusionPolicy)


def test_what_acts_is_the_average_of_the_weights():
    config = replace(TINY, warmup_steps=0, learning_rate=1e-2)
    state = trained(config, steps=4)
    present = state.learners["policy"].module.model.network.state_dict()
    average = state.policy().model.network.state_dict()
    assert any(not torch.equal(present[name], average[name]) for name in present)
    assert not state.policy().training


def test_runs_repeat_with_their_seed_and_leave_global_randomness_alone():
    before = torch.get_rng_state()
    one, two, other = (
        [now.metrics["loss"] for now in itertools.islice(train(EPISODES, config=TINY, seed=seed), 3)]
        for seed in (1, 1, 2)
    )
    assert one == two
    assert one != other
    assert torch.equal(torch.get_rng_state(), before)


def test_training_lowers_the_error():
    config = replace(TINY, steps=30, warmup_steps=0, learning_rate=1e-2, batch_size=32)
    losses = [now.metrics["loss"] for now in train(EPISODES, config=config)]
    assert np.mean(losses[-8:]) < 0.85 * np.mean(losses[:2])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampling_steps": 3},
        {"buffer_start": "constant", "position": (0, 2)},
        {"buffer_start": "denoise", "noise_past": False},
    ],
)
def test_a_saved_policy_acts_the_same(changes, tmp_path):
    policy = trained(replace(TINY, **changes), steps=2).policy()
    policy.save_pretrained(tmp_path)
    loaded = load_policy(tmp_path)
    states = [policy.initial_state(3), loaded.initial_state(3)]
    streams = [rng(), rng()]
    for decision in range(3):
        observation = torch.randn(3, 2, 3, generator=rng(decision))
        (ours, theirs) = (
            who.act(observation, state, rng=stream)
            for who, state, stream in zip((policy, loaded), states, streams, strict=True)
        )
        states = [ours[1], theirs[1]]
        assert torch.equal(ours[0], theirs[0])
    for name in ("buffer_start", "noise_past", "position"):
        assert getattr(loaded, name) == getattr(policy, name) == getattr(replace(TINY, **changes), name)


# ---- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "smallest"),
    [
        ({"horizon": 18, "widths": (8, 16, 32), "action_steps": 8}, 12),  # not a multiple of 4
        ({"horizon": 8, "action_steps": 8}, 10),  # too short
        ({"horizon": 7, "widths": (8, 16, 32), "action_steps": 8}, 12),  # both
        ({"horizon": 6, "observation_steps": 5, "widths": (8,)}, None),  # just right
    ],
)
def test_a_bad_horizon_is_refused_with_the_three_numbers_and_the_smallest_legal_one(changes, smallest):
    if smallest is None:
        replace(TINY, **changes)
        return
    with pytest.raises(SettingError) as caught:
        train(EPISODES, config=replace(TINY, **changes))
    config = TINY.__dict__ | changes
    for name in ("horizon", "observation_steps", "action_steps"):
        assert str(config[name]) in caught.value.what
    assert f"{smallest} or more" in caught.value.expected
    train(EPISODES, config=replace(TINY, **(changes | {"horizon": smallest})))


@pytest.mark.parametrize(
    "regimes", [(0.5, 0.0, 0.0, 0.4), (1.2, 0.0, 0.0, -0.2), (0.5, 0.5), (), (float("nan"), 0.0, 0.0, 1.0)]
)
def test_probabilities_that_are_none_are_listed(regimes):
    with pytest.raises(SettingError) as caught:
        train(EPISODES, config=replace(TINY, regimes=regimes))
    assert str(list(regimes)) in caught.value.what


def test_fewer_levels_than_chunks_are_refused():
    with pytest.raises(SettingError, match="2 noise levels cannot be spread over 3 chunks") as caught:
        train(EPISODES, config=replace(TINY, noise_levels=2))
    assert "3 or more" in caught.value.cure
    with pytest.raises(SettingError, match="2 noise levels cannot be spread over 3 chunks"):
        train(EPISODES, config=replace(TINY, sampling_steps=2))


def test_other_numbers_of_sampling_steps_choose_the_strided_sampler_or_are_refused():
    policy = trained(replace(TINY, sampling_steps=3), steps=1).policy()
    assert policy.process.training_level.tolist() == [0, 2, 4]
    assert not bool(policy.process._table[:, 4].any())  # deterministic
    for steps in (0, 7):
        with pytest.raises(SettingError, match=f"{steps} sampling steps"):
            train(EPISODES, config=replace(TINY, sampling_steps=steps))


@pytest.mark.parametrize("position", [(), (0,), (0, 1, 2), (0, 3), (-1, 0)])
def test_a_constant_start_needs_one_position_per_action(position):
    with pytest.raises(SettingError, match="2 dimensions of the observation") as caught:
        train(EPISODES, config=replace(TINY, buffer_start="constant", position=position))
    assert str(list(position)) in caught.value.what


def test_an_unknown_start_is_refused_before_training():
    with pytest.raises(SettingError, match="'warm'"):
        train(EPISODES, config=replace(TINY, buffer_start="warm"))


@pytest.mark.parametrize(
    "name", ["horizon", "observation_steps", "action_steps", "noise_levels", "batch_size"]
)
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_below_one_are_refused_by_name(name, value):
    with pytest.raises(SettingError, match=f"{name} is {value}"):
        replace(TINY, **{name: value})
