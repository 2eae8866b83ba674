"""Scales that are learnt while acting: running moments of observations, of rewards, of discounted returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from policysmith.common.errors import DataError
from policysmith.common.saving import saveable
from policysmith.objectives.returns import backward_sum


@saveable
class RunningNormalizer(nn.Module):
    """(x - mean) / deviation over all values seen so far, clipped to +-`clip`; the identity before the first.

    The moments are buffers, saved with the weights. `update` merges a batch by its own moments (Chan et al.
    1979), so that the result does not depend on how values are cut into batches. Until then it is the
    identity up to `clip`.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(self, size: int, *, clip: float = 10.0, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.size, self.clip, self.epsilon = size, clip, epsilon
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        # What `forward` needs of them, in the precision it works in.
        self.register_buffer("offset", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    @torch.no_grad()
    def update(self, values: Float[Tensor, "*batch size"]) -> None:
        """Take a batch into the moments."""
        rows = values.detach().reshape(-1, self.size).double()
        if len(rows) == 0:
            return
        merge_moments(self.mean, self.variance, self.count, rows)
        self.offset.copy_(self.mean)
        self.scale.copy_((self.variance + self.epsilon).rsqrt())

    def forward(self, values: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch size"]:
        """The values in units of their deviation."""
        return ((values - self.offset) * self.scale).clamp(-self.clip, self.clip)


class RunningReturnScale:
    """Rewards over the running deviation of their discounted sum, per objective, clipped to +-`clip`.

        R_t = discount R_{t-1} + r_t  (0 again where an episode ends),   r' = r / std(R)

    Source: Engstrom et al. 2020, "Implementation matters in deep policy gradients" (reward scaling).
    """

    def __init__(
        self, environments: int, discount: float, *, objectives: int = 0, clip: float = 10.0
    ) -> None:
        self.discount, self.clip = discount, clip
        shape = (objectives,) if objectives else ()
        self.returns = torch.zeros(environments, *shape, dtype=torch.float64)
        self.mean = torch.zeros(shape, dtype=torch.float64)
        self.variance = torch.ones(shape, dtype=torch.float64)
        self.count = torch.zeros((), dtype=torch.float64)

    @property
    def deviation(self) -> Tensor:
        """What rewards are divided by, per objective."""
        return (self.variance + 1e-8).sqrt().float()

    def update(self, reward: Float[Tensor, "env *objective"], ended: Bool[Tensor, "env"]) -> None:
        """Take the rewards of one step of every environment into the running deviation."""
        self.update_all(reward[None], ended[None])

    def update_all(
        self, reward: Float[Tensor, "time env *objective"], ended: Bool[Tensor, "time env"]
    ) -> None:
        """Take the rewards of several steps into the running deviation, all at once."""
        going = self._beside(~ended, reward)
        first = reward[:1] + self.discount * self.returns
        term = torch.cat([first, reward[1:].double()])
        factor = self.discount * torch.cat([torch.ones_like(going[:1]), going[:-1]])
        # The recursion runs forward in time: as the backward one does on what is turned around.
        returns = backward_sum(term.flip(0), factor.flip(0)).flip(0)
        merge_moments(self.mean, self.variance, self.count, returns.flatten(0, 1))
        self.returns = returns[-1] * going[-1]

    def __call__(self, reward: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Scaled rewards."""
        return (reward / self.deviation).clamp(-self.clip, self.clip)

    @staticmethod
    def _beside(flag: Tensor, like: Tensor) -> Tensor:
        """A flag per step as numbers that multiply `like`."""
        return flag.double().reshape(flag.shape + (1,) * (like.dim() - flag.dim()))

    def state_dict(self) -> dict[str, Any]:
        """Moments and unfinished sums."""
        names = ("returns", "mean", "variance", "count")
        return {name: getattr(self, name).clone() for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name in ("returns", "mean", "variance", "count"):
            setattr(self, name, state[name].clone())


class RunningMoments:
    """Mean and deviation of all the numbers a run has seen, such as the rewards of its answers.

    A batch is merged by its own moments (Chan et al. 1979), so that the result does not depend on how the
    numbers are cut into batches. The deviation is the unbiased one; it is 1 while it says nothing: before the
    second number, and while all are equal.
    Source: Zheng et al. 2023 (PPO-max), the authors' code.
    """

    def __init__(self) -> None:
        self.mean = torch.zeros((), dtype=torch.float64)
        self.variance = torch.zeros((), dtype=torch.float64)
        self.count = torch.zeros((), dtype=torch.float64)

    @property
    def deviation(self) -> Float[Tensor, ""]:
        """The unbiased standard deviation, above 0."""
        if not (float(self.count) > 1 and float(self.variance) > 0):
            return torch.ones_like(self.variance)
        return (self.variance * self.count / (self.count - 1)).sqrt()

    def update(self, values: Float[Tensor, "row"]) -> None:
        """Take a batch of numbers into the moments; `DataError` naming the first that is not finite."""
        rows = values.detach().reshape(-1).double().cpu()
        if not bool(rows.isfinite().all()):
            row = int((~rows.isfinite()).nonzero()[0])
            raise DataError(
                f"the number is {float(rows[row])}", where=f"row {row}", expected="finite numbers"
            )
        if len(rows):
            merge_moments(self.mean, self.variance, self.count, rows)

    def state_dict(self) -> dict[str, Any]:
        """The moments."""
        return {name: getattr(self, name).clone() for name in ("mean", "variance", "count")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name in ("mean", "variance", "count"):
            setattr(self, name, state[name].clone())


def merge_moments(mean: Tensor, variance: Tensor, count: Tensor, rows: Float[Tensor, "row *size"]) -> None:
    """Merge the moments of `rows` into running ones, in place; variances are those of the population."""
    number = len(rows)
    batch_mean = rows.mean(0)
    batch_variance = rows.var(0, correction=0)
    total = count + number
    moved = batch_mean - mean
    variance.copy_(
        (variance * count + batch_variance * number + moved.square() * count * number / total) / total
    )
    mean.add_(moved * (number / total))
    count.copy_(total)
