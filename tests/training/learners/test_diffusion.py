"""The diffusion learner: what is drawn, what is minimised, what is refused, and that seeds repeat."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from policysmith.common.errors import DataError, FileError, NotFiniteError, SettingError
from policysmith.experience.episodes import Episodes
from policysmith.networks.levels import constant_levels
from policysmith.policies.diffusion import DiffusionPolicy
from policysmith.systems import diffusion_policy, sdp
from policysmith.training.learner import Learner
from policysmith.training.learners.diffusion import (
    DiffusionSettings,
    action_diffusion,
    diffusion_run,
    noise_prediction_loss,
)

torch.set_num_threads(1)

SYSTEMS = [sdp, diffusion_policy]


def made(*, seed=0, shift=0.0):
    random = np.random.default_rng(seed)
    return Episodes.from_arrays(
        {
            "observation": random.normal(size=(length + 1, 3)),
            "action": random.uniform(-3, 1, (length, 2)) * [1, 10] + shift,
        }
        for length in (12, 1, 9)
    )


EPISODES = made()
TINY = DiffusionSettings(
    horizon=8, action_steps=2, noise_levels=6, widths=(8, 16), level_size=8, steps=6, batch_size=8
)


def taken(system, count, *, episodes=EPISODES, seed=0, state=None, **changes):
    """The first steps of a run of the tiny preset; the state is one live object, as it ended."""
    return list(stepping(system, count, episodes=episodes, seed=seed, state=state, **changes))


def stepping(system, count, *, episodes=EPISODES, seed=0, state=None, **changes):
    """The same, one after another: the state is that of each step while it is looked at."""
    config = replace(system.PRESETS["tiny"], **changes)
    yield from itertools.islice(system.train(episodes, config=config, seed=seed, state=state), count)


def learner_and_batch(system, rows=12):
    """A learner in the middle of a run, and a corrupted batch for it, both in double precision."""
    state = taken(system, 3)[-1].state
    model = state.learners["policy"].module.model
    rng = torch.Generator().manual_seed(1)
    level = sdp.level_regime(sdp.PRESETS["tiny"])(rows, rng)
    if system is diffusion_policy:
        level = constant_levels(6, 8)(rows, rng)
    windows = state.sources["windows"]
    batch = model.corrupt(windows.gather(torch.arange(rows) % len(windows)), level, rng=rng)
    learner = state.learners["policy"]
    module = learner.module.double()
    plain = Learner(module, noise_prediction_loss, optimizer=torch.optim.SGD(module.parameters(), lr=0.1))
    return plain, batch.apply(lambda value: value.double() if value.is_floating_point() else value)


def parameters_of(learner):
    return {name: value.detach().clone() for name, value in learner.module.named_parameters()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# ---- the loss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_loss_is_the_mean_squared_error_of_the_noise_per_row_in_normalised_units(system):
    learner, batch = learner_and_batch(system)
    policy = learner.module
    told = []

    def network(noisy, level, condition):
        told.append((noisy, level, condition))
        return torch.full_like(noisy, 0.5)

    policy.model.network.forward = network
    values, statistics = noise_prediction_loss(policy, batch)
    expected = (batch["noise"].numpy() - 0.5) ** 2
    np.testing.assert_allclose(values, expected.mean((1, 2)), rtol=1e-5)
    assert statistics == {}
    ((noisy, level, condition),) = told
    low, high = (bound(EPISODES.steps["action"].numpy(), 0) for bound in (np.min, np.max))
    clean = 2 * (batch["action"].numpy() - low) / (high - low) - 1
    signal = policy.model.noise.signal[batch["noise_level"]].numpy()[..., None]
    mixed = np.sqrt(signal) * clean + np.sqrt(1 - signal) * batch["noise"].numpy()
    np.testing.assert_allclose(noisy, mixed, atol=1e-5)
    assert level.shape == ((12, 8) if system is sdp else (12,))
    assert condition.shape == (12, 6)
    assert condition.abs().max() <= 1 + 1e-6


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("cut", [1, 5, 12])
def test_micro_batches_do_not_change_the_step(system, cut):
    learner, batch = learner_and_batch(system)
    ends = []
    for micro_batch in (None, cut):
        module = copy.deepcopy(learner.module)
        one = Learner(
            module,
            noise_prediction_loss,
            optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
            micro_batch=micro_batch,
        )
        loss = one.step(batch)["loss"]
        ends.append((loss, parameters_of(one)))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-5)
    for name, value in ends[0][1].items():
        torch.testing.assert_close(value, ends[1][1][name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_functional_gradient_is_that_of_backward(system):
    learner, batch = learner_and_batch(system)
    parameters = parameters_of(learner)
    gradient, value = torch.func.grad_and_value(learner.functional_loss)(parameters, batch)
    assert float(value) == pytest.approx(learner.step(batch)["loss"], rel=1e-5)
    for name, parameter in learner.module.named_parameters():
        torch.testing.assert_close(gradient[name], parameter.grad, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_population_of_networks_is_evaluated_at_once(system):
    learner, batch = learner_and_batch(system)
    rng = torch.Generator().manual_seed(2)
    members = [
        {
            name: value + 0.05 * torch.randn(value.shape, generator=rng, dtype=value.dtype)
            for name, value in parameters_of(learner).items()
        }
        for _ in range(3)
    ]
    population = {name: torch.stack([member[name] for member in members]) for name in members[0]}
    both = torch.func.grad_and_value(learner.functional_loss)
    gradients, values = torch.func.vmap(both, in_dims=(0, None))(population, batch)
    for i, member in enumerate(members):
        gradient, value = both(member, batch)
        torch.testing.assert_close(values[i], value, atol=1e-9, rtol=1e-6)
        for name, part in gradient.items():
            torch.testing.assert_close(gradients[name][i], part, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_weight_of_the_network_is_learnt(system):
    start, *_ = taken(system, 1)
    before = parameters_of(start.state.learners["policy"])
    state = taken(system, 4, warmup_steps=0)[-1].state
    for name, value in parameters_of(state.learners["policy"]).items():
        assert not torch.equal(value, before[name]), name


def test_training_lowers_the_loss_on_the_same_noise():
    learner, batch = learner_and_batch(sdp)
    before = float(learner.functional_loss(parameters_of(learner), batch).detach())
    run = sdp.train(
        EPISODES, config=replace(sdp.PRESETS["tiny"], steps=80, warmup_steps=0, learning_rate=5e-3)
    )
    state = list(run)[-1].state
    trained = {name: value.double() for name, value in parameters_of(state.learners["policy"]).items()}
    after = float(learner.functional_loss(trained, batch).detach())
    assert after < 0.8 * before


# ---- the run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_seed_repeats_a_run_whatever_the_global_generator_holds(system):
    torch.manual_seed(1)
    one = taken(system, 4)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = taken(system, 4)
    assert torch.equal(torch.get_rng_state(), before)
    assert [now.metrics for now in one] == [now.metrics for now in other]
    assert_equal(*(parameters_of(part[-1].state.learners["policy"]) for part in (one, other)))
    different = taken(system, 4, seed=1)
    assert [now.metrics for now in different] != [now.metrics for now in one]


def test_weights_windows_and_noise_have_streams_of_their_own():
    """A run with another batch size begins with the same weights and the same first windows."""
    small, large = (taken(sdp, 1, batch_size=size)[0].state for size in (4, 8))
    assert not torch.equal(*(part.generators["noise"].get_state() for part in (small, large)))
    assert torch.equal(*(part.generators["windows"].get_state() for part in (small, large)))
    models = [
        action_diffusion(EPISODES, settings=TINY, level_per_position=True, seed=seed) for seed in (0, 0, 1)
    ]
    assert_equal(models[0].state_dict(), models[1].state_dict())
    assert not torch.equal(next(models[0].parameters()), next(models[2].parameters()))


@pytest.mark.parametrize("per_position", [False, True])
def test_the_model_fits_the_data(per_position):
    model = action_diffusion(EPISODES, settings=TINY, level_per_position=per_position, seed=0)
    assert (model.observation_size, model.action_size, model.horizon) == (3, 2, 8)
    assert model.network.level_positions == (8 if per_position else 1)
    for key, normalizer in (
        ("observation", model.observation_normalizer),
        ("action", model.action_normalizer),
    ):
        scaled = normalizer(EPISODES.steps[key])
        np.testing.assert_allclose(scaled.amin(0), -1, atol=1e-5)
        np.testing.assert_allclose(scaled.amax(0), 1, atol=1e-5)
    assert not any("normalizer" in name for name, _ in model.named_parameters())


def test_every_step_draws_its_noise_and_levels_anew_from_their_own_stream():
    progress = sdp.train(EPISODES, config=replace(sdp.PRESETS["tiny"], steps=80))
    state = next(progress).state
    learner, batches = state.learners["policy"], []

    def watched(module, batch):
        batches.append(batch.clone())
        return noise_prediction_loss(module, batch)

    learner.loss = watched
    stream = torch.Generator()
    stream.set_state(state.generators["noise"].get_state())
    list(progress)
    regime = sdp.level_regime(sdp.PRESETS["tiny"])
    for batch in batches:
        assert torch.equal(batch["noise_level"], regime(8, stream))
        assert torch.equal(batch["noise"], torch.randn(8, 8, 2, generator=stream))
    noise = torch.stack([batch["noise"] for batch in batches])
    assert len(noise.flatten(1).unique(dim=0)) == len(noise) == 79
    assert float(noise.mean()) == pytest.approx(0, abs=0.03)
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    assert {int(batch["noise_level"].max()) for batch in batches} <= set(range(6))


def test_the_learning_rate_warms_up_and_falls_to_nothing():
    config = replace(sdp.PRESETS["tiny"], warmup_steps=2, learning_rate=0.5)
    rates = [
        now.state.learners["policy"].optimizer.param_groups[0]["lr"]
        for now in sdp.train(EPISODES, config=config)
    ]
    assert rates == pytest.approx([0, 0.25, 0.5, *(0.25 * (1 + np.cos(np.pi * np.arange(1, 4) / 4)))])


def test_the_policy_of_a_run_has_the_averaged_weights():
    state = taken(sdp, 5, warmup_steps=0, learning_rate=0.05)[-1].state
    learner = state.learners["policy"]
    acting = dict(state.policy().named_parameters())
    average = learner.average.state_dict()["average"]
    assert all(torch.equal(value, average[name]) for name, value in acting.items())
    assert any(not torch.equal(value, acting[name]) for name, value in parameters_of(learner).items())


def test_the_average_is_that_of_the_published_decay():
    """avg <- d avg + (1 - d) weights with d = 1 - (1 + t)^-0.75, t = 0, 1, ...: by hand over three steps."""
    expected = None
    for t, now in enumerate(stepping(sdp, 3, warmup_steps=0, learning_rate=0.05)):
        weights = {
            name: value.double() for name, value in parameters_of(now.state.learners["policy"]).items()
        }
        decay = 1 - (1 + t) ** -0.75
        expected = {
            name: value if expected is None else decay * expected[name] + (1 - decay) * value
            for name, value in weights.items()
        }
        for name, value in now.state.policy().named_parameters():
            torch.testing.assert_close(value.double(), expected[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_episode_of_one_step_is_enough(system):
    episodes = Episodes.from_arrays([{"observation": np.zeros((1, 3)), "action": np.ones((1, 2))}])
    state = taken(system, 6, episodes=episodes)[-1].state
    policy = state.policy()
    actions, _ = policy.act(
        torch.zeros(1, 2, 3), policy.initial_state(1), rng=torch.Generator().manual_seed(0)
    )
    assert actions.isfinite().all()


# ---- what is refused -----------------------------------------------------------------------------------


def test_a_run_goes_on_only_with_the_data_it_began_with():
    saved = copy.deepcopy(taken(sdp, 2)[-1].state.state_dict())
    assert taken(sdp, 1, state=saved)[0].step == 3
    for other in (made(shift=1.0), EPISODES.select([0, 1])):
        with pytest.raises((FileError, DataError), match="not those of the saved run"):
            taken(sdp, 1, episodes=other, state=saved)


@pytest.mark.parametrize("changes", [{"widths": (16, 16)}, {"level_size": 16}, {"observation_steps": 3}])
def test_a_run_goes_on_only_with_the_network_it_began_with(changes):
    saved = copy.deepcopy(taken(sdp, 2)[-1].state.state_dict())
    with pytest.raises(FileError, match="does not fit this run"):
        taken(sdp, 1, state=saved, **changes)


def test_the_state_of_another_system_does_not_fit():
    saved = taken(sdp, 2)[-1].state
    with pytest.raises(FileError, match="does not fit this run"):
        taken(diffusion_policy, 1, state=saved)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_learning_rate_that_explodes_is_named_before_it_spoils_the_weights(system):
    with pytest.raises(NotFiniteError, match=r"step \d+ of 60; optimiser step \d+; first tensor"):
        taken(system, 60, steps=60, warmup_steps=0, learning_rate=1e30)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 0},
        {"steps": 0},
        {"steps": -3},
        {"noise_levels": 0},
        {"observation_steps": 0},
        {"action_steps": 0},
        {"horizon": 0},
        {"horizon": 7},
        {"horizon": 2, "action_steps": 4},
        {"learning_rate": -1e-4},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"weight_decay": -1.0},
        {"warmup_steps": -1},
        {"sampling_steps": 0},
        {"sampling_steps": 7},
        {"groups": 3},
        {"groups": 0},
        {"widths": ()},
        {"kernel": 4},
        {"kernel": 0},
        {"level_size": 3},
        {"adam_betas": (1.5, 0.9)},
        {"average_power": -1.0},
        {"average_maximum": 1.5},
    ],
)
@pytest.mark.parametrize("system", SYSTEMS)
def test_settings_out_of_their_range_are_errors_of_ours(system, changes):
    with pytest.raises(SettingError) as error:
        taken(system, 1, **changes)
    assert any(str(value) in str(error.value) for value in changes.values())


def test_a_run_may_be_built_around_a_policy_of_ones_own():
    model = action_diffusion(EPISODES, settings=TINY, level_per_position=False, seed=0)
    policy = DiffusionPolicy(model, action_steps=2, sampling_steps=3)
    run = diffusion_run(policy, EPISODES, constant_levels(6, 8), settings=TINY, seed=0)
    steps = [now.step for now in run]
    assert steps == [1, 2, 3, 4, 5, 6]
