"""Preference pairs without people: a game of a target, a judge with tools, and a reward of the pair.

For each prompt x, under the instruction p of the target and the rubric r of the judge:

    y_1..y_C ~ target(x; p);   q_i = tool_i(x, y);   s = judge(x, y, q; r);   pair = best over worst
    R(pair) >= threshold: the pair is kept;   else its critique proposes another (p, r), and x is played again

A proposal is kept if the mean R over a few probe prompts, written and shuffled with the same random numbers
before and after, does not fall. Only instructions are improved; no weight is touched. `synthesis.players`
says what the functions are.

Source: Anyprefer (2504.19276). The plain reward, the probe and what is refused are of this library.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import generator
from policysmith.experience.pairing import all_margin, best_worst
from policysmith.experience.preferences import Preference
from policysmith.experience.prompts import Prompt
from policysmith.synthesis.players import (
    Instructions,
    JudgedPair,
    Players,
    Propose,
    assessed,
    by_scores,
    named,
)
from policysmith.synthesis.tools import ask
from policysmith.training.learners.language_settings import LanguageSettings

SKIPPED_AT_MOST = 0.5
"""Of all prompts, so large a share may give fewer than two candidates that differ."""

FAILED_AT_MOST = 0.2
"""Of all prompts, so large a share may meet tools that fail, all of them."""

EARLY = 20
"""So many prompts are played before a share is held to be too large."""

PATIENCE = 50
"""So many prompts are played before it is an error that no pair was good enough."""


@dataclass(frozen=True)
class GameSettings(LanguageSettings):
    """How the game is played: `group_size` candidates for a prompt, drawn as `LanguageSettings` says.

    - `threshold`: pairs with a reward of so much are kept. `max_feedback`: revisions proposed for a prompt.
    - `margin`, `scale`, `floor`: of the plain reward of a pair (`players.by_scores`), in points of 0 to 10.
    - `pair`: the best over the worst, or `all_margin`: every two that are `margin` points apart.
    - `orders`: 1: the judge sees candidates in a random order; 2: also in its reverse, and the mean counts.
    - `probe`: so many prompts decide whether a revision is kept.
    - `at_a_time`: prompts that are played together, and share their revisions.
    - `reset_prompts`: each prompt (those that are played together) starts from the first instructions.
    - `finished_only`: answers that the limit cut off are no candidates.
    - `tool_seconds`: a tool that takes longer has failed; 0: tools are waited for.
    - `positive`: `label` takes the prompt's right answer for the better one, and the worst candidate. Never
      compare that with the others: it is told the truth.
    """

    group_size: int = 5
    threshold: float = 0.5
    max_feedback: int = 3
    margin: float = 2.0
    scale: float = 1.0
    floor: float = 6.0
    pair: Literal["best_worst", "all_margin"] = "best_worst"
    orders: int = 1
    probe: int = 8
    at_a_time: int = 1
    reset_prompts: bool = False
    finished_only: bool = True
    tool_seconds: float = 0.0
    positive: Literal["judge", "label"] = "judge"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2 and self.positive == "judge":
            raise SettingError(f"group_size is {self.group_size}", expected="2 candidates or more")
        if not 0 <= self.threshold <= 1:
            raise SettingError(f"threshold is {self.threshold}", expected="from 0 to 1, as rewards of pairs")
        for name in ("max_feedback", "margin", "tool_seconds"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more")
        for name in ("probe", "at_a_time", "scale"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0")
        if self.orders not in (1, 2):
            raise SettingError(f"orders is {self.orders}", expected="1, or 2 for the mean of both")
        for name, known in (("pair", ("best_worst", "all_margin")), ("positive", ("judge", "label"))):
            if getattr(self, name) not in known:
                raise SettingError(f"{name} is '{getattr(self, name)}'", expected=" or ".join(known))


@dataclass(frozen=True)
class Outcome:
    """What playing a prompt once came to: pairs with rewards and critiques, none where `why` says so."""

    prompt: Prompt
    candidates: list[str]
    why: str = ""
    knowledge: dict[str, str] = field(default_factory=dict)
    scores: list[float | None] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    pairs: list[tuple[JudgedPair, float, str]] = field(default_factory=list)

    @property
    def reward(self) -> float:
        """The mean reward of its pairs, 0 without."""
        return sum(reward for _, reward, _ in self.pairs) / len(self.pairs) if self.pairs else 0.0


class PreferenceGame:
    """The game, what it has come to, and its random streams; its state goes on in the middle.

    - `propose`: the target. `probe`: the prompts that revisions are tried on.
    - `instructions` are those of now, `counts` what happened (prompts, pairs, calls of tools, ...).

    `play` raises `DataError` where the target says the same thing again and again, all tools fail on more
    than a fifth of the prompts, or no pair of the first 50 prompts was good enough.
    """

    def __init__(
        self,
        propose: Propose,
        players: Players,
        settings: GameSettings,
        *,
        probe: Sequence[Prompt],
        seed: int,
    ) -> None:
        self.propose, self.players, self.settings = propose, players, settings
        self.instructions = self._first = Instructions(settings.system, players.rubric)
        self.counts: Counter[str] = Counter()
        self.pairs: list[Preference] = []
        self._probe, self._seed = list(probe)[: settings.probe], seed
        self._rng = {name: generator(seed, name) for name in ("candidates", "order", "feedback")}
        self._rewards: list[float] = []
        self._failure = ""
        self._known: dict[str, float] = {}
        self._reward = players.reward or by_scores(
            margin=settings.margin, scale=settings.scale, floor=settings.floor, verify=players.verify
        )

    def play(self, prompts: Sequence[Prompt]) -> list[Preference]:
        """Play these prompts together; the pairs that were kept, which are also put with the others."""
        if self.settings.reset_prompts:
            self.instructions = self._first
        self.counts["prompts"] += len(prompts)
        found: list[Preference] = []
        open_prompts = list(prompts)
        for turn in range(self.settings.max_feedback + 1):
            critiques = []
            outcomes = self._outcomes(open_prompts, self.instructions, self._rng, counted=turn == 0)
            open_prompts = []
            for outcome in outcomes:
                kept = [one for one in outcome.pairs if one[1] >= self.settings.threshold]
                found += [self._record(outcome, *one, turn=turn) for one in kept]
                if turn == 0 and outcome.pairs:
                    self._rewards.append(outcome.reward)
                if outcome.pairs and not kept:
                    open_prompts.append(outcome.prompt)
                    critiques.append(outcome.pairs[0][2])
            if turn == self.settings.max_feedback or not open_prompts or not self._revised(critiques):
                break
        self.counts["pairs"] += len(found)
        self.counts["rejected"] += len(open_prompts)
        self.pairs += found
        self._check()
        return found

    def begin_round(self) -> None:
        """The target has learnt: what the probe gave before says nothing any more."""
        self._known.clear()

    def metrics(self) -> dict[str, float]:
        """What has happened so far: counts, the share of prompts that gave a pair, the mean first reward."""
        prompts = max(1, self.counts["prompts"])
        named_counts = {name: float(self.counts[name]) for name in COUNTED}
        rewards = self._rewards
        return named_counts | {
            "kept": self.counts["pairs"] / prompts,
            "reward": sum(rewards) / len(rewards) if rewards else 0.0,
        }

    # ---- one prompt ----------------------------------------------------------------------------------

    def _outcomes(
        self,
        prompts: Sequence[Prompt],
        instructions: Instructions,
        rng: Mapping[str, torch.Generator],
        *,
        counted: bool = False,
    ) -> list[Outcome]:
        written = self.propose(prompts, instructions.target, rng["candidates"])
        outcomes = []
        for prompt, texts in zip(prompts, written, strict=True):
            outcome = self._judged(
                prompt, self._candidates(prompt, texts), instructions, rng["order"], counted
            )
            if counted and outcome.why:
                self.counts[outcome.why] += 1
            outcomes.append(outcome)
        return outcomes

    def _candidates(self, prompt: Prompt, texts: Sequence[str]) -> list[str]:
        """The texts that may be learnt from, each once, in the order in which they were written."""
        form = self.players.well_formed
        label = self._label(prompt) if self.settings.positive == "label" else None
        return [
            text
            for text in dict.fromkeys(texts)
            if text.strip() and text != label and (form is None or form(text, prompt) >= 1)
        ]

    def _judged(
        self,
        prompt: Prompt,
        candidates: list[str],
        instructions: Instructions,
        rng: torch.Generator,
        counted: bool,
    ) -> Outcome:
        labelled = self.settings.positive == "label"
        if len(candidates) < (1 if labelled else 2):
            return Outcome(prompt, candidates, SKIPPED)
        knowledge = self._asked(prompt, candidates, counted)
        scores, reasons = self._scored(prompt, candidates, knowledge, instructions, rng)
        places = [place for place, score in enumerate(scores) if score is not None]
        if len(places) < (1 if labelled else 2):
            return Outcome(prompt, candidates, UNJUDGED, knowledge, scores, reasons)
        values = torch.tensor([scores[place] for place in places], dtype=torch.float64)
        if labelled:
            worst = places[int(values.argmin())]
            judged = [
                self._with_label(prompt, candidates[worst], float(values.min()), reasons[worst], knowledge)
            ]
        else:
            judged = [
                JudgedPair(
                    prompt,
                    (candidates[places[i]], candidates[places[j]]),
                    (float(values[i]), float(values[j])),
                    (reasons[places[i]], reasons[places[j]]),
                    knowledge,
                )
                for i, j in self._picked(values)
            ]
        pairs = [(pair, *self._graded(pair)) for pair in judged]
        return Outcome(prompt, candidates, "" if pairs else TIED, knowledge, scores, reasons, pairs)

    def _asked(self, prompt: Prompt, candidates: list[str], counted: bool) -> dict[str, str]:
        """What the tools say, those that are not asked saying nothing."""
        tools = self.players.tools
        names = list(tools) if self.players.choose is None else self.players.choose(prompt, list(tools))
        if unknown := sorted(set(names) - set(tools)):
            raise SettingError(f"tools {unknown} were chosen", expected=f"among {sorted(tools)}")
        asked = {name: tools[name] for name in tools if name in names}
        said, failed = ask(asked, prompt, candidates, seconds=self.settings.tool_seconds)
        self.counts["tool_calls"] += len(asked)
        self.counts["tool_failures"] += len(failed)
        if counted and asked and len(failed) == len(asked):
            self.counts[TOOLLESS] += 1
            self._failure = f"{named(prompt)}: " + "; ".join(f"{name}: {why}" for name, why in failed.items())
        return {name: said.get(name, "") for name in tools}

    def _scored(
        self,
        prompt: Prompt,
        candidates: list[str],
        knowledge: dict[str, str],
        instructions: Instructions,
        rng: torch.Generator,
    ) -> tuple[list[float | None], list[str]]:
        """Scores and reasons by candidate, of a judge who sees them in random order."""
        order = torch.randperm(len(candidates), generator=rng).tolist()
        sums: list[float | None] = [0.0] * len(candidates)
        reasons = [""] * len(candidates)
        for places in (order, order[::-1])[: self.settings.orders]:
            shown = [candidates[place] for place in places]
            scores, said = assessed(self.players.judge, prompt, shown, knowledge, instructions.judge)
            for place, score, reason in zip(places, scores, said, strict=True):
                before = sums[place]
                sums[place] = None if score is None or before is None else before + score
                reasons[place] = reasons[place] or reason
        return [None if one is None else one / self.settings.orders for one in sums], reasons

    def _picked(self, values: Tensor) -> list[tuple[int, int]]:
        if self.settings.pair == "best_worst":
            return best_worst(values)
        return all_margin(values, margin=self.settings.margin)

    def _graded(self, pair: JudgedPair) -> tuple[float, str]:
        reward, critique = self._reward(pair)
        if not 0 <= reward <= 1:
            raise DataError(f"the reward of a pair is {reward}", where=named(pair.prompt), expected="0 to 1")
        return float(reward), critique

    def _label(self, prompt: Prompt) -> str:
        if prompt.answer is None or not str(prompt.answer).strip():
            raise DataError(
                "a prompt has no right answer to be the better one",
                where=named(prompt),
                cure="give an answer column, or let the judge choose (positive 'judge')",
            )
        return str(prompt.answer)

    def _with_label(
        self, prompt: Prompt, worse: str, score: float, reason: str, knowledge: dict[str, str]
    ) -> JudgedPair:
        return JudgedPair(prompt, (self._label(prompt), worse), (10.0, score), ("given", reason), knowledge)

    def _record(
        self, outcome: Outcome, pair: JudgedPair, reward: float, critique: str, *, turn: int
    ) -> Preference:
        """The pair with where it is from, as plain data."""
        data = {
            "scores": pair.scores,
            "reward": reward,
            "critique": critique,
            "reasons": list(pair.reasons),
            "candidates": list(outcome.candidates),
            "candidate_scores": list(outcome.scores),
            "candidate_reasons": list(outcome.reasons),
            "tools": dict(outcome.knowledge),
            "instructions": self.instructions.plain(),
            "revisions": turn,
            "told_the_truth": self.players.verify is not None or self.settings.positive == "label",
        }
        return Preference(Prompt(outcome.prompt.text), pair.answers, data=data)

    # ---- feedback ------------------------------------------------------------------------------------

    def _revised(self, critiques: list[str]) -> bool:
        """Whether one of the revisions that are still proposed is kept."""
        if self.players.revise is None:
            return False
        proposed = self.players.revise(self.instructions, critiques, self._rng["feedback"])
        if proposed == self.instructions:
            return False
        self.counts["proposed"] += 1
        if self._value(proposed) < self._value(self.instructions):
            return False
        self.instructions = proposed
        self.counts["revised"] += 1
        return True

    def _value(self, instructions: Instructions) -> float:
        """The mean reward over the probe, the same random numbers for all instructions."""
        key = json.dumps(instructions.plain(), sort_keys=True, default=str)
        if key not in self._known:
            rng = {name: generator(self._seed, "probe", name) for name in ("candidates", "order")}
            outcomes = self._outcomes(self._probe, instructions, rng)
            self._known[key] = sum(one.reward for one in outcomes) / len(outcomes)
            self.counts["probed"] += len(outcomes)
        return self._known[key]

    # ---- what is refused, and saving -----------------------------------------------------------------

    def _check(self) -> None:
        counts = self.counts
        prompts = counts["prompts"]
        if prompts < EARLY:
            return
        self.check_shares()
        if prompts >= PATIENCE and not counts["pairs"] and self._rewards:
            raise DataError(
                f"no pair of the first {prompts} prompts has a reward of {self.settings.threshold:g}",
                where=f"rewards: {histogram(self._rewards)}",
                cure="lower threshold, margin or floor, or give the judge tools or feedback",
            )

    def check_shares(self) -> None:
        """Raise `DataError` where too many prompts gave one answer only, or met no tool that worked."""
        counts, prompts = self.counts, self.counts["prompts"]
        if counts[SKIPPED] > SKIPPED_AT_MOST * prompts:
            raise DataError(
                "the target is (nearly) deterministic",
                where=f"{counts[SKIPPED]} of {prompts} prompts had fewer than two answers that differ",
                cure="raise the temperature (or answer_limit, where answers are cut off)",
            )
        if counts[TOOLLESS] > FAILED_AT_MOST * prompts:
            raise DataError(
                f"all tools failed on {counts[TOOLLESS]} of {prompts} prompts",
                where=self._failure,
                expected=f"at most {FAILED_AT_MOST:.0%}",
                cure="mend the tools, or raise tool_seconds",
            )

    def state_dict(self) -> dict[str, Any]:
        """Pairs, instructions, counts and random streams."""
        plain = {
            "instructions": self.instructions.plain(),
            "counts": dict(self.counts),
            "rewards": self._rewards,
            "known": self._known,
            "pairs": [[one.prompt.text, one.answers, one.data] for one in self.pairs],
        }
        text = json.dumps(plain).encode()
        # As numbers: a header of a checkpoint is too small for the pairs of a long run.
        return {
            "game": torch.frombuffer(bytearray(text), dtype=torch.uint8),
            "generators": {name: rng.get_state() for name, rng in self._rng.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        plain = json.loads(bytes(state["game"].tolist()))
        self.instructions = Instructions(**plain["instructions"])
        self.counts = Counter(plain["counts"])
        self._rewards, self._known = plain["rewards"], plain["known"]
        self.pairs = [_preference(*one) for one in plain["pairs"]]
        for name, rng in self._rng.items():
            rng.set_state(state["generators"][name])


SKIPPED, UNJUDGED, TIED, TOOLLESS = "skipped", "unjudged", "tied", "toolless"
COUNTED = (
    "prompts", "pairs", SKIPPED, UNJUDGED, TIED, "rejected", TOOLLESS, "tool_calls", "tool_failures",
    "proposed", "revised", "probed",
)  # fmt: skip
"""What is counted: prompts played, pairs kept; prompts whose candidates did not differ, could not be judged,
were judged alike, gave no pair good enough, or met no tool that worked; calls of tools and those that failed;
revisions proposed and kept, and prompts played for the probe."""


def histogram(rewards: Sequence[float], *, bins: int = 5) -> str:
    """How many rewards lie in each part of [0, 1], in words."""
    counts = [0] * bins
    for reward in rewards:
        counts[min(bins - 1, int(reward * bins))] += 1
    return ", ".join(
        f"{place / bins:g} to {(place + 1) / bins:g}: {count}" for place, count in enumerate(counts)
    )


def _preference(text: Any, answers: Sequence[str], data: dict[str, Any]) -> Preference:
    prompt = Prompt(text if isinstance(text, str) else tuple(text))
    return Preference(prompt, tuple(answers), data=data | {"scores": tuple(data["scores"])})
