"""Feedback: how critiques of pairs become other instructions for target and judge.

    revise = alternatives(targets=["Think step by step."], judges=["Be strict."])
    revise = rewritten_by(open_policy("my-model"))          a language model rewrites both

A revision only proposes. The game tries it on a few inputs, and keeps it where their pairs are as good.

Source: Anyprefer (2504.19276), which rewrites prompts by textual gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from policysmith.common.errors import SettingError
from policysmith.experience.prompts import Prompt
from policysmith.experience.rollouts import sampled
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.sampling import Sampling
from policysmith.synthesis.players import Instructions, Revise

REWRITE = (
    "An instruction for a {role} is to be improved.\nInstruction: {instruction}\n"
    "What was wrong with its results:\n{critiques}\nThe improved instruction, and nothing else:\n"
)
WRITING = Sampling(limit=96, temperature=0.7)
ROLES = {"target": "writer of answers", "judge": "judge of answers"}


def edits(neighbours: Callable[[Instructions], Sequence[Instructions]]) -> Revise:
    """One of the instructions that `neighbours` names, each as likely; the same ones where there are none."""

    def revise(now: Instructions, critiques: Sequence[str], rng: torch.Generator) -> Instructions:
        near = [one for one in neighbours(now) if one != now]
        return near[int(torch.randint(len(near), (), generator=rng))] if near else now

    return revise


def alternatives(*, targets: Sequence[Any] = (), judges: Sequence[Any] = ()) -> Revise:
    """One of these instructions in place of the target's, or one of these rubrics in place of the judge's."""
    if not targets and not judges:
        raise SettingError("nothing is to be tried", expected="an instruction for the target or the judge")

    def neighbours(now: Instructions) -> list[Instructions]:
        return [Instructions(one, now.judge) for one in targets] + [
            Instructions(now.target, one) for one in judges
        ]

    return edits(neighbours)


def rewritten_by(
    policy: LanguagePolicy,
    *,
    template: str = REWRITE,
    sampling: Sampling = WRITING,
    critiques_told: int = 4,
) -> Revise:
    """Both instructions as a language model writes them anew, told what was wrong; one it leaves empty stays.

    Source: Anyprefer, section 2; Yuksekgonul et al. 2024 (TextGrad), in one step in place of two.
    """
    sampler = sampled(policy, LocalEngine(policy), sampling, copies=1)

    def revise(now: Instructions, critiques: Sequence[str], rng: torch.Generator) -> Instructions:
        told = "\n".join(f"- {one}" for one in dict.fromkeys(critiques[:critiques_told]))
        asked = {
            place: Prompt(template.format(role=role, instruction=getattr(now, name), critiques=told))
            for place, (name, role) in enumerate(ROLES.items())
        }
        target, judge = (text.strip() for text in sampler(asked, rng=rng).texts)
        return Instructions(target or now.target, judge or now.judge)

    return revise
