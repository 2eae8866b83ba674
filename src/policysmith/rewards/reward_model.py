"""A reward that was learnt from preferences: a language model that says how good an answer is, as one number.

    r(prompt, answer) = w . h[last token] + b,      P(first better) = sigmoid(r(first) - r(second))

The number is read at the last token of prompt and answer together. That is the end token where the answer was
ended, and the last token that was written where the limit cut it. Only differences between answers to the
same prompt mean something.

Sources: Bradley and Terry 1952; Ziegler et al. 2019; Ouyang et al. 2022, section 3.5.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError
from policysmith.experience.prompts import Prompt
from policysmith.experience.rollouts import encode_prompt
from policysmith.policies.language.critic import LanguageCritic
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.policies.language.scalar import Row, ScalarModel, laid_out, scalar_folder


class ScoresOutcomes(Protocol):
    """Whatever says how good the outcomes of preference rows are, in language or not."""

    def score_outcomes(self, batch: TensorDict) -> Float[Tensor, "row outcome"]:
        """A score for each outcome, differentiable; anything where an outcome is not `present`."""
        ...


class RewardModel(ScalarModel):
    """Scores answers to prompts; a reward like any other, and batched.

    `policy` is taken over and trained with the head, which begins at zero. Prompts are put as the policy's
    own are, behind the `system` message where one is given; a text counts as ended, with the policy's end
    token behind it.
    """

    kind: ClassVar[str] = "reward model"
    batched: ClassVar[bool] = True
    """`Scoring` gives it all answers at once."""

    def __init__(self, policy: LanguagePolicy, *, system: str = "") -> None:
        super().__init__(policy, system=system)

    # ---- as a reward ---------------------------------------------------------------------------------

    @torch.no_grad()
    def forward(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> Float[Tensor, "row"]:
        """The scores of answers given as texts, without gradient."""
        if len(texts) != len(prompts):
            raise DataError(f"{len(texts)} answers for {len(prompts)} prompts")
        if not texts:
            return torch.zeros(0)
        rows = [self._row(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        token, attended, mask = laid_out(self.policy, rows)
        return self.at_end(token, attended, mask=mask).float().cpu()

    @torch.no_grad()
    def score_samples(self, samples: Samples) -> Float[Tensor, "row"]:
        """The scores of samples, on the very tokens that were written where they are this model's own too.

        Answers of a model with other tokens are scored as texts. Raises `DataError` naming the first row
        without an answer.
        """
        batch = samples.batch
        empty = ~batch["mask"].any(1)
        if bool(empty.any()):
            row = int(empty.nonzero()[0])
            raise DataError(
                "there is no answer to be scored",
                where=f"row {row}, {samples.requests[row].name}",
                expected="at least one token that the policy wrote",
            )
        if not self._reads(samples):
            return self(samples.texts, samples.about)
        device = self.policy.device
        token, attended, mask = (batch[key].to(device) for key in ("token", "attended", "mask"))
        return self.at_end(token, attended, mask=mask).float().cpu()

    def _row(self, prompt: Prompt, text: str) -> Row:
        answer = [*self.policy.encode(text), self.policy.end_tokens[0]]
        return encode_prompt(self.policy, prompt, system=self.settings["system"]), answer

    def _reads(self, samples: Samples) -> bool:
        """Whether the tokens mean to this model what they meant to the one that wrote them."""
        token = samples.batch["token"]
        if int(token.max()) >= self.policy.head.shape[0] or token.shape[1] > self.policy.context:
            return False
        rows = range(len(samples))
        return all(self.policy.decode(samples.answer(row)) == samples.texts[row] for row in rows)

    # ---- learning and what begins with it ------------------------------------------------------------

    def score_outcomes(self, batch: TensorDict) -> Float[Tensor, "row outcome"]:
        """The scores of preference rows (`token`, `attended`, `mask` [row, outcome, time]), differentiable.

        0 where an outcome is not `present`.
        """
        present = batch["present"]
        token, attended, mask = (batch[key][present] for key in ("token", "attended", "mask"))
        found = self.at_end(token, attended, mask=mask)
        return torch.zeros(present.shape, dtype=found.dtype, device=found.device).masked_scatter(
            present, found
        )

    def as_critic(self) -> LanguageCritic:
        """A critic that begins as a copy of this model, body and head."""
        return LanguageCritic(deepcopy(self.policy), head=deepcopy(self.head))


def is_reward_model(folder: str | os.PathLike[str]) -> bool:
    """Whether a reward model was saved into `folder`, or by a run into its `policy` folder."""
    return scalar_folder(folder, kind=RewardModel.kind) is not None


@torch.no_grad()
def outcome_scores(
    model: ScoresOutcomes, rows: TensorDict, *, at_a_time: int = 256
) -> Float[Tensor, "row outcome"]:
    """The scores of all preference rows, so many at a time and without gradient; 0 where none is present."""
    return torch.cat([model.score_outcomes(part) for part in rows.split(at_a_time)])


def check_trained(margin: Float[Tensor, "pair"]) -> None:
    """Warn where scores rank pairs no better than chance would.

    `margin` is the better answer's score less the other's, ties count as half. Chance is one half, give or
    take two standard errors of as many flips of a coin.
    """
    if len(margin) == 0:
        raise DataError("no pairs to tell a trained reward model from an untrained one by")
    accuracy = float((torch.sign(margin.double()) / 2 + 0.5).mean())
    if accuracy <= 0.5 + 1 / math.sqrt(len(margin)):
        warnings.warn(
            f"the reward model ranks {accuracy:.1%} of {len(margin)} pairs rightly, as chance does: what is "
            "chosen by its scores is chosen at random. Train it longer or on more pairs, and see whether the "
            "answers that stand first really are the better ones",
            stacklevel=2,
        )
