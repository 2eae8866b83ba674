"""Denoisers compiled for the machine they run on, by `torch.compile`.

A sampling loop calls the same network with the same shapes many times, and is compiled once for all of them.
The numbers are those of the network, but for rounding. Compiling takes seconds to minutes and needs a C++
compiler (on a GPU, Triton); whether it pays depends on the machine, so measure before you use it.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import CapabilityError
from policysmith.networks.denoiser import Denoiser

Module = TypeVar("Module", bound=nn.Module)


class CompiledDenoiser(Denoiser):
    """`network`, compiled at its first call for the shapes of that call."""

    def __init__(self, network: Denoiser) -> None:
        super().__init__(
            network.action_size,
            network.horizon,
            network.condition_size,
            level_positions=network.level_positions,
        )
        self.network = network
        self._compiled = torch.compile(network.forward)

    def forward(
        self,
        noisy: Float[Tensor, "batch horizon action"],
        level: Tensor,
        condition: Float[Tensor, "batch condition"],
    ) -> Float[Tensor, "batch horizon action"]:
        """The network's prediction; see `Denoiser.forward`."""
        return self._compiled(noisy, level, condition)

    def check(self, noisy: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        """As the network checks it: some take sequences shorter than the horizon."""
        return self.network.check(noisy, level, condition)


def with_compiled_denoisers(module: Module) -> Module:
    """A copy of `module` in which every denoiser is compiled; `CapabilityError` where it has none.

    Of a denoiser around another one (a preconditioned network), the inner one is compiled.
    """
    module = copy.deepcopy(module)
    found = [name for name, part in module.named_modules() if isinstance(part, Denoiser)]
    if not found:
        raise CapabilityError(
            f"{type(module).__name__} has no denoising network to compile",
            expected="a diffusion policy",
            cure="leave compile=False",
        )
    for name in found:
        if not any(other.startswith(f"{name}.") for other in found):
            module.set_submodule(name, CompiledDenoiser(module.get_submodule(name)))  # type: ignore[arg-type]
    return module
