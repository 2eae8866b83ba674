"""Sums with help: the arithmetic's questions beside a hint, or beside a failed solution and its critique.

    hint       7-2+8=7-2=5;                     the rest is to be written: 5+8=13;#13
    critique   7-2+8=!7-2=4;4+8=12;#12~no 13:   the whole is to be written: 7-2=5;5+8=13;#13

A hint stands where the answer would begin, so that whoever can work out sums can go on with it. What a
critique asks for, a small model understands only where it has seen it; the examples here teach it that.
"""

from __future__ import annotations

import re

import torch

from policysmith.claims.common.arithmetic import MARKER
from policysmith.common.rng import generator
from policysmith.experience.examples import Example, Examples
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.rewards.critiques import Wording

HINT = "{question}{hint}"
REFINE = "{question}!{answer}~{critique}:"
WORDING = Wording(right="ok", wrong="no", truth=" {truth}")


def corrected_examples(prompts: Prompts, seed: int) -> Examples:
    """Each question beside a failed solution and what is said of it; the right solution is to be written.

    Half of the critiques tell the answer, half say no more than that it is wrong.
    """
    rng = generator(seed, "corrections")

    def example(prompt: Prompt) -> Example:
        truth = WORDING.truth.format(truth=prompt.answer) if _coin(rng) else ""
        failed = with_slip(prompt.data["solution"], rng)
        asked = REFINE.format(question=prompt.text, answer=failed, critique=WORDING.wrong + truth)
        return Example(asked, prompt.data["solution"])

    return Examples(map(example, prompts))


def with_slip(solution: str, rng: torch.Generator) -> str:
    """The solution with one total off by 1 to 9, and everything behind it worked out from the wrong total."""
    steps = solution.split(MARKER)[0].rstrip(";").split(";")
    at = int(torch.randint(len(steps), (), generator=rng))
    slip = int(torch.randint(1, 10, (), generator=rng)) * (1 if _coin(rng) else -1)
    written, total = steps[:at], int(steps[at].split("=")[1]) + slip
    written.append(f"{steps[at].split('=')[0]}={total}")
    for step in steps[at + 1 :]:
        term = _LAST_TERM.search(step.split("=")[0])
        assert term is not None
        written.append(f"{total}{term[0]}={total + int(term[0])}")
        total += int(term[0])
    return ";".join(written) + f";{MARKER}{total}"


_LAST_TERM = re.compile(r"[+-]\d+$")


def _coin(rng: torch.Generator) -> bool:
    return bool(torch.rand((), generator=rng) < 0.5)
