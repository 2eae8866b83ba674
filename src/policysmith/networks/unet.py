"""U-Net v1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import ShapeError
from policysmith.common.saving import saveable
from policysmith.networks.denoiser import Denoiser
from policysmith.networks.embeddings import check_embedding_size, sinusoidal_embedding


class _Conv(nn.Module):
    def __init__(self, before, after, kernel, groups):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(before, after, kernel, padding=kernel // 2), nn.GroupNorm(groups, after), nn.Mish()
        )

    def forward(self, x):
        return self.block(x)


class _Block(nn.Module):
    def __init__(self, before, after, condition, kernel, groups):
        super().__init__()
        self.after = after
        self.conv1 = _Conv(before, after, kernel, groups)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * after))
        self.conv2 = _Conv(after, after, kernel, groups)
        self.shortcut = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x, condition):
        scale, bias = self.film(condition).unsqueeze(-1).split(self.after, 1)
        return self.conv2(self.conv1(x) * scale + bias) + self.shortcut(x)


@saveable
class UNet1d(Denoiser):
    """Diffusion Policy's conditional U-Net over time."""

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
        multiple = self.horizon_multiple(widths)
        if horizon % multiple or horizon < multiple:
            smallest = -(-horizon // multiple) * multiple
            raise ShapeError(
                f"a U-Net with {len(widths)} widths was given a horizon of {horizon}",
                expected=f"a multiple of {multiple}; the next is {smallest}",
            )
        check_embedding_size(level_size)
        self.level_size = e = level_size
        self.level_encoder = nn.Sequential(
            nn.Linear(e * level_positions, 4 * e), nn.Mish(), nn.Linear(4 * e, e)
        )
        pairs = list(zip((action_size, *widths[:-1]), widths, strict=True))

        def block(before, after):
            return _Block(before, after, e + condition_size, kernel, groups)

        self.down = nn.ModuleList(
            nn.ModuleList(
                [
                    block(i, o),
                    block(o, o),
                    nn.Conv1d(o, o, 3, 2, 1) if n < len(pairs) - 1 else nn.Identity(),
                ]
            )
            for n, (i, o) in enumerate(pairs)
        )
        self.middle = nn.ModuleList([block(widths[-1], widths[-1]) for _ in range(2)])
        self.up = nn.ModuleList(
            nn.ModuleList([block(2 * o, i), block(i, i), nn.ConvTranspose1d(i, i, 4, 2, 1)])
            for i, o in reversed(pairs[1:])
        )
        self.final = nn.Sequential(
            _Conv(widths[0], widths[0], kernel, groups), nn.Conv1d(widths[0], action_size, 1)
        )

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
        embedded = self.level_encoder(sinusoidal_embedding(level, self.level_size).flatten(1))
        condition = torch.cat([embedded, condition], 1)
        x, skips = noisy.transpose(1, 2), []
        for first, second, shrink in self.down:  # type: ignore[misc]
            x = second(first(x, condition), condition)
            skips.append(x)
            x = shrink(x)
        for block in self.middle:
            x = block(x, condition)
        for first, second, grow in self.up:  # type: ignore[misc]
            x = grow(second(first(torch.cat([x, skips.pop()], 1), condition), condition))
        return self.final(x).transpose(1, 2)
