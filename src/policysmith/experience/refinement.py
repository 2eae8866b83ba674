"""Refinement: the policy sees what was said of its answer and writes it again.

    refined(sampler, policy, critique=verdicts(tell_truth=True))

Of the refinements of a group the first best takes the place of the group's first answer, and is hung on the
question as it was first asked: what was written with a critique in view is to be written without one. Such
rows are marked `off_policy`, since nothing is known of how likely they were on that prompt;
`objectives.mixed_policy` learns from both kinds of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.experience.guidance import check_template
from policysmith.experience.prompts import Prompt, rephrased
from policysmith.experience.rollouts import (
    Groups,
    Sampler,
    correctness,
    hung_on,
    log_tokens,
    tokens_by_group,
)
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples, in_order, join

REFINE = (
    "{question}\n\nThis is an earlier solution:\n{answer}\n\nWhat was said of it: {critique}\n\n"
    "Solve the problem again. Mend what is wrong, reason step by step, and give the final answer as before."
)
"""How a refinement is asked for."""


def refined(
    sampler: Sampler,
    policy: LanguagePolicy,
    *,
    critique: Callable[[Samples], list[str]],
    template: str = REFINE,
    only_right: bool = False,
    column: str = "",
    system: str = "",
) -> Sampler:
    """Whatever `sampler` answers, one answer of each group replaced by the best of the group's refinements.

    - `critique`: says something of each answer (`rewards.critiques`).
    - `template`: how a refinement is asked for, with `{question}`, `{answer}` and `{critique}` in it.
    - `only_right`: a group without a right refinement, by the reward `column`, keeps its answers.
    - `system`: the message before the prompts, as the sampler inside has it.

    Every answer is refined once, by `sampler`, which gives refinements their rewards: on the prompt that
    asked for them, whose answer and data are the question's. Logs `refined_right` (share of all refinements),
    `replaced` (share of groups), `unaided_reward` (of the plain answers) and `sampled_tokens`. Source: Zhang
    et al. 2025 (Critique-GRPO).
    """
    check_template(template, "question", "answer", "critique")

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        samples = sampler(groups, rng=rng, version=version, copies=copies)
        if "off_policy" not in samples.batch.keys():  # noqa: SIM118
            samples.batch["off_policy"] = torch.zeros(len(samples), dtype=torch.bool)
        prompts = refinement_prompts(samples, critique(samples), template=template)
        again = _asked_again(sampler, samples, prompts, rng=rng, version=version)
        right = (correctness(again, column) >= 1).float()
        chosen = first_best(again.batch["reward"], again.batch["group_id"])
        if only_right:
            chosen = chosen[right[chosen] > 0]
        drawn = tokens_by_group(samples) + tokens_by_group(again)
        unaided = float(samples.batch["reward"].mean())
        count = len(samples.batch["group_id"].unique())
        if len(chosen):
            best = again.select(chosen.tolist())
            origin = _first_prompts(samples)
            asked = [origin[group] for group in best.batch["group_id"].tolist()]
            samples = in_first_place(samples, hung_on(best, asked, policy, system=system))
        samples.log("refined_right", float(right.mean()))
        samples.log("replaced", len(chosen) / count)
        samples.log("unaided_reward", unaided)
        log_tokens(samples, drawn)
        return samples

    return sample


def refinement_prompts(samples: Samples, said: Sequence[str], *, template: str = REFINE) -> list[Prompt]:
    """For each answer the prompt that asks for it to be written again; `said` is the critique of each."""

    def asking(prompt: Prompt, answer: str, critique: str) -> Prompt:
        return rephrased(
            prompt, lambda question: template.format(question=question, answer=answer, critique=critique)
        )

    return [asking(*one) for one in zip(samples.about, samples.texts, said, strict=True)]


def first_best(reward: Float[Tensor, "row"], group_id: Int[Tensor, "row"]) -> Int[Tensor, "group"]:
    """The row of each group that has the highest reward, the first of those that share it."""
    best: dict[int, int] = {}
    for row, (group, value) in enumerate(zip(group_id.tolist(), reward.tolist(), strict=True)):
        if group not in best or value > float(reward[best[group]]):
            best[group] = row
    return torch.tensor(list(best.values()), dtype=torch.long)


def in_first_place(samples: Samples, others: Samples) -> Samples:
    """The samples with each of `others`, one per group at most, in place of its group's first row.

    What is logged of the rows that go and not of those that come is taken over.
    """
    first: dict[int, int] = {}
    for row, group in enumerate(samples.batch["group_id"].tolist()):
        first.setdefault(group, row)
    places = [first[group] for group in others.batch["group_id"].tolist()]
    others = replace(others, requests=[replace(request, copy=0) for request in others.requests])
    for name, column in samples.batch["log"].items():
        if name not in others.batch["log"].keys():  # noqa: SIM118
            others.log(name, column[places])
    kept = [row for row in range(len(samples)) if row not in set(places)]
    return in_order(join([others, samples.select(kept)]))


def _asked_again(
    sampler: Sampler, samples: Samples, prompts: Sequence[Prompt], *, rng: torch.Generator, version: int
) -> Samples:
    """One answer to each of the prompts, a row's own, in the group of that row."""
    # Group and copy choose a row's random numbers, so that the ids asked with must hold both; several
    # processes share the groups among them, and each has to come to the same ones.
    ids = [(request.group_id << 20) | request.copy for request in samples.requests]
    again = sampler(dict(zip(ids, prompts, strict=True)), rng=rng, version=version, copies=1)
    origin = dict(zip(ids, samples.requests, strict=True))
    mine = [origin[group] for group in again.batch["group_id"].tolist()]
    again.batch["group_id"] = torch.tensor([request.group_id for request in mine])
    again.requests = [
        replace(new, group_id=old.group_id, copy=old.copy)
        for new, old in zip(again.requests, mine, strict=True)
    ]
    return again


def _first_prompts(samples: Samples) -> dict[int, Prompt]:
    """The prompt of each group's answers."""
    found: dict[int, Prompt] = {}
    for group, prompt in zip(samples.batch["group_id"].tolist(), samples.about, strict=True):
        found.setdefault(group, prompt)
    return found
