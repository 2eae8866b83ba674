"""The autoencoder that diffusion is compared with: its loss by hand, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.objectives.fidelity import marginal_similarity
from policysmith.synthesis.variational import VariationalSettings, variational_loss, variational_run
from policysmith.training.loop import finish


class Fixed:
    """Decodes zeros under a code of mean 1 and deviation 2."""

    def __call__(self, row, noise):
        return torch.zeros_like(row), torch.ones(len(row), 1), torch.full((len(row), 1), math.log(2.0))


def test_the_loss_is_half_the_squared_error_plus_the_weighted_divergence():
    batch = {"row": torch.tensor([[3.0, 1.0]]), "noise": torch.zeros(1, 1)}
    values, statistics = variational_loss(Fixed(), batch, beta=0.5)  # type: ignore[arg-type]
    divergence = (4 + 1 - 1 - math.log(4)) / 2
    assert float(statistics["divergence"]) == pytest.approx(divergence)
    assert float(values) == pytest.approx(5 + 0.5 * divergence)


def test_it_makes_rows_like_the_real_ones():
    rng = torch.Generator().manual_seed(0)
    state = torch.randn(2000, 1, generator=rng)
    real = {
        "observation": state,
        "action": torch.randn(2000, 1, generator=rng),
        "reward": torch.zeros(2000),
        "next_observation": state + 1,
        "terminated": torch.zeros(2000, dtype=torch.bool),
    }
    settings = VariationalSettings(hidden=(32,), steps=600, batch_size=128, learning_rate=3e-3)
    model = finish(variational_run(real, settings=settings, seed=0)).learners["generator"].acting()
    made = model.sample(2000, rng=rng)
    keys = ("observation", "action", "next_observation")
    assert (
        float(marginal_similarity(*(torch.cat([one[key] for key in keys], 1) for one in (real, made)))) > 0.85
    )
    assert float((made["next_observation"] - made["observation"] - 1).abs().mean()) < 0.2
    assert float(made["reward"].abs().max()) < 1e-3  # constant in the data


def test_settings_out_of_range_are_refused():
    for wrong in ({"beta": -1.0}, {"latent_size": 0}):
        with pytest.raises(SettingError):
            VariationalSettings(**wrong)
