"""Questions that tools can answer, a small model that was shown wrong answers too, and a weak judge.

    3+4-5=     steps: 3+4=7;7-5=2;#2        short: #2
    bok=       steps: bok:lima;#lima        short: #lima

Two tasks: sums of three digits, and four hundred made-up facts. A letter before the question says how to
answer it (plainly, in steps, shortly, or by a guess), and with it goes how often demonstrations were wrong:
the letter is an instruction that matters. A calculator works out the sums, and a table has the facts.

The judge knows neither. It has read the same demonstrations with another small decoder and a few hundred
answers that were marked, and weighs what it thinks of an answer with its form, its length, and what the tools
say, by a rubric of weights.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.claims.common.arithmetic import MARKER, Level, questions
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.rng import generator, numpy_generator
from policysmith.common.stages import Stage
from policysmith.evaluation.answers import answer
from policysmith.experience.examples import Example, Examples
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.sampling import Sampling
from policysmith.rewards.verifiers import after, exact
from policysmith.synthesis.players import Knowledge, Tool
from policysmith.synthesis.tools import NO_KNOWLEDGE, calculator, lookup
from policysmith.training.learners.supervised import SupervisedSettings

PLAIN, STEPS, SHORT, GUESS = "p>", "s>", "h>", "g>"
WRONG = {PLAIN: 0.3, STEPS: 0.15, SHORT: 0.3, GUESS: 0.6}
"""How often a demonstration behind each instruction is wrong."""
ASKED_AS = (PLAIN, PLAIN, STEPS, SHORT, GUESS)
"""How often each instruction was shown."""
SUMS, FACTS = "sums", "facts"
LIMIT = 24
SAMPLING = Sampling(limit=LIMIT)
MARKED = 500
"""Answers that the judge has seen marked."""
FEATURES = ("looks", "calculator", "facts", "form", "length")
"""What the judge's rubric weighs."""
RUBRIC = {**dict.fromkeys(FEATURES, 1.0), "calculator": 0.25, "facts": 0.25}
"""The first rubric: looks as weighty as form and length, and a judge that has not learnt to trust its tools.

With all weights at 1 the tools would decide nearly every pair, and feedback would have nothing to mend.
"""

read = after(MARKER)
right = exact(read)
"""The verifier: whether what stands behind the last `#` is the answer."""

_LEVEL = Level(3, 1)
_FORM = re.compile(r"(?:[^;#]+;)*#-?\w+")
_WORDS = (
    "lima", "oslo", "rome", "bern", "riga", "kiev", "doha", "male", "apia", "suva", "dili", "baku", "cork",
    "nice", "lyon", "bonn", "gent", "metz", "pisa", "bari", "turin", "porto", "faro", "leon", "vigo", "gijon",
    "tours", "brest", "kiel", "jena", "graz", "linz", "basel", "zug",
)  # fmt: skip


@lru_cache
def facts() -> dict[str, str]:
    """The four hundred facts, a name of three letters and a word each."""
    rng = numpy_generator(0, "facts")
    names = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in "dgklmnrst"]
    chosen = sorted(rng.choice(names, size=400, replace=False).tolist())
    return {name: str(rng.choice(_WORDS)) for name in chosen}


def asked(task: str, size: int, seed: int, *, held_out: bool = False) -> Prompts:
    """Questions of a task: sums that are held out or are not; facts of one half, or of the other."""
    if task == SUMS:
        return Prompts(
            Prompt(one.text, str(one.answer), {"solution": one.data["solution"]})
            for one in questions(_LEVEL, size, seed, held_out=held_out)
        )
    names = [name for place, name in enumerate(facts()) if (place % 2 == 1) == held_out]
    rng = numpy_generator(seed, "asked facts", int(held_out))
    return Prompts(Prompt(f"{name}=", facts()[name]) for name in rng.choice(names, size=size).tolist())


def behind(instruction: str, prompts: Prompts) -> Prompts:
    """The same questions behind an instruction."""
    return Prompts(replace(one, text=f"{instruction}{one.text}") for one in prompts)


def mixed(size: int, seed: int) -> Prompts:
    """Questions of both tasks, half each, in random order."""
    both = [*asked(SUMS, size // 2, seed), *asked(FACTS, size - size // 2, seed)]
    order = torch.randperm(size, generator=generator(seed, "both tasks")).tolist()
    return Prompts(both[place] for place in order)


def demonstrations(size: int, seed: int) -> Examples:
    """Questions of both tasks behind instructions, with answers of which some are wrong."""
    rng = numpy_generator(seed, "demonstrations")
    every = [*asked(SUMS, size // 2, seed), *(Prompt(f"{name}=", word) for name, word in facts().items())]
    shown = []
    for number in range(size):
        sums = number % 2 == 0
        prompt = every[number // 2] if sums else every[size // 2 + int(rng.integers(len(facts())))]
        instruction = str(rng.choice(ASKED_AS))
        in_steps = instruction == STEPS or (instruction == PLAIN and rng.random() < 0.5)
        wrong = rng.random() < WRONG[instruction]
        worked = _sum(prompt, in_steps, wrong, rng) if sums else _fact(prompt, in_steps, wrong, rng)
        shown.append(Example(f"{instruction}{prompt.text}", worked))
    return Examples(shown)


def start() -> WarmStart:
    """The model that all arms start from, of about 0.35 million weights."""
    return WarmStart(
        demonstrations(40_000, 0),
        SupervisedSettings(steps=2400, batch_size=32, learning_rate=3e-3, warmup_steps=100),
        width=96,
        layers=3,
        heads=4,
        context=64,
    )


def reader() -> WarmStart:
    """What the judge reads with: another, smaller decoder that was shown demonstrations of the same kind."""
    return WarmStart(
        demonstrations(40_000, 1),
        SupervisedSettings(steps=800, batch_size=32, learning_rate=3e-3, warmup_steps=100),
        seed=1,
        width=64,
        layers=2,
        heads=4,
        context=64,
    )


def tools() -> dict[str, Tool]:
    """A calculator, and the table of facts; neither has been told what is asked."""
    return {"calculator": calculator(), "facts": lookup(facts())}


# ---- the judge ---------------------------------------------------------------------------------------


@dataclass
class WeighingJudge:
    """Points from 0 to 10: the weighted mean of what is known of an answer, each from 0 to 1.

    `looks`: what a classifier of the reader's states takes its chance of being right for. A tool that says
    nothing is left out of the mean. The rubric gives the weights of `FEATURES`.
    """

    reader: LanguagePolicy
    classifier: nn.Linear
    centre: Tensor
    spread: Tensor

    def __call__(
        self, prompt: Prompt, candidates: Sequence[str], knowledge: Knowledge, rubric: Mapping[str, float]
    ) -> list[float]:
        """The points of each candidate."""
        looks = self.looks([str(prompt.text)] * len(candidates), candidates)
        points = []
        for text, looking in zip(candidates, looks, strict=True):
            seen = {"looks": looking, "form": float(_FORM.fullmatch(text) is not None)}
            seen["length"] = min(1.0, len(text) / LIMIT)
            for name in ("calculator", "facts"):
                if knowledge.get(name) not in (None, "", NO_KNOWLEDGE):
                    seen[name] = float(read(text) == knowledge[name])
            whole = sum(rubric[name] for name in seen)
            points.append(10 * sum(rubric[name] * value for name, value in seen.items()) / max(whole, 1e-9))
        return points

    @torch.no_grad()
    def looks(self, asked_: Sequence[str], answers: Sequence[str]) -> list[float]:
        """How likely each answer looks to be right."""
        states = (reader_states(self.reader, asked_, answers) - self.centre) / self.spread
        return self.classifier(states)[:, 0].sigmoid().tolist()


def judge(folder: Path) -> Generator[Stage, None, WeighingJudge]:
    """The judge, its classifier fitted to `MARKED` answers of the start, half to each task."""
    policy = yield from start().make(folder)
    reads = yield from reader().make(folder)
    prompts = mixed(MARKED, 5)
    found = answer(policy, behind(PLAIN, prompts), right, sampling=SAMPLING, seed=5)
    texts, marks = [one[0] for one in found.texts], torch.tensor(found.score[:, 0]).float()
    with torch.no_grad():
        states = reader_states(reads, [str(one.text) for one in prompts], texts)
    centre, spread = states.mean(0), states.std(0) + 1e-3
    classifier = nn.Linear(states.shape[1], 1)
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        logit = classifier((states - centre) / spread)[:, 0]
        F.binary_cross_entropy_with_logits(logit, marks).backward()
        optimizer.step()
    return WeighingJudge(reads, classifier.requires_grad_(False), centre, spread)


def reader_states(policy: LanguagePolicy, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
    """What the reader makes of each answer: its state at the end, [row, width]."""
    rows = [
        (policy.encode(PLAIN + prompt), [*policy.encode(text), policy.end_tokens[0]])
        for prompt, text in zip(prompts, answers, strict=True)
    ]
    shape = (len(rows), max(len(prompt) + len(text) for prompt, text in rows))
    token = torch.full(shape, policy.tokenizer.pad_token_id)
    attended, mask = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, (prompt, text) in enumerate(rows):
        end = len(prompt) + len(text)
        token[row, :end] = torch.tensor([*prompt, *text])
        attended[row, :end], mask[row, len(prompt) : end] = True, True
    return policy.hidden_at_end(token, attended, mask=mask)


# ---- demonstrations ----------------------------------------------------------------------------------


def _sum(prompt: Prompt, in_steps: bool, wrong: bool, rng: Any) -> str:
    first, *rest = (int(term) for term in re.findall(r"[+-]?\d+", str(prompt.text)))
    slip = int(rng.integers(len(rest))) if wrong else -1
    total, steps = first, []
    for place, term in enumerate(rest):
        now = total + term + (int(rng.choice([-2, -1, 1, 2])) if place == slip else 0)
        steps.append(f"{total}{term:+d}={now};")
        total = now
    return ("".join(steps) if in_steps else "") + f"{MARKER}{total}"


def _fact(prompt: Prompt, in_steps: bool, wrong: bool, rng: Any) -> str:
    word = str(prompt.answer)
    if wrong:
        word = str(rng.choice([other for other in _WORDS if other != word]))
    return (f"{str(prompt.text)[:-1]}:{word};" if in_steps else "") + f"{MARKER}{word}"
