"""Critiques: what is said of an answer in words, for whoever writes it again.

A critique is a function of scored samples that says a sentence or more of each. `verdicts` say whether the
answer is right, and what would have been if they may; `written` asks a critic (a stronger model behind a
server, the policy itself, a person) about the wrong answers.

Source: Zhang et al. 2025 (Critique-GRPO), whose three kinds of critique these are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policysmith.common.errors import DataError
from policysmith.experience.prompts import Prompt
from policysmith.experience.rollouts import correctness
from policysmith.policies.language.samples import Samples

Critique = Callable[[Samples], list[str]]
"""Answers with their rewards -> what is said of each."""

Critic = Callable[[str, Prompt], str]
"""(the answer, its prompt) -> what is wrong with it, in words."""


@dataclass(frozen=True)
class Wording:
    """What is said of a right and of a wrong answer, and behind it of the truth (`{truth}` in it)."""

    right: str = "The solution is correct."
    wrong: str = "The solution is wrong."
    truth: str = " The right answer is {truth}."


def verdicts(*, tell_truth: bool, wording: Wording = Wording(), column: str = "") -> Critique:
    """Whether each answer is right, by the reward `column` (1 or more), and with `tell_truth` what is.

    Raises `DataError` where the truth is to be told and a prompt has no answer.
    """

    def critique(samples: Samples) -> list[str]:
        said = []
        for score, prompt in zip(correctness(samples, column).tolist(), samples.about, strict=True):
            verdict = wording.right if score >= 1 else wording.wrong
            said.append(verdict + (wording.truth.format(truth=truth_of(prompt)) if tell_truth else ""))
        return said

    return critique


def written(critic: Critic, *, wording: Wording = Wording(), column: str = "") -> Critique:
    """What `critic` writes of each wrong answer; of right ones, and where it fails, the verdict and truth.

    A critic fails by raising or by saying nothing; `failed_critiques` logs how often. Raises `DataError`
    where it failed on every answer it was asked about.
    """
    plain = verdicts(tell_truth=True, wording=wording, column=column)

    def critique(samples: Samples) -> list[str]:
        said = plain(samples)
        wrong = (correctness(samples, column) < 1).nonzero()[:, 0].tolist()
        failures: list[Exception] = []
        for row in wrong:
            try:
                said[row] = _words(critic(samples.texts[row], samples.about[row]))
            except Exception as error:  # a critic is anybody's code, and often behind a network
                failures.append(error)
        if failures and len(failures) == len(wrong):
            raise DataError(
                f"the critic failed on all {len(wrong)} wrong answers, the last time with {failures[-1]!r}",
                where=f"prompt {str(samples.about[wrong[-1]].text)[:80]!r}",
                cure="mend the critic, or take critiques of the kind 'simple_gt', which need none",
            ) from failures[-1]
        samples.log("failed_critiques", len(failures))
        return said

    return critique


def truth_of(prompt: Prompt, *, where: str = "") -> str:
    """The right answer as text; `DataError` naming the prompt (`where` it is) that has none."""
    if prompt.answer is None:
        raise DataError(
            "a critique is to tell the right answer, and the prompt has none",
            where=f"{where or 'prompt'} {str(prompt.text)[:80]!r}",
            expected="the field 'answer'",
            cure="give an answer column, or take critiques of the kind 'simple'",
        )
    return str(prompt.answer)


def _words(said: object) -> str:
    if not isinstance(said, str) or not said.strip():
        raise DataError(f"the critic said {said!r:.40}", expected="some words")
    return said
