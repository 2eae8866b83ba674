"""Multi-layer perceptrons: their layers, and the denoiser made of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.saving import from_pretrained, save_pretrained
from policysmith.networks.embeddings import SinusoidalEmbedding
from policysmith.networks.mlp import ResidualMLPDenoiser, mlp


def kinds(network: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in network]


def test_nothing_follows_the_last_layer():
    assert kinds(mlp([4, 8, 2])) == ["Linear", "ReLU", "Linear"]
    assert kinds(mlp([4, 2])) == ["Linear"]


def test_hidden_layers_are_normalised_activated_and_dropped_in_this_order():
    network = mlp([4, 8, 8, 2], nn.Tanh, layer_norm=True, dropout=0.1)
    assert kinds(network) == [*["Linear", "LayerNorm", "Tanh", "Dropout"] * 2, "Linear"]
    assert [layer.out_features for layer in network if isinstance(layer, nn.Linear)] == [8, 8, 2]


def test_fewer_than_two_sizes_are_refused():
    with pytest.raises(SettingError, match="input and output"):
        mlp([4])


def test_the_embedding_of_a_level_is_sines_then_cosines_at_falling_frequencies():
    embedded = SinusoidalEmbedding(4)(torch.tensor([0, 2]))
    expected = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.909297, 0.000200, -0.416147, 1.0]])
    torch.testing.assert_close(embedded, expected, atol=1e-6, rtol=0)


def denoiser(**settings) -> ResidualMLPDenoiser:
    return ResidualMLPDenoiser(3, 4, 5, width=16, depth=2, level_size=8, **settings)


def inputs(batch: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, 4, 3, generator=rng),
        torch.randint(50, (batch, 4), generator=rng),
        torch.randn(batch, 5, generator=rng),
    )


def test_binding_a_condition_changes_no_number():
    network = denoiser(level_positions=4)
    noisy, level, condition = inputs()
    assert torch.equal(network.bind(condition)(noisy, level), network(noisy, level, condition))


@pytest.mark.parametrize("part", ["noisy", "level", "condition"])
def test_every_input_reaches_every_position(part):
    network = denoiser(level_positions=4)
    given = dict(zip(("noisy", "level", "condition"), inputs(), strict=True))
    changed = given | {part: given[part] + 1}
    difference = (network(**given) - network(**changed)).detach().abs().amax(dim=(0, 2))
    assert bool((difference > 1e-4).all())


def test_a_level_per_sample_is_told_to_every_position():
    network = denoiser(level_positions=4)
    noisy, _, condition = inputs(2)
    level = torch.tensor([3, 9])
    spread = level.unsqueeze(1).expand(2, 4)
    assert torch.equal(network(noisy, level, condition), network(noisy, spread, condition))


def test_samples_of_a_batch_do_not_mix():
    network = denoiser()
    noisy, level, condition = inputs()
    whole = network(noisy, level[:, 0], condition)
    torch.testing.assert_close(network(noisy[2:3], level[2:3, 0], condition[2:3]), whole[2:3])


def test_dropout_acts_in_training_only():
    network = denoiser(dropout=0.5)
    noisy, level, condition = inputs()
    call = (noisy, level[:, 0], condition)
    assert not torch.equal(network(*call), network(*call))
    network.eval()
    assert torch.equal(network(*call), network(*call))


def test_a_level_per_position_is_refused_by_a_network_that_takes_one():
    noisy, level, condition = inputs()
    with pytest.raises(ShapeError, match="level_positions=4"):
        denoiser()(noisy, level, condition)


def test_it_is_saved_and_loaded_whole(tmp_path):
    network = denoiser(level_positions=4, layer_norm=False)
    save_pretrained(network, tmp_path / "network")
    loaded = from_pretrained(tmp_path / "network", expected=ResidualMLPDenoiser)
    assert torch.equal(loaded(*inputs()), network(*inputs()))
