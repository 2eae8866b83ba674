"""Drawing tokens from logits, each row with random numbers of its own.

A token is the inverse of the distribution function at a uniform number: one number per row and position,
drawn from a stream that belongs to the row. So what a row says does not depend on which other rows are in
the batch, nor on where in it the row lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import SettingError

_CANDIDATES = 256
"""Tokens looked at first for top-p, before the whole vocabulary is sorted."""

_SUMMED_AT_ONCE = 256
"""Probabilities in one running sum."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    - `limit`: at most so many tokens are drawn for a row; a row may set its own.
    - `temperature`: logits are divided by it; 0 takes the likeliest token each time.
    - `top_k`: only the k likeliest tokens, None for all. `top_p`: only the likeliest that together have the
      probability p, in (0, 1].
    - `stop`: an answer ends with the token that completes one of these strings; the string stays in it.
    """

    limit: int = 256
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise SettingError(f"a limit of {self.limit} tokens", expected="at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise SettingError(f"a temperature of {self.temperature}", expected="0 (greedy) or above")
        if self.top_k is not None and self.top_k < 1:
            raise SettingError(f"top-k of {self.top_k}", expected="at least 1, or None for all tokens")
        if not 0 < self.top_p <= 1:
            raise SettingError(f"top-p of {self.top_p}", expected="above 0 and at most 1")
        if isinstance(self.stop, str) or not all(self.stop):
            raise SettingError(
                f"stop strings {self.stop!r}", expected="a tuple of strings, none of them empty"
            )


def draw(
    logits: Float[Tensor, "row vocabulary"], uniform: Float[Tensor, "row"], sampling: Sampling
) -> tuple[Int[Tensor, "row"], Float[Tensor, "row"]]:
    """A token per row and its log-probability.

    The log-probability is under the softmax at the sampling's temperature over the whole vocabulary, which
    is what a learner at that temperature computes: top-k and top-p choose what is drawn and leave it alone.
    Greedy draws have that of temperature 1.
    """
    logits = logits.float()
    if sampling.temperature == 0:
        token = logits.argmax(1)
        return token, (logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(1))
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if sampling.top_k is not None or sampling.top_p < 1:
        log_p = logits.log_softmax(1)
        token = _draw_among_likeliest(log_p, uniform, sampling)
        return token, log_p.gather(1, token[:, None])[:, 0]
    # Over a wide vocabulary each pass costs: the masses are neither normalised nor made logarithms again.
    best = logits.amax(1, keepdim=True)
    mass = (logits - best).exp_()
    token = _invert(mass, uniform)
    return token, (logits.gather(1, token[:, None]) - best - mass.sum(1, keepdim=True).log())[:, 0]


def _invert(mass: Tensor, uniform: Tensor) -> Tensor:
    """The first index at which the running sum passes `uniform` of the whole.

    Sums run over blocks first and then within one, which is sooner done and more precise than over them all.
    """
    if mass.shape[1] <= _SUMMED_AT_ONCE:
        total = mass.cumsum(1)
        return _first_beyond(total, uniform[:, None].to(total.dtype) * total[:, -1:])
    if rest := -mass.shape[1] % _SUMMED_AT_ONCE:
        mass = F.pad(mass, (0, rest))
    blocks = mass.unflatten(1, (-1, _SUMMED_AT_ONCE))
    total = blocks.sum(2).cumsum(1)
    goal = uniform[:, None].to(total.dtype) * total[:, -1:]
    block = _first_beyond(total, goal)
    before = F.pad(total, (1, 0)).gather(1, block[:, None])
    within = blocks[torch.arange(len(blocks), device=mass.device), block].cumsum(1)
    return block * _SUMMED_AT_ONCE + _first_beyond(within, goal - before)


def _first_beyond(total: Tensor, goal: Tensor) -> Tensor:
    """The first index of a running sum [row, index] that is above the goal [row, 1]."""
    # Below the whole even where the goal was rounded up to it: some token always passes the goal, and the
    # first that does has a probability.
    whole = total[:, -1:]
    goal = torch.minimum(goal, whole.nextafter(torch.zeros_like(whole)))
    return torch.searchsorted(total, goal, right=True)[:, 0]


def _draw_among_likeliest(log_p: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    vocabulary = log_p.shape[1]
    count = min(sampling.top_k or _CANDIDATES, vocabulary)
    best, index = log_p.topk(count, dim=1)
    p = best.exp()
    if sampling.top_k is None and float(p.sum(1).min()) < sampling.top_p:
        best, index = log_p.sort(dim=1, descending=True)
        p = best.exp()
    if sampling.top_k is not None:
        p = p / p.sum(1, keepdim=True)
    # A token stays where those before it have not yet the mass p: the likeliest always does.
    before = p.cumsum(1) - p
    return index.gather(1, _invert(p * (before < sampling.top_p), uniform)[:, None])[:, 0]


def stream(seed: int, length: int) -> Float[Tensor, "length"]:
    """The uniform numbers of one row."""
    return torch.rand(length, generator=torch.Generator().manual_seed(seed))


def geometric_mixture(weight: float) -> Callable[[Sequence[Tensor]], Tensor]:
    """Combines logits token by token: the first model to the power 1 - `weight`, the second to `weight`.

    Source: Munos et al. 2023 (Nash-MD), section 7.
    """
    if not 0 <= weight <= 1:
        raise SettingError(f"a mixture weight of {weight}", expected="between 0 and 1")
    return lambda logits: torch.lerp(logits[0].float(), logits[1].float(), weight)
