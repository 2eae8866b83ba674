"""Guidance: a question that no answer got right is asked again with the beginning of its solution.

    guided(sampler, stages=(0.25, 0.5, 0.75))

A group all of whose answers are wrong has nothing to compare and teaches nothing. `guided` finds such groups
and asks each again behind a longer and longer hint, until an answer is right or the stages are through. What
was answered last is kept, with the prompt that it was written on: the hint is read, and never learnt. Prompts
that the policy can do stay as they are, so that hints go by themselves where they are no longer needed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt, Prompts, rephrased
from policysmith.experience.rollouts import Groups, Sampler, correctness, log_tokens, tokens_by_group
from policysmith.policies.language.samples import Samples, in_order, join

STAGES = (0.25, 0.5, 0.75)
"""Shares of the solution that are shown, one after the other."""

HINT = "{question}\n\nTo help you, this is how a right answer begins:\n{hint}"
"""How a hint is put beside its question."""


def guided(
    sampler: Sampler,
    *,
    stages: Sequence[float] = STAGES,
    template: str = HINT,
    column: str = "",
    begin: int = 0,
    skip_unsolved: bool = False,
) -> Sampler:
    """Whatever `sampler` answers, and again with hints to the groups in which no answer is right.

    - `stages`: the shares of `Prompt.data["solution"]`, in characters, that are shown one after the other.
    - `template`: how, with `{question}` and `{hint}` in it.
    - `column`: the reward that says whether an answer is right (above 0), where there are several.
    - `begin`: the version of the weights from which on hints are given.
    - `skip_unsolved`: leave groups whose prompt has no solution as they are; `DataError` otherwise.

    Logs per row: `hard`, whether its group failed without help; `unsolved`, whether also with it;
    `hinted`, whether a hint was shown; `hint`, which share, and `hint/SHARE`, whether that one; `leaked`,
    whether it gave the answer away; `unaided_reward`, the mean over the plain answers; `failed_rewards` and
    `sampled_tokens`, of all attempts. Raises `SettingError` for stages that do not rise between 0 and 1.
    Source: Liu et al. 2025 (GHPO).
    """
    check_stages(stages)
    check_template(template, "question", "hint")

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        samples = sampler(groups, rng=rng, version=version, copies=copies)
        unaided, hard = float(samples.batch["reward"].mean()), failed_groups(samples, column)
        drawn, shown = tokens_by_group(samples), dict.fromkeys(groups, 0.0)
        failures = _failures(samples)
        failed = [group for group in hard if has_solution(groups[group]) or not skip_unsolved]
        for share in stages if version >= begin else ():
            if not failed:
                break
            asked = {group: with_hint(groups[group], share, template=template) for group in failed}
            again = sampler(asked, rng=rng, version=version, copies=copies)
            drawn += tokens_by_group(again)
            failures += _failures(again)
            shown |= dict.fromkeys(failed, share)
            samples = with_groups(samples, again)
            failed = failed_groups(again, column)
        samples.log("hard", _in(samples, hard))
        samples.log("unsolved", _in(samples, failed_groups(samples, column)))
        samples.log("unaided_reward", unaided)
        if failures:
            samples.log("failed_rewards", failures)
        _log_hints(samples, groups, shown, stages)
        log_tokens(samples, drawn)
        return samples

    return sample


def with_hint(prompt: Prompt, share: float, *, template: str = HINT) -> Prompt:
    """The prompt with the first `share` of its solution beside the question; answer and data stay."""
    hint = beginning(solution_of(prompt), share)
    return rephrased(prompt, lambda question: template.format(question=question, hint=hint))


def beginning(solution: str, share: float) -> str:
    """The first `share` of the characters, rounded to the nearest (halves to the even number)."""
    return solution[: round(share * len(solution))]


def gives_away(hint: str, answer: object) -> bool:
    """Whether the answer stands in the hint as a word or number of its own."""
    return bool(re.search(rf"(?<!\w){re.escape(str(answer).strip())}(?!\w)", hint))


def has_solution(prompt: Prompt) -> bool:
    """Whether there is a solution to take hints from."""
    solution = prompt.data.get("solution")
    return isinstance(solution, str) and bool(solution.strip())


def solution_of(prompt: Prompt, *, where: str = "") -> str:
    """`data["solution"]`; `DataError` naming the prompt (`where` it is) without one."""
    if not has_solution(prompt):
        raise DataError(
            "a question has no solution to take a hint from",
            where=f"{where or 'prompt'} {str(prompt.text)[:80]!r}",
            expected="a text in the column 'solution'",
            cure="give it one, or let questions without a solution be asked plainly",
        )
    return prompt.data["solution"]


def check_solutions(prompts: Prompts) -> None:
    """Raise `DataError` naming the first row that has no solution."""
    for row, prompt in enumerate(prompts):
        solution_of(prompt, where=f"row {row}")


def check_stages(stages: Sequence[float]) -> None:
    """Raise `SettingError` unless the shares rise from above 0 to below 1."""
    edges = [0.0, *stages, 1.0]
    if not stages or any(not low < high for low, high in itertools.pairwise(edges)):
        raise SettingError(
            f"stages {list(stages)}",
            expected="shares of the solution that rise, above 0 and below 1, such as 0.25 0.5 0.75",
        )


def check_template(template: str, *fields: str) -> None:
    """Raise `SettingError` unless the template has each of the fields in braces, and no others."""
    try:
        template.format(**dict.fromkeys(fields, ""))
        missing = [field for field in fields if f"{{{field}}}" not in template]
    except (KeyError, IndexError, ValueError) as error:
        raise SettingError(
            f"the template {template!r} cannot be filled in: {error!r}",
            expected=f"the fields {', '.join(f'{{{field}}}' for field in fields)}; other braces doubled",
        ) from error
    if missing:
        raise SettingError(f"the template {template!r} has no {{{missing[0]}}}")


def failed_groups(samples: Samples, column: str = "") -> list[int]:
    """The groups in which no answer is right: every score of the column at 0 or below."""
    groups, score = samples.batch["group_id"], correctness(samples, column)
    right = set(groups[score > 0].tolist())
    return [group for group in dict.fromkeys(groups.tolist()) if group not in right]


def with_groups(samples: Samples, again: Samples) -> Samples:
    """The samples, with the groups of `again` as they are there."""
    groups = set(again.batch["group_id"].tolist())
    kept = [row for row, group in enumerate(samples.batch["group_id"].tolist()) if group not in groups]
    return in_order(join([samples.select(kept), again]))


# ---- what is logged ----------------------------------------------------------------------------------


def _log_hints(samples: Samples, groups: Groups, shown: Mapping[int, float], stages: Sequence[float]) -> None:
    share = [shown[group] for group in samples.batch["group_id"].tolist()]
    samples.log("hint", share)
    samples.log("hinted", [float(one > 0) for one in share])
    for stage in stages:
        samples.log(f"hint/{stage:g}", [float(one == stage) for one in share])
    leaking = {
        group
        for group, stage in shown.items()
        if stage > 0
        and groups[group].answer is not None
        and gives_away(beginning(solution_of(groups[group]), stage), groups[group].answer)
    }
    samples.log("leaked", _in(samples, leaking))


def _failures(samples: Samples) -> float:
    """How many answers a reward failed on, where it may."""
    log = samples.batch["log"]
    return float(log["failed_rewards"][0]) if "failed_rewards" in log.keys() else 0.0  # noqa: SIM118


def _in(samples: Samples, groups: Iterable[int]) -> list[float]:
    """1.0 for the rows of these groups, else 0.0."""
    chosen = set(groups)
    return [float(group in chosen) for group in samples.batch["group_id"].tolist()]
