"""Judges of several candidates side by side, and the target that is judged: language models in these roles.

    judge = LanguageJudge(open_policy("smollm2-135m"))     points from 0 to 10, read from what it writes
    judge = own_likelihood(target)                         self-rewarding: what the target finds likely

The judge of two answers is `rewards.judges`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from policysmith.common.errors import SettingError
from policysmith.common.rng import generator
from policysmith.experience.prompts import Prompt
from policysmith.experience.rollouts import encode_prompt, sampled
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.policies.language.sampling import Sampling
from policysmith.synthesis.players import Assess, Knowledge
from policysmith.synthesis.tools import words

RUBRIC = "Rate the answer to the question from 0 (wrong or useless) to 10 (right and well put)."
TEMPLATE = (
    "{rubric}\n\nQuestion: {question}\n{knowledge}Answer: {answer}\n\nFirst the score, then why.\nScore:"
)

LIKELIEST = Sampling(limit=48, temperature=0.0)

_SCORE = re.compile(r"(?<![\w.])(?:10|\d)(?:\.\d+)?(?![\w]|\.\d)")


class LanguageJudge:
    """A language model that gives each candidate a score from 0 to 10 in words, in a call of its own.

    - `template`: what it is asked, with `{rubric}`, `{question}`, `{knowledge}` (a line per tool) and
      `{answer}` in it. The rubric is the game's; `RUBRIC` where that is empty.
    - `sampling`: how it writes, by default its likeliest words.

    The first number from 0 to 10 in what it writes is the score and the whole the reason; where there is
    none, it cannot say (None).
    """

    def __init__(
        self,
        policy: LanguagePolicy,
        *,
        template: str = TEMPLATE,
        sampling: Sampling = LIKELIEST,
        seed: int = 0,
    ) -> None:
        if lacking := [name for name in ("{question}", "{answer}") if name not in template]:
            raise SettingError(f"the judge's template lacks {', '.join(lacking)}", where=template[:80])
        self.policy, self.template, self.sampling, self.seed = policy, template, sampling, seed
        self._sampler = sampled(policy, LocalEngine(policy), sampling, copies=1)

    def __call__(
        self, prompt: Prompt, candidates: Sequence[str], knowledge: Knowledge, rubric: Any
    ) -> tuple[list[float | None], list[str]]:
        """A score and what the model wrote, for each candidate."""
        known = "".join(f"Known ({name}): {text}\n" for name, text in knowledge.items() if text)
        parts = {"{rubric}": str(rubric or RUBRIC), "{question}": words(prompt), "{knowledge}": known}
        asked = {
            place: Prompt(_filled(self.template, {**parts, "{answer}": answer}))
            for place, answer in enumerate(candidates)
        }
        said = self._sampler(asked, rng=generator(self.seed, "judge")).texts
        return [read_score(text) for text in said], said


def read_score(text: str) -> float | None:
    """The first number from 0 to 10 in a text; None where there is none."""
    found = _SCORE.search(text)
    value = float(found.group()) if found else None
    return value if value is not None and value <= 10 else None


def own_likelihood(policy: LanguagePolicy, *, system: str = "") -> Assess:
    """Self-rewarding: ten times the geometric mean probability that the policy gives a candidate's tokens.

    The baseline that the roles are kept apart to beat; its errors are the target's own.
    """

    @torch.no_grad()
    def judge(prompt: Prompt, candidates: Sequence[str], knowledge: Knowledge, rubric: Any) -> list[float]:
        begin = encode_prompt(policy, prompt, system=system)
        answers = [[*policy.encode(text), policy.end_tokens[0]] for text in candidates]
        time = len(begin) + max(map(len, answers))
        token = torch.full((len(answers), time), policy.tokenizer.pad_token_id)
        attended, mask = (torch.zeros(len(answers), time, dtype=torch.bool) for _ in range(2))
        for row, answer in enumerate(answers):
            end = len(begin) + len(answer)
            token[row, :end] = torch.tensor([*begin, *answer])
            attended[row, :end], mask[row, len(begin) : end] = True, True
        parts = (part.to(policy.device) for part in (token, attended))
        log_prob, _ = policy.log_prob(*parts, mask=mask.to(policy.device))
        lengths = torch.tensor([len(answer) for answer in answers], device=log_prob.device)
        return (10 * (log_prob.sum(1) / lengths).exp()).tolist()

    judge.policy = policy  # type: ignore[attr-defined]
    return judge


class Writing:
    """A language model as the target: its answers to prompts behind an instruction, as a system message.

    - `finished_only`: an answer that the limit cut off is no candidate: it would lose by its form.

    `last` are the samples of the last call.
    """

    def __init__(
        self, policy: LanguagePolicy, sampling: Sampling, *, copies: int, finished_only: bool = True
    ) -> None:
        self.policy, self.sampling, self.copies = policy, sampling, copies
        self.finished_only, self.last = finished_only, None
        self._engine = LocalEngine(policy)

    def __call__(self, prompts: Sequence[Prompt], instruction: Any, rng: torch.Generator) -> list[list[str]]:
        """See `Propose`."""
        sampler = sampled(
            self.policy, self._engine, self.sampling, copies=self.copies, system=str(instruction)
        )
        self.last: Samples | None = sampler(dict(enumerate(prompts)), rng=rng)
        found: list[list[str]] = [[] for _ in prompts]
        rows = zip(
            self.last.batch["group_id"].tolist(),
            self.last.batch["finished"].tolist(),
            self.last.texts,
            strict=True,
        )
        for group, finished, text in rows:
            if finished or not self.finished_only:
                found[group].append(text)
        return found


def _filled(template: str, parts: dict[str, str]) -> str:
    """The template with its places filled, one pass, so that what is filled in is not read as a place."""
    pattern = "|".join(map(re.escape, parts))
    return re.sub(pattern, lambda found: parts[found.group()], template)
