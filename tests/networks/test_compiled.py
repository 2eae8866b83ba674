"""A compiled denoiser gives the numbers of the network it is made from."""

import shutil

import pytest
import torch
from torch import nn

from policysmith.common.errors import CapabilityError, ShapeError
from policysmith.common.rng import seeded_initialisation
from policysmith.networks.compiled import CompiledDenoiser, with_compiled_denoisers
from policysmith.networks.denoiser import Denoiser
from policysmith.networks.karras import KarrasDenoiser

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler"
)


class Small(Denoiser):
    """As little as there can be to compile."""

    def __init__(self):
        super().__init__(2, 8, 3, level_positions=8)
        self.layer = nn.Linear(3, 2)

    def forward(self, noisy, level, condition):
        level = self.check(noisy, level, condition)
        return torch.tanh(noisy + self.layer(condition)[:, None] * level[..., None])


def network():
    with seeded_initialisation(0):
        return Small()


@needs_compiler
@torch.inference_mode()
def test_predictions_are_those_of_the_network():
    plain, rng = network(), torch.Generator().manual_seed(0)
    fast = CompiledDenoiser(plain)
    condition = torch.randn(1, 3, generator=rng)
    bound = fast.bind(condition)
    for _ in range(2):
        noisy, level = torch.randn(1, 8, 2, generator=rng), torch.randint(50, (1, 8), generator=rng)
        expected = plain(noisy, level, condition)
        torch.testing.assert_close(fast(noisy, level, condition), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(bound(noisy, level), expected, atol=1e-5, rtol=1e-5)


def test_sizes_are_told_as_those_of_the_network():
    fast = CompiledDenoiser(network())
    assert (fast.action_size, fast.horizon, fast.condition_size, fast.level_positions) == (2, 8, 3, 8)
    with pytest.raises(ShapeError):
        fast.check(torch.zeros(1, 7, 2), torch.zeros(1, 8), torch.zeros(1, 3))


def test_every_denoiser_of_a_copy_is_compiled_and_nothing_else():
    module = nn.ModuleDict({"a": nn.Sequential(network(), nn.Linear(2, 2)), "b": network()})
    copied = with_compiled_denoisers(module)
    assert isinstance(copied["a"][0], CompiledDenoiser)
    assert isinstance(copied["b"], CompiledDenoiser)
    assert isinstance(copied["a"][1], nn.Linear)
    assert not any(isinstance(part, CompiledDenoiser) for part in module.modules())
    for mine, theirs in zip(copied.parameters(), module.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_of_a_preconditioned_network_the_network_is_compiled():
    copied = with_compiled_denoisers(nn.Sequential(KarrasDenoiser(network(), sigma_data=0.5)))
    assert isinstance(copied[0], KarrasDenoiser)
    assert isinstance(copied[0].network, CompiledDenoiser)
    assert isinstance(copied[0].network.network, Small)


def test_a_module_without_denoisers_is_refused():
    with pytest.raises(CapabilityError, match="Linear has no denoising network"):
        with_compiled_denoisers(nn.Linear(2, 2))
