"""What runs on truncated rollouts put at the seams: who is judged, who learns from what, how it is averaged.

The rows are those of `experience.truncated`: `mask` marks the tokens of the last window, `written` all of the
answer, `truncated` the answers that go on.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from tensordict import TensorDict
from torch import Tensor

from policysmith.objectives.advantages import agreeing
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.rewards.scored import score
from policysmith.rewards.scoring import Scoring
from policysmith.training.learners.language_settings import Prepare, TokenLoss


def judge_finished(samples: Samples, scoring: Scoring) -> None:
    """`reward` [row]: of the answers that have ended; 0 for those that go on, which nobody judges."""
    ended = (~samples.batch["truncated"]).nonzero()[:, 0]
    samples.batch["reward"] = torch.zeros(len(samples))
    if len(ended):
        judged_now = score(samples.select(ended.tolist()), scoring)
        samples.batch["reward"][ended] = judged_now.batch["reward"]


def chosen(batch: TensorDict, most: int | None) -> Int[Tensor, "row"]:
    """The rows of at most so many prompts: unequal rewards first, then unfinished answers, then the rest.

    Unequal are the rewards of those that have ended; within each kind, the oldest prompts come first.
    """
    group, truncated = batch["group_id"], batch["truncated"]
    ids, index = group.unique(return_inverse=True)
    if most is None or len(ids) <= most:
        return torch.arange(len(batch))
    ended = ~truncated
    unequal = torch.zeros(len(ids), dtype=torch.bool)
    unequal[index[ended]] = ~agreeing(batch["reward"][ended], group[ended])
    unfinished = torch.zeros(len(ids), dtype=torch.bool)
    unfinished[index[truncated]] = True
    rank = torch.where(unequal, 0, torch.where(unfinished, 1, 2))
    taken = rank.argsort(stable=True)[:most]
    return torch.isin(index, taken).nonzero()[:, 0]


def finished_answers(batch: TensorDict) -> TensorDict:
    """What the critic learns from: answers that have ended, all their tokens."""
    ended = batch[~batch["truncated"]]
    ended["mask"] = ended["written"]
    return ended


def window_mean_weight(batch: TensorDict) -> Float[Tensor, "row time"]:
    """One over the tokens of this window, those without an advantage too, on all tokens that are scored."""
    return batch["mask"].float() / batch["window"].sum()


def imitating(coefficient: float) -> Prepare | None:
    """Puts in what each token of a rewarded answer counts in the cross-entropy, and has it scored."""
    if coefficient == 0:
        return None

    def prepare(policy: LanguagePolicy, batch: TensorDict, rng: torch.Generator) -> TensorDict:
        good = batch["written"] & (~batch["truncated"] & (batch["reward"] > 0))[:, None]
        # The mean over these tokens, whatever the mean over the window's is.
        each = coefficient * batch["window"].sum() / good.sum().clamp(min=1)
        batch["imitated"] = good * each
        batch["mask"] = batch["window"] | good
        return batch

    return prepare


def with_imitation(loss: TokenLoss, coefficient: float) -> TokenLoss:
    """`loss` plus the cross-entropy of the tokens that `imitating` marked."""
    if coefficient == 0:
        return loss

    def with_term(
        log_prob: Tensor, entropy: Tensor, batch: TensorDict
    ) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
        values, statistics = loss(log_prob, entropy, batch)
        return values - batch["imitated"] * log_prob, statistics

    return with_term
