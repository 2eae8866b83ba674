"""Learning to be preferred: the policy gradient of a game whose payoff is who wins, not a reward.

Two policies write an answer each, and a preference model says how likely the first is better. Regularised by
the divergence from a reference mu, the game has one equilibrium, and the gradient for the first player is

    E[ grad log pi(y) (P(y better than y') - 1/2 - tau log pi(y)/mu(y)) ]

The one half is a control variate (the mean in self-play) and everything in the bracket is a constant. Only
the first player's answer carries gradient, not that of the opponent, whoever that is.

Source: Munos et al. 2023, Nash learning from human feedback, section 7.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from policysmith.common.errors import DataError, SettingError, ShapeError

Form = Literal["sequence", "token"]
"""Where the divergence weighs: the summed log-ratio on all tokens, or each token's own on itself."""


def nash_policy_gradient_loss(
    log_prob: Float[Tensor, "row time"],
    reference_log_prob: Float[Tensor, "row time"],
    preferred: Float[Tensor, "row"],
    mask: Bool[Tensor, "row time"],
    *,
    divergence: float,
    form: Form = "sequence",
) -> Float[Tensor, "row time"]:
    """-(P - 1/2 - tau log-ratio) log pi per token, to be summed over the tokens of a row; 0 outside `mask`.

    `preferred` is P(answer better than the opponent's), `divergence` is tau. The `sequence` form is the
    paper's; `token` weighs each token by its own log-ratio, which is not the gradient of a sequence's
    divergence, and is what a well-known library does. Raises `DataError` naming a row whose P is outside
    [0, 1].
    """
    if divergence < 0:
        raise SettingError(f"a divergence weight of {divergence}", expected="0 or more")
    if form not in ("sequence", "token"):
        raise SettingError(f"the form '{form}'", expected="sequence or token")
    if log_prob.shape != reference_log_prob.shape:
        raise ShapeError(
            f"log-probabilities {list(log_prob.shape)} and {list(reference_log_prob.shape)} of the reference",
            expected="[row, time] both",
        )
    outside = ~((preferred >= 0) & (preferred <= 1))
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise DataError(
            f"a preference of {float(preferred[row]):g}",
            where=f"row {row}",
            expected="a probability, from 0 to 1",
        )
    ratio = torch.where(mask, log_prob - reference_log_prob, 0.0).detach()
    strayed = ratio.sum(1, keepdim=True) if form == "sequence" else ratio
    advantage = preferred.detach()[:, None] - 0.5 - divergence * strayed
    return torch.where(mask, -advantage * log_prob, 0.0)
