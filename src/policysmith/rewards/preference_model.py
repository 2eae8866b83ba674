"""A model that compares: two answers in one text, and how likely it is that the first is the better one.

    P(first better) = 1/2 (sigmoid(z(first, second)) + 1 - sigmoid(z(second, first)))

It need not come from a reward: preferences may go in a circle, as those of several people together do. The
mean of both orders takes away what a model makes of the order alone, and makes the two probabilities of a
pair sum to one.

Sources: Zhao et al. 2023 (SLiC-HF), the ranking model; Munos et al. 2023 (Nash learning), section 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt
from policysmith.experience.rollouts import encode_prompt
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.scalar import Row, ScalarModel, laid_out

FIELDS = ("{prompt}", "{first}", "{second}")


class PreferenceModel(ScalarModel):
    """Says of two answers to a prompt how likely the first is the better one; a `rewards.judges.Judge`.

    Without a `template` the text is the prompt as the policy puts it, then both answers, each with its end
    token: nothing that a small vocabulary would lack. With one, such as "{prompt} A: {first} B: {second}",
    the text is put as a question, and the number is read where the model would answer it.
    """

    kind: ClassVar[str] = "preference model"
    complementary: ClassVar[bool] = True
    """Both orders sum to one."""

    def __init__(self, policy: LanguagePolicy, *, template: str = "", system: str = "") -> None:
        super().__init__(policy, template=template, system=system)
        if template and (missing := [field for field in FIELDS if field not in template]):
            raise SettingError(f"the template lacks {', '.join(missing)}", expected=", ".join(FIELDS))

    @torch.no_grad()
    def forward(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Float[Tensor, "row"]:
        """The probability that the first answer is the better one, the mean of both orders; no gradient."""
        if not prompts:
            return torch.zeros(0)
        there = torch.sigmoid(self.logit(prompts, first, second))
        back = torch.sigmoid(self.logit(prompts, second, first))
        return (0.5 + (there - back) / 2).float().cpu()

    def logit(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Float[Tensor, "row"]:
        """z(first, second), in nats, of this order alone; differentiable."""
        return self.at_end_of(self.rows(prompts, first, second))

    def at_end_of(self, rows: Sequence[Row]) -> Float[Tensor, "row"]:
        """z of texts that `rows` has made."""
        token, attended, mask = laid_out(self.policy, rows)
        return self.at_end(token, attended, mask=mask)

    def rows(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[Row]:
        """The texts as tokens: what stands before the first answer, and the rest."""
        if not len(prompts) == len(first) == len(second):
            raise DataError(
                f"{len(prompts)} prompts with {len(first)} first and {len(second)} second answers",
                expected="one of each per comparison",
            )
        return [self._row(*row) for row in zip(prompts, first, second, strict=True)]

    def _row(self, prompt: Prompt, first: str, second: str) -> Row:
        policy, system = self.policy, self.settings["system"]
        if self.settings["template"]:
            text = self.settings["template"].format(prompt=_words(prompt), first=first, second=second)
            token = policy.encode_question(text, system=system)
            return token[:-1], token[-1:]
        end = policy.end_tokens[0]
        answers = [*policy.encode(first), end, *policy.encode(second), end]
        return encode_prompt(policy, prompt, system=system), answers


def _words(prompt: Prompt) -> str:
    if isinstance(prompt.text, str):
        return prompt.text
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt.text)
