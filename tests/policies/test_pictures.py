"""Diffusion policies that see: what conditions them, what is drawn, how often they look, what is refused."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import ShapeError
from policysmith.common.rng import seeded_initialisation
from policysmith.networks.mlp import ResidualMLPDenoiser
from policysmith.networks.noise import DiscreteNoise, squared_cosine_betas
from policysmith.networks.vision import PictureEncoder
from policysmith.objectives.denoising import noise_prediction_error
from policysmith.policies.diffusion import ActionDiffusion, DiffusionPolicy
from policysmith.policies.protocol import load_policy
from policysmith.policies.streaming import StreamingPolicy

torch.set_num_threads(1)

HORIZON, OBSERVED, SIZE, CROP = 8, 2, (12, 14), (10, 10)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(*, positions: int = 1, state: int = 3) -> ActionDiffusion:
    with seeded_initialisation(0):
        eyes = PictureEncoder(["front"], [SIZE], crops=[CROP], widths=(8, 8), features=5)
        network = ResidualMLPDenoiser(
            2, HORIZON, OBSERVED * (state + 5), width=16, depth=1, level_size=4, level_positions=positions
        )
    return ActionDiffusion(
        network,
        DiscreteNoise(squared_cosine_betas(6)),
        observation_size=state,
        observation_steps=OBSERVED,
        eyes=eyes,
    )


def seen(rows: int = 4, *, state: int = 3, size: tuple[int, int] = SIZE, seed: int = 0) -> TensorDict:
    parts = {"front": torch.randint(256, (rows, OBSERVED, *size, 3), generator=rng(seed), dtype=torch.uint8)}
    if state:
        parts["state"] = torch.randn(rows, OBSERVED, state, generator=rng(seed))
    return TensorDict(parts, batch_size=[rows, OBSERVED])


def batch(rows: int = 6) -> TensorDict:
    action = torch.randn(rows, HORIZON, 2, generator=rng(1))
    return TensorDict({"observation": seen(rows), "action": action}, batch_size=[rows])


def levels(rows: int = 6) -> torch.Tensor:
    return torch.randint(6, (rows, HORIZON), generator=rng(2))


def plain() -> DiffusionPolicy:
    return DiffusionPolicy(model(), action_steps=3)


def streaming(**options) -> StreamingPolicy:
    return StreamingPolicy(model(positions=HORIZON), action_steps=3, **options)


POLICIES = [plain, streaming, lambda: streaming(buffer_start="denoise")]


def looks(policy) -> list[int]:
    """Writes down how many pictures are encoded at each look from here on."""
    counted: list[int] = []
    camera = policy.model.eyes.encoders[0]
    camera.register_forward_pre_hook(lambda _, inputs: counted.append(inputs[0][..., 0, 0, 0].numel()))
    return counted


# ---- what the policy sees ----------------------------------------------------------------------------


def test_the_condition_is_states_then_features_oldest_first():
    one = model()
    observation = seen()
    features = one.eyes(observation)
    expected = torch.cat([observation["state"].flatten(1), features.flatten(1)], dim=1)
    assert torch.equal(one.condition(observation), expected)
    assert torch.equal(features[:, 0], one.eyes(observation[:, :1])[:, 0])


def test_pictures_alone_can_condition():
    policy = DiffusionPolicy(model(state=0), action_steps=3)
    assert policy.parts == {"front": (*SIZE, 3)}
    actions, _ = policy.act(seen(state=0), policy.initial_state(4), rng=rng())
    assert actions.shape == (4, 3, 2)


@pytest.mark.parametrize("make", POLICIES)
def test_actions_depend_on_what_is_seen_row_by_row(make):
    policy, observation = make(), seen()
    first, _ = policy.act(observation, policy.initial_state(4), rng=rng())
    changed = observation.clone()
    changed["front"][2] = 255 - changed["front"][2]
    second, _ = policy.act(changed, policy.initial_state(4), rng=rng())
    torch.testing.assert_close(second[[0, 1, 3]], first[[0, 1, 3]])
    assert not torch.allclose(second[2], first[2])


@pytest.mark.parametrize("make", POLICIES)
def test_a_decision_looks_once_however_many_network_calls_it_takes(make):
    policy, observation = make(), seen()
    counted, state = looks(policy), policy.initial_state(4)
    for decision in (1, 2):
        _, state = policy.act(observation, state, rng=rng())
        assert counted == [4 * OBSERVED] * decision
    assert int(state["network_calls"].min()) > 2


def test_several_draws_for_one_observation_look_once():
    policy = plain()
    counted = looks(policy)
    assert policy.sample(seen(), 5, rng=rng()).shape == (5, 4, 3, 2)
    assert counted == [4 * OBSERVED]


# ---- training ----------------------------------------------------------------------------------------


def test_corruption_crops_at_random_from_its_stream_and_leaves_the_batch_alone():
    one, whole = model(), batch()
    corrupted, again, other = (one.corrupt(whole, levels(), rng=rng(seed)) for seed in (3, 3, 4))
    assert corrupted["observation", "front"].shape == (6, OBSERVED, *CROP, 3)
    assert torch.equal(corrupted["observation", "front"], again["observation", "front"])
    assert torch.equal(corrupted["noise"], again["noise"])
    assert not torch.equal(corrupted["observation", "front"], other["observation", "front"])
    assert torch.equal(corrupted["observation", "state"], whole["observation", "state"])
    assert whole["observation", "front"].shape == (6, OBSERVED, *SIZE, 3)


def test_noise_is_drawn_as_without_pictures():
    """So that a policy that sees and one that does not learn from the same noise under one seed."""
    blind = ActionDiffusion(
        ResidualMLPDenoiser(2, HORIZON, OBSERVED * 3, width=16, depth=1, level_size=4),
        DiscreteNoise(squared_cosine_betas(6)),
        observation_size=3,
        observation_steps=OBSERVED,
    )
    whole = batch()
    states = whole.clone(recurse=False).update({"observation": whole["observation", "state"]})
    assert torch.equal(
        blind.corrupt(states, levels(), rng=rng(3))["noise"],
        model().corrupt(whole, levels(), rng=rng(3))["noise"],
    )


def test_the_loss_reaches_the_encoder():
    one = model()
    corrupted = one.corrupt(batch(), levels(), rng=rng())
    noise_prediction_error(one.predict(corrupted), corrupted["noise"]).mean().backward()
    reached = [bool(weight.grad.any()) for name, weight in one.eyes.named_parameters() if "weight" in name]
    assert reached
    assert all(reached)


def test_the_loss_of_a_row_does_not_depend_on_the_cut_into_micro_batches():
    one = model(positions=HORIZON)
    corrupted = one.corrupt(batch(), levels(), rng=rng())
    whole = noise_prediction_error(one.predict(corrupted), corrupted["noise"])
    parts = [
        noise_prediction_error(one.predict(part), part["noise"]) for part in (corrupted[:1], corrupted[1:])
    ]
    torch.testing.assert_close(whole, torch.cat(parts), atol=1e-5, rtol=1e-4)


# ---- saving, and what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize("make", POLICIES)
def test_a_saved_policy_sees_and_acts_the_same(make, tmp_path):
    policy = make().eval()
    policy.save_pretrained(tmp_path / "policy")
    again = load_policy(tmp_path / "policy")
    assert again.pictures == policy.pictures == {"front": SIZE}
    first, _ = policy.act(seen(), policy.initial_state(4), rng=rng())
    second, _ = again.act(seen(), again.initial_state(4), rng=rng())
    assert torch.equal(first, second)


@pytest.mark.parametrize("make", POLICIES)
@pytest.mark.parametrize("change", ["another size", "another camera", "no picture"])
def test_other_pictures_than_those_it_learnt_from_are_refused(make, change):
    policy, observation = make(), seen()
    if change == "another size":
        observation = seen(size=(14, 14))
    elif change == "another camera":
        observation.rename_key_("front", "side")
    else:
        observation = observation.exclude("front")
    with pytest.raises(ShapeError, match="an observation of shape") as caught:
        policy.act(observation, policy.initial_state(4), rng=rng())
    assert "front [4, 2, 12, 14, 3]" in caught.value.expected
