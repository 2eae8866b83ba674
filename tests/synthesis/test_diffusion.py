"""Diffusion of transitions: the paper's numbers, what is learnt, what is refused, and resuming."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.common.saving import from_pretrained, load_tree, save_pretrained, save_tree
from policysmith.networks.denoiser import Denoiser
from policysmith.networks.karras import KarrasDenoiser
from policysmith.networks.samplers import heun
from policysmith.networks.schedules import karras
from policysmith.objectives.fidelity import correlation_similarity, marginal_similarity
from policysmith.synthesis.diffusion import (
    DiffusionSettings,
    TransitionDiffusion,
    diffusion_loss,
    diffusion_run,
)
from policysmith.training.learner import Learner
from policysmith.training.loop import finish

TINY = DiffusionSettings(width=8, depth=1, level_size=4, steps=6, batch_size=8, sampling_steps=3)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def transitions(rows: int = 64, seed: int = 0) -> dict[str, torch.Tensor]:
    state, action = torch.randn(rows, 2, generator=rng(seed)), torch.randn(rows, 1, generator=rng(seed + 1))
    following = state + 0.5 * action
    return {
        "observation": state,
        "action": action,
        "reward": following.sum(1),
        "next_observation": following,
        "terminated": following[:, 0] > 1.0,
    }


class Scaling(Denoiser):
    """F(x) = factor x, whatever the level."""

    def __init__(self, size: int, factor: float) -> None:
        super().__init__(size, 1, 0)
        self.factor = factor

    def forward(self, noisy, level, condition):
        return self.factor * noisy


def with_network(size: int, factor: float) -> TransitionDiffusion:
    model = TransitionDiffusion(1, 1, terminals=False, width=4, depth=0, level_size=4)
    model.denoiser = KarrasDenoiser(Scaling(size, factor), sigma_data=1.0)
    return model


def test_the_loss_is_the_papers():
    batch = {
        "row": torch.tensor([[1.0, -0.5], [0.2, 0.3]]),
        "noise": torch.tensor([[0.5, -1.0], [1.5, 0.25]]),
        "sigma": torch.tensor([0.5, 2.0]),
    }
    values, _ = diffusion_loss(with_network(2, 0.5), batch)
    assert float(values.mean()) == pytest.approx(0.755250, abs=1e-6)


def test_the_schedule_is_the_papers():
    levels = karras(5, sigma_min=0.002, sigma_max=80.0).tolist()
    assert levels == pytest.approx([80, 17.52783, 2.515219, 0.169753, 0.002, 0], rel=1e-5)


def test_the_sampler_is_the_papers():
    model = with_network(2, 0.0)
    sigmas = karras(5, sigma_min=0.002, sigma_max=80.0)
    made = heun()(model, 80.0 * torch.tensor([[1.0, -0.5]], dtype=torch.float64), sigmas)
    # The published number is of single precision.
    assert made.flatten().tolist() == pytest.approx([1.907250, -0.953625], abs=1e-5)


def test_made_transitions_are_like_the_real_ones():
    settings = DiffusionSettings(
        width=64, depth=2, level_size=16, steps=800, learning_rate=3e-3, sampling_steps=16
    )
    real = transitions(4000)
    model = finish(diffusion_run(real, settings=settings, seed=0)).learners["generator"].acting()
    made = model.sample(1000, rng=rng())
    # What follows is what the world says, though no row says so itself.
    error = made["next_observation"] - (made["observation"] + 0.5 * made["action"])
    assert float(error.square().mean().sqrt()) < 0.25
    rows = [model.layout.pack(one) for one in (real, made)]
    assert float(marginal_similarity(*rows)) > 0.95
    assert float(correlation_similarity(*rows)) > 0.94
    ended = [float(one["terminated"].float().mean()) for one in (real, made)]
    assert ended[1] == pytest.approx(ended[0], abs=0.05)


def test_a_number_that_the_sampling_batch_does_not_divide_is_made_whole():
    model = TransitionDiffusion(2, 1, width=8, depth=1, level_size=4, sampling_steps=2)
    made = model.sample(7, rng=rng(), batch=3)
    assert {key: len(value) for key, value in made.items()} == dict.fromkeys(made, 7)
    assert torch.equal(made["action"][:3], model.sample(3, rng=rng(), batch=3)["action"])


def test_none_cannot_be_made():
    with pytest.raises(SettingError, match="0 transitions"):
        TransitionDiffusion(2, 1, width=8, depth=1, level_size=4).sample(0, rng=rng())


def test_standardised_samples_are_not_held_to_a_range_and_range_scaled_ones_are():
    free, bounded = (
        TransitionDiffusion(2, 1, bounded=bound, width=8, depth=1, level_size=4, sampling_steps=2)
        for bound in (False, True)
    )
    for model in (free, bounded):  # untrained, and shifted far out
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(1.0)
    assert float(free.sample(20, rng=rng())["action"].abs().max()) > 1.0
    assert float(bounded.sample(20, rng=rng())["action"].abs().max()) == 1.0


def test_fewer_transitions_than_a_batch_are_refused_with_both_numbers():
    with pytest.raises(DataError, match="64 transitions, and a batch has 256"):
        diffusion_run(transitions(), settings=replace(TINY, batch_size=None), seed=0)


def test_batches_are_larger_for_many_transitions():
    settings = DiffusionSettings()
    assert [settings.rows_per_batch(rows) for rows in (799_999, 800_000)] == [256, 1024]


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"width": 0}, {"learning_rate": 0.0}, {"churn": (-1, 0, 1, 1)}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingError):
        replace(TINY, **wrong)


def test_a_resumed_run_goes_on_to_the_same_weights(tmp_path):
    whole = diffusion_run(transitions(), settings=TINY, seed=1)
    third = list(itertools.islice(whole, 3))[-1]
    save_tree(tmp_path / "state", third.state.state_dict())
    ended = finish(whole).learners["generator"]
    again = diffusion_run(transitions(), settings=TINY, seed=1, state=load_tree(tmp_path / "state"))
    resumed = finish(again).learners["generator"]
    assert isinstance(resumed, Learner)
    for one, other in zip(ended.acting().parameters(), resumed.acting().parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_saved_model_makes_the_same_transitions(tmp_path):
    model = finish(diffusion_run(transitions(), settings=TINY, seed=1)).learners["generator"].acting()
    save_pretrained(model, tmp_path / "model")
    loaded = from_pretrained(tmp_path / "model", expected=TransitionDiffusion)
    first, second = (one.sample(5, rng=rng()) for one in (model, loaded))
    assert all(torch.equal(first[key], second[key]) for key in first)
