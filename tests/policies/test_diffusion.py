"""Diffusion policies: what is returned, told, counted and drawn; training targets; saving."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import CapabilityError, SettingError, ShapeError
from policysmith.common.rng import seeded_initialisation
from policysmith.networks.denoiser import Denoiser
from policysmith.networks.mlp import ResidualMLPDenoiser
from policysmith.networks.noise import DiscreteNoise, squared_cosine_betas
from policysmith.objectives.denoising import noise_prediction_error
from policysmith.policies.diffusion import ActionDiffusion, DiffusionPolicy
from policysmith.policies.protocol import load_policy

HORIZON, OBSERVED, ACTED = 8, 3, 4
NOISE = DiscreteNoise(squared_cosine_betas(20))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=rng(seed))


class Oracle(Denoiser):
    """Knows the clean sequence: position k holds 0.1 k in every dimension. Writes down what it is told."""

    def __init__(self, condition_size: int, *, level_positions: int = 1) -> None:
        super().__init__(2, HORIZON, condition_size, level_positions=level_positions)
        self.told, self.conditions = [], []

    def forward(self, noisy, level, condition):
        level = self.check(noisy, level, condition)
        self.told.append(level.clone())
        self.conditions.append(condition.clone())
        signal = NOISE.signal[level].float().view(len(noisy), -1, 1)
        clean = 0.1 * torch.arange(HORIZON).view(1, -1, 1)
        return (noisy - signal.sqrt() * clean) / (1 - signal).sqrt()


def oracle_model(**options) -> ActionDiffusion:
    network = Oracle(OBSERVED * 2, **options)
    return ActionDiffusion(network, NOISE, observation_size=2, observation_steps=OBSERVED)


def learnt_model(level_positions: int = 1) -> ActionDiffusion:
    with seeded_initialisation(0):
        network = ResidualMLPDenoiser(
            2, HORIZON, OBSERVED * 2, width=16, depth=1, level_size=4, level_positions=level_positions
        )
    model = ActionDiffusion(network, NOISE, observation_size=2, observation_steps=OBSERVED)
    model.observation_normalizer.fit_range(normal(50, 2, seed=3))
    model.action_normalizer.fit_range(5 + 3 * normal(50, 2, seed=4))
    return model


OBSERVATION = normal(5, OBSERVED, 2, seed=7)


def act(policy: DiffusionPolicy, observation: torch.Tensor = OBSERVATION, seed: int = 0) -> torch.Tensor:
    return policy.act(observation, policy.initial_state(len(observation)), rng=rng(seed))[0]


# ---- acting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling_steps", [None, 5])
def test_the_actions_are_those_from_now_on_in_the_environments_units(sampling_steps):
    model = oracle_model()
    model.action_normalizer.offset.copy_(torch.tensor([1.0, -1.0]))
    model.action_normalizer.scale.copy_(torch.tensor([10.0, 100.0]))
    actions = act(DiffusionPolicy(model, action_steps=ACTED, sampling_steps=sampling_steps))
    # The newest observation is number 2 of 3, so now is position 2.
    expected = torch.tensor([[3.0, 19.0], [4.0, 29.0], [5.0, 39.0], [6.0, 49.0]]).expand(5, 4, 2)
    torch.testing.assert_close(actions, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("sampling_steps", "levels"), [(None, list(range(19, -1, -1))), (5, [16, 12, 8, 4, 0]), (1, [0])]
)
@pytest.mark.parametrize("positions", [1, HORIZON])
def test_every_decision_is_one_run_over_all_levels(sampling_steps, levels, positions):
    model = oracle_model(level_positions=positions)
    policy = DiffusionPolicy(model, action_steps=ACTED, sampling_steps=sampling_steps)
    state = policy.initial_state(5)
    for decision in (1, 2):
        model.network.told.clear()
        _, state = policy.act(OBSERVATION, state, rng=rng())
        assert [told.unique().tolist() for told in model.network.told] == [[level] for level in levels]
        assert state["network_calls"].tolist() == [decision * len(levels)] * 5
    assert model.network.told[0].shape == ((5,) if positions == 1 else (5, HORIZON))


def test_the_condition_is_the_normalised_observations_oldest_first():
    model = oracle_model()
    model.observation_normalizer.offset.copy_(torch.tensor([1.0, 0.0]))
    model.observation_normalizer.scale.copy_(torch.tensor([2.0, 1.0]))
    observation = torch.tensor([[[1.0, 10.0], [3.0, 11.0], [5.0, 12.0]]])
    act(DiffusionPolicy(model, action_steps=1), observation)
    assert model.network.conditions[0].tolist() == [[0, 10, 1, 11, 2, 12]]


def test_rows_are_decided_apart_from_each_other():
    policy = DiffusionPolicy(learnt_model(), action_steps=ACTED, sampling_steps=5)
    noise = normal(5, HORIZON, 2, seed=1)
    together = policy.from_noise(OBSERVATION, noise)
    changed = OBSERVATION.clone()
    changed[2] += 1
    moved = policy.from_noise(changed, noise)
    assert torch.equal(moved[[0, 1, 3, 4]], together[[0, 1, 3, 4]])
    assert not torch.equal(moved[2], together[2])
    torch.testing.assert_close(
        policy.from_noise(OBSERVATION[3:], noise[3:]), together[3:], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("sampling_steps", [None, 5])
def test_actions_repeat_with_their_stream_and_nothing_global_moves(sampling_steps):
    policy = DiffusionPolicy(learnt_model(), action_steps=ACTED, sampling_steps=sampling_steps)
    state, before = policy.initial_state(5), torch.get_rng_state()
    first, _ = policy.act(OBSERVATION, state, rng=rng(1))
    assert torch.equal(first, act(policy, seed=1))
    assert not torch.equal(first, act(policy, seed=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert state["network_calls"].tolist() == [0] * 5  # the caller's state is left alone


def test_actions_stay_in_the_range_of_the_data():
    """The clean estimate is clamped, so even an untrained network cannot leave the fitted box."""
    policy = DiffusionPolicy(learnt_model(), action_steps=ACTED)
    box = policy.model.action_normalizer
    scaled = box(act(policy))
    assert float(scaled.abs().max()) <= 1 + 1e-5


# ---- several draws, and chosen noise -----------------------------------------------------------------


def test_one_sample_is_what_acting_draws():
    policy = DiffusionPolicy(learnt_model(), action_steps=ACTED)
    assert torch.equal(policy.sample(OBSERVATION, 1, rng=rng(3))[0], act(policy, seed=3))


def test_samples_are_grouped_by_draw_and_belong_to_their_observation():
    model = oracle_model()
    policy = DiffusionPolicy(model, action_steps=ACTED)
    samples = policy.sample(OBSERVATION, 3, rng=rng())
    assert samples.shape == (3, 5, ACTED, 2)
    expected = OBSERVATION.flatten(1).expand(3, 5, -1)
    assert torch.equal(model.network.conditions[0].view(3, 5, -1), expected)
    learnt = DiffusionPolicy(learnt_model(), action_steps=ACTED)
    drawn = learnt.sample(OBSERVATION, 3, rng=rng())
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_a_chosen_noise_becomes_the_same_action_every_time():
    policy = DiffusionPolicy(learnt_model(), action_steps=ACTED, sampling_steps=5)
    noise = normal(5, HORIZON, 2, seed=1)
    assert torch.equal(policy.from_noise(OBSERVATION, noise), policy.from_noise(OBSERVATION, noise))
    assert torch.equal(policy.from_noise(OBSERVATION, normal(5, HORIZON, 2)), act(policy, seed=0))
    assert not torch.equal(policy.from_noise(OBSERVATION, -noise), policy.from_noise(OBSERVATION, noise))


def test_gradients_reach_the_chosen_noise_and_the_weights():
    policy = DiffusionPolicy(learnt_model(), action_steps=ACTED, sampling_steps=5)
    noise = (0.1 * normal(5, HORIZON, 2, seed=1)).requires_grad_()
    policy.from_noise(OBSERVATION, noise).sum().backward()
    assert bool(noise.grad.any())
    assert bool(policy.model.network.input.weight.grad.any())


def test_noise_fixes_no_action_while_the_sampler_adds_its_own():
    policy = DiffusionPolicy(learnt_model(), action_steps=ACTED)
    with pytest.raises(CapabilityError, match="starting noise does not fix its actions") as caught:
        policy.from_noise(OBSERVATION, normal(5, HORIZON, 2))
    assert "sampling_steps" in caught.value.cure


@pytest.mark.parametrize("shape", [(5, HORIZON, 3), (5, HORIZON - 1, 2), (4, HORIZON, 2)])
def test_noise_of_another_shape_is_refused(shape):
    with pytest.raises(ShapeError):
        DiffusionPolicy(learnt_model(), action_steps=ACTED, sampling_steps=5).from_noise(
            OBSERVATION, normal(*shape)
        )


# ---- training ----------------------------------------------------------------------------------------


def batch_of(rows: int) -> TensorDict:
    data = {"observation": normal(rows, OBSERVED, 2), "action": 5 + normal(rows, HORIZON, 2, seed=1)}
    return TensorDict(data, batch_size=[rows])


def test_corruption_adds_noise_and_levels_and_leaves_the_batch_alone():
    batch, level = batch_of(6), torch.randint(20, (6, HORIZON), generator=rng())
    corrupted = learnt_model().corrupt(batch, level, rng=rng(2))
    assert set(batch.keys()) == {"observation", "action"}
    assert torch.equal(corrupted["noise"], normal(6, HORIZON, 2, seed=2))
    assert torch.equal(corrupted["noise_level"], level)
    assert torch.equal(corrupted["action"], batch["action"])


@pytest.mark.parametrize("positions", [1, HORIZON])
def test_the_network_sees_scaled_actions_noised_to_their_levels(positions):
    seen = []
    model = learnt_model(positions)
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    level = torch.randint(20, (6, HORIZON), generator=rng())
    level = level if positions > 1 else level[:, :1].expand(6, HORIZON)
    corrupted = model.corrupt(batch_of(6), level, rng=rng(2))
    model.predict(corrupted)
    ((noisy, told, condition),) = seen
    signal = NOISE.signal[level].float()[..., None]
    scaled = model.action_normalizer(corrupted["action"])
    torch.testing.assert_close(noisy, signal.sqrt() * scaled + (1 - signal).sqrt() * corrupted["noise"])
    assert torch.equal(told, level if positions > 1 else level[:, 0])
    assert torch.equal(condition, model.observation_normalizer(corrupted["observation"]).flatten(1))


def test_a_network_that_knows_the_noise_has_no_loss():
    model = oracle_model(level_positions=HORIZON)
    action = (0.1 * torch.arange(HORIZON).view(1, -1, 1)).expand(4, HORIZON, 2)
    batch = TensorDict({"observation": normal(4, OBSERVED, 2), "action": action}, batch_size=[4])
    level = torch.randint(20, (4, HORIZON), generator=rng())
    corrupted = model.corrupt(batch, level, rng=rng())
    error = noise_prediction_error(model.predict(corrupted), corrupted["noise"])
    assert float(error.max()) < 1e-8


def test_the_loss_of_a_row_does_not_depend_on_the_other_rows():
    model = learnt_model(HORIZON)
    level = torch.randint(20, (6, HORIZON), generator=rng())
    corrupted = model.corrupt(batch_of(6), level, rng=rng())
    whole = noise_prediction_error(model.predict(corrupted), corrupted["noise"])
    parts = [
        noise_prediction_error(model.predict(part), part["noise"]) for part in (corrupted[:2], corrupted[2:])
    ]
    torch.testing.assert_close(whole, torch.cat(parts), atol=1e-6, rtol=1e-5)


# ---- what is refused, and saving ---------------------------------------------------------------------


@pytest.mark.parametrize("action_steps", [HORIZON - OBSERVED + 2, 100, 0, -1])
def test_a_chunk_that_does_not_fit_the_horizon_is_refused_naming_the_numbers(action_steps):
    with pytest.raises(SettingError) as caught:
        DiffusionPolicy(oracle_model(), action_steps=action_steps)
    assert f"{HORIZON} is too short for {OBSERVED} observation steps and {action_steps}" in caught.value.what
    if action_steps > 0:
        assert f"at least {OBSERVED - 1 + action_steps}" in caught.value.expected
    DiffusionPolicy(oracle_model(), action_steps=HORIZON - OBSERVED + 1)


def test_a_model_that_observes_nothing_cannot_act():
    model = ActionDiffusion(Oracle(0), NOISE, observation_size=2, observation_steps=0)
    with pytest.raises(SettingError, match="0 observation steps"):
        DiffusionPolicy(model, action_steps=2)


@pytest.mark.parametrize("sampling_steps", [0, 21, -4])
def test_other_sampling_steps_than_the_levels_allow_are_refused(sampling_steps):
    with pytest.raises(SettingError, match=f"{sampling_steps} sampling steps"):
        DiffusionPolicy(oracle_model(), action_steps=2, sampling_steps=sampling_steps)


def test_batches_that_do_not_fit_are_refused():
    policy = DiffusionPolicy(oracle_model(), action_steps=2)
    with pytest.raises(ShapeError, match="5 observations for a state of 4 rows"):
        policy.act(OBSERVATION, policy.initial_state(4), rng=rng())
    with pytest.raises(ShapeError, match="observation of shape"):
        policy.act(OBSERVATION[:, :2], policy.initial_state(5), rng=rng())


@pytest.mark.parametrize("sampling_steps", [None, 5])
def test_a_saved_policy_acts_the_same(sampling_steps, tmp_path):
    policy = DiffusionPolicy(learnt_model(), action_steps=ACTED, sampling_steps=sampling_steps).eval()
    policy.save_pretrained(tmp_path)
    torch.rand(7)
    loaded = load_policy(tmp_path)
    assert torch.equal(act(loaded), act(policy))
    assert loaded.process.steps == policy.process.steps
