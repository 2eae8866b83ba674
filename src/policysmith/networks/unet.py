"""Diffusion Policy's conditional U-Net over time, laid out so that a CPU spends its time in matrix products.

The sequence is halved stage by stage, and doubled again on the way back, each stage seeing what its
counterpart on the way down saw. Every residual block is told noise level and condition by FiLM,

    h = mish(norm(conv(x))) * scale + bias,    out = mish(norm(conv(h))) + shortcut(x),

with a scale and a bias per channel, linear in mish(concat(level embedding, condition)). Because that Mish is
elementwise, what the condition contributes to scale and bias can be computed once per sampling loop: this is
what `bind` does. `convolutions` says how sequences this short are convolved, `unet_workspace` how a few of
them at a time are denoised without spending the time on overhead.

Sources: Chi et al. 2023 (Diffusion Policy), the network; Høeg et al. 2024 (Streaming Diffusion Policy), the
embedding of one level per position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.saving import saveable
from policysmith.networks.activations import mish
from policysmith.networks.convolutions import Doubling, Halving
from policysmith.networks.denoiser import BoundDenoiser, Denoiser
from policysmith.networks.embeddings import SinusoidalEmbedding
from policysmith.networks.unet_blocks import ConvolutionBlock, ResidualBlock, Stage, under_transform
from policysmith.networks.unet_workspace import WorkspacePool, gather_weights

_WORKSPACE_BATCH = 32
"""Up to so many sequences at a time a workspace is faster than `UNet1d` as it trains (measured)."""


@saveable
class UNet1d(Denoiser):
    """The conditional U-Net; weights in one-to-one correspondence with Diffusion Policy's.

    `widths` are the channels per stage, each stage but the last halving the sequence, so that `horizon` must
    be a multiple of `horizon_multiple(widths)`. `kernel` (odd) is the width of the convolutions, `groups` of
    channels are normalised together, `level_size` is the size of the noise level's embedding.
    With `level_positions` = `horizon` every position is told a noise level of its own: their embeddings are
    concatenated before the encoder.
    """

    def __init__(
        self,
        action_size: int,
        horizon: int,
        condition_size: int,
        *,
        widths: Sequence[int] = (256, 512, 1024),
        kernel: int = 5,
        groups: int = 8,
        level_size: int = 256,
        level_positions: int = 1,
    ) -> None:
        super().__init__(action_size, horizon, condition_size, level_positions=level_positions)
        self._check_sizes(widths, groups)
        self.level_size = level_size
        self.level_embedding = SinusoidalEmbedding(level_size)
        self.level_encoder = nn.Sequential(
            nn.Linear(level_size * level_positions, 4 * level_size),
            nn.Mish(),
            nn.Linear(4 * level_size, level_size),
        )

        self.depth = last = len(widths) - 1
        entering = (action_size, *widths[:-1])
        # (channels read, channels written, times halved before, what follows), in running order.
        sizes: list[tuple[int, int, int, nn.Module]] = [
            *((entering[depth], widths[depth], depth, Halving(widths[depth])) for depth in range(last)),
            (entering[last], widths[last], last, nn.Identity()),
            (widths[last], widths[last], last, nn.Identity()),
            *((2 * widths[d], entering[d], d, Doubling(entering[d])) for d in range(last, 0, -1)),
        ]

        def block(before: int, after: int, depth: int) -> ResidualBlock:
            return ResidualBlock(before, after, kernel, groups=groups, length=horizon >> depth)

        self.stages = nn.ModuleList(
            Stage(block(before, after, depth), block(after, after, depth), resample)
            for before, after, depth, resample in sizes
        )
        self.final = ConvolutionBlock(widths[0], widths[0], kernel, groups=groups, length=horizon)
        self.output = nn.Linear(widths[0], action_size)
        # All blocks' FiLM layers as one: its rows are scale and bias of the first block, of the second...
        self.film_sizes = [after for _, after, _, _ in sizes for _ in range(4)]
        self.film = nn.Linear(level_size + condition_size, sum(self.film_sizes))
        self._workspaces = WorkspacePool()

    @classmethod
    def horizon_multiple(cls, widths: Sequence[int]) -> int:
        """What the horizon must be a multiple of: every width but the last halves the sequence."""
        return 2 ** (len(widths) - 1)

    def forward(
        self,
        noisy: Float[Tensor, "batch horizon action"],
        level: Tensor,
        condition: Float[Tensor, "batch condition"],
    ) -> Float[Tensor, "batch horizon action"]:
        """Predict from a noisy sequence; see `Denoiser.forward`."""
        level = self.check(noisy, level, condition)
        return self._denoise(noisy, self._film(level, self._film_of_condition(condition)))

    def bind(self, condition: Float[Tensor, "batch condition"]) -> BoundDenoiser:
        """A function (noisy, level) -> prediction that has the condition's share of every FiLM ready."""
        film_of_condition = self._film_of_condition(condition)
        stages: list[Stage] = list(self.stages)  # type: ignore[arg-type]
        weights = gather_weights(stages, self.final) if self._workspace_pays(condition) else None

        def denoise(noisy: Tensor, level: Tensor) -> Tensor:
            film = self._film(self.check(noisy, level, condition), film_of_condition)
            if weights is None or not _numbers_only():
                return self._denoise(noisy, film)
            workspace = self._workspaces.take(stages, self.final, len(noisy), like=condition)
            hidden = workspace.run(weights, noisy, film)
            self._workspaces.give_back(workspace)
            return self.output(hidden)

        return denoise

    def _film_of_condition(self, condition: Tensor) -> Tensor:
        return torch.addmm(self.film.bias, mish(condition), self.film.weight[:, self.level_size :].t())

    def _film(self, level: Tensor, film_of_condition: Tensor) -> Tensor:
        """Scale and bias of all blocks, [batch, sum of film_sizes]."""
        embedded = self.level_encoder(self.level_embedding(level).flatten(1))
        return torch.addmm(film_of_condition, mish(embedded), self.film.weight[:, : self.level_size].t())

    def _denoise(self, x: Tensor, film: Tensor) -> Tensor:
        films = iter(film.unsqueeze(1).split(self.film_sizes, dim=2))
        skips: list[Tensor] = []
        for index, stage in enumerate(self.stages):
            if index > self.depth + 1:
                x = torch.cat([x, skips.pop()], dim=2)
            x = stage(x, films)
            if index <= self.depth:
                skips.append(x)
            x = stage.resample(x)  # type: ignore[operator]
        return self.output(self.final(x))

    def _workspace_pays(self, condition: Tensor) -> bool:
        return len(condition) <= _WORKSPACE_BATCH and condition.device.type == "cpu" and _numbers_only()

    def _check_sizes(self, widths: Sequence[int], groups: int) -> None:
        if not widths or any(width % groups for width in widths):
            raise SettingError(
                f"a U-Net was given the widths {list(widths)} and {groups} groups",
                expected="at least one width, each a multiple of the number of groups",
            )
        multiple = self.horizon_multiple(widths)
        if self.horizon < 1 or self.horizon % multiple:
            smallest = max(multiple, -(-self.horizon // multiple) * multiple)
            raise ShapeError(
                f"a U-Net of {len(widths)} widths cannot halve a horizon of {self.horizon} that often",
                expected=f"a multiple of {multiple}; the smallest that holds {self.horizon} is {smallest}",
            )


def _numbers_only() -> bool:
    """Whether results are all that is wanted; otherwise they cannot be written into buffers."""
    return not torch.is_grad_enabled() and not under_transform()
