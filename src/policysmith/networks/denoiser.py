"""What a sequence denoiser is: a network that is shown a noisy sequence and says what the noise (or the clean
sequence) was, told the noise level and a condition.

Policies, samplers and guidance stand on this interface alone, so that U-Net, transformer and MLP are
interchangeable. `forward` is for training; a sampling loop, in which the condition stays the same over many
calls, asks once for `bind(condition)` and calls what it gets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import ShapeError

BoundDenoiser = Callable[[Tensor, Tensor], Tensor]
"""(noisy [batch, horizon, action], level [batch] or [batch, horizon]) -> prediction, its condition bound."""


class Denoiser(nn.Module, ABC):
    """Base of the networks (noisy sequence, noise level, condition) -> prediction of the same shape.

    `horizon` is the length of the sequence, `action_size` the width of one position, `condition_size` the
    width of the condition (0 for none). `level_positions` is 1 where a sample has one noise level and
    `horizon` where every position has its own.
    """

    def __init__(
        self, action_size: int, horizon: int, condition_size: int, *, level_positions: int = 1
    ) -> None:
        super().__init__()
        if level_positions not in (1, horizon):
            raise ShapeError(
                f"a denoiser over {horizon} positions was asked to take {level_positions} noise levels",
                expected=f"1 (one level per sample) or {horizon} (one per position)",
            )
        self.action_size = action_size
        self.horizon = horizon
        self.condition_size = condition_size
        self.level_positions = level_positions

    @abstractmethod
    def forward(
        self,
        noisy: Float[Tensor, "batch horizon action"],
        level: Tensor,
        condition: Float[Tensor, "batch condition"],
    ) -> Float[Tensor, "batch horizon action"]:
        """Predict from a noisy sequence.

        `level` (integer or float) is [batch], or [batch, horizon] where `level_positions` is the horizon; a
        level per sample is then told to every position. Raises `ShapeError` naming the sizes that disagree.
        """

    def bind(self, condition: Float[Tensor, "batch condition"]) -> BoundDenoiser:
        """A function (noisy, level) -> prediction for this condition, doing once what depends on it alone.

        The weights are read at the time of binding: bind anew after changing them.
        """
        return lambda noisy, level: self(noisy, level, condition)

    def check(self, noisy: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        """The level as the network takes it, [batch] or [batch, horizon]; `ShapeError` where sizes differ."""
        batch = noisy.shape[0]
        if noisy.shape[1:] != (self.horizon, self.action_size):
            raise ShapeError(
                f"the noisy sequence has shape {tuple(noisy.shape)}",
                expected=f"[batch, horizon {self.horizon}, action {self.action_size}]",
            )
        if condition.shape != (batch, self.condition_size):
            raise ShapeError(
                f"the condition has shape {tuple(condition.shape)}",
                expected=f"[batch {batch}, condition {self.condition_size}]",
            )
        return self.check_level(level, batch, self.horizon)

    def check_level(self, level: Tensor, batch: int, positions: int) -> Tensor:
        """The level as a network that is shown so many positions takes it; `ShapeError` for another shape."""
        per_position = self.level_positions > 1
        if level.shape == (batch,):
            return level.unsqueeze(1).expand(batch, positions) if per_position else level
        if per_position and level.shape == (batch, positions):
            return level
        wanted = f"[{batch}] or [{batch}, {positions}]" if per_position else f"[{batch}]"
        raise ShapeError(
            f"the noise level has shape {tuple(level.shape)}",
            expected=wanted,
            cure=""
            if per_position
            else f"build the network with level_positions={self.horizon} to tell "
            "every position a level of its own",
        )
