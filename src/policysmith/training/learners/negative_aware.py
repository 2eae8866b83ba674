"""Likelihood on right and wrong answers (NFT), at the seams of the language run.

    language_run(..., label=outcomes(), loss=negative_aware(), settings with filter_agreeing=True)

The label tells which answers are right and how often their prompt's were; the loss is
`objectives.negative_aware`. A negative weight of 0 learns from right answers alone: rejection fine-tuning.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError
from policysmith.common.keys import require_keys
from policysmith.objectives.advantages import group_rate
from policysmith.objectives.negative_aware import PromptWeight, floored_share, negative_aware_loss
from policysmith.policies.language.samples import Samples
from policysmith.training.learners.language_settings import Label, TokenLoss


def outcomes(*, filtered: bool = False) -> Label:
    """`correct` [row] and `rate` [row], the share of right answers in the row's group, from rewards 1 and 0.

    Raises `DataError` naming the prompt where a reward is neither, and where a prompt's answers are all right
    or all wrong, so that they say nothing. `filtered` says that such prompts are filtered out as far as there
    are others: where a batch has nothing else, it is then let through, and nothing is learnt from it.
    """

    def label(samples: Samples) -> Samples:
        batch = samples.batch
        reward = batch["reward"]
        graded = (reward != 0) & (reward != 1)
        if bool(graded.any()):
            row = int(graded.nonzero()[0])
            raise DataError(
                f"an answer has the reward {float(reward[row]):g}",
                where=_named(samples, row),
                expected="1 for right or 0 for wrong: the likelihoods are split between the two",
                cure="use a verifier that decides, or `grpo`, which takes any number",
            )
        rate = group_rate(reward, batch["group_id"])
        agree = (rate == 0) | (rate == 1)
        if bool(agree.any()) and not (filtered and bool(agree.all())):
            row = int(agree.nonzero()[0])
            raise DataError(
                f"all answers to a prompt are {'right' if float(rate[row]) else 'wrong'}",
                where=_named(samples, row),
                expected="right and wrong ones: there is nothing to tell right from",
                cure="filter such prompts out: filter_agreeing=True",
            )
        batch["correct"], batch["rate"] = reward == 1, rate
        samples.log("rate", rate)
        return samples

    return label


def negative_aware(
    *,
    negative_weight: float = 1.0,
    negative_floor: float = 1.0,
    positive_floor: float = 0.0,
    weight: PromptWeight = "difficulty",
) -> TokenLoss:
    """The negative-aware loss per token; see `objectives.negative_aware.negative_aware_loss`.

    Its statistic `floored` is the share of tokens of wrong answers where the floor binds.
    """

    def loss(
        log_prob: Tensor, entropy: Tensor, batch: TensorDict
    ) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
        require_keys(batch, ["old_log_prob", "correct", "rate"], reader="the negative-aware loss")
        old, correct, rate = batch["old_log_prob"], batch["correct"], batch["rate"]
        told = (rate > 0) & (rate < 1)
        rate = torch.where(told, rate, 0.5)
        values = negative_aware_loss(
            log_prob,
            old,
            correct,
            rate,
            negative_weight=negative_weight,
            negative_floor=negative_floor,
            positive_floor=positive_floor,
            weight=weight,
        )
        floored = floored_share(log_prob, old, correct, rate=rate, negative_floor=negative_floor)
        return torch.where(batch["mask"] & told[:, None], values, 0.0), {"floored": floored}

    return loss


def _named(samples: Samples, row: int) -> str:
    return f"prompt {str(samples.about[row].text)[:80]!r}, answer {samples.texts[row][:80]!r}"
