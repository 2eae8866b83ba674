"""From the answers to a prompt to pairs: tools are asked, a judge scores, and two are set beside each other.

    texts -> candidates that differ -> what tools say -> scores -> pairs, each with a reward and a critique

This is a prompt played once, under given instructions. `synthesis.preferences` plays prompts again and again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.pairing import all_margin, best_worst
from policysmith.experience.prompts import Prompt
from policysmith.synthesis.game_settings import GameSettings
from policysmith.synthesis.players import Instructions, JudgedPair, Players, assessed, by_scores, named
from policysmith.synthesis.tools import ask

SKIPPED, UNJUDGED, TIED, TOOLLESS = "skipped", "unjudged", "tied", "toolless"
"""Why a prompt gave no pair: its candidates did not differ, could not be judged, or were judged alike; and
what is counted besides, that no tool worked for it."""


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


class PairMaker:
    """Makes pairs of what was written for a prompt.

    Calls of tools, failures and prompts without a tool that worked are added to `counts`; `failure` says what
    the tools said of the last of these prompts.
    """

    def __init__(self, players: Players, settings: GameSettings, counts: Counter[str]) -> None:
        self._players, self._settings, self._counts = players, settings, counts
        self.failure = ""
        self._reward = players.reward or by_scores(
            margin=settings.margin, scale=settings.scale, floor=settings.floor, verify=players.verify
        )

    def outcome(
        self,
        prompt: Prompt,
        texts: Sequence[str],
        instructions: Instructions,
        rng: torch.Generator,
        *,
        counted: bool = False,
    ) -> Outcome:
        """What becomes of the `texts` that were written for a prompt.

        `counted`: that no tool worked for it is counted, as it is not of prompts that are played again.
        The judge's order is drawn from `rng`. Raises `SettingError` for a tool that is chosen and not there,
        `DataError` naming the prompt for scores or rewards that are none, and where its right answer is asked
        for and missing.
        """
        candidates = self._candidates(prompt, texts)
        labelled = self._settings.positive == "label"
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

    def _candidates(self, prompt: Prompt, texts: Sequence[str]) -> list[str]:
        """The texts that may be learnt from, each once, in the order in which they were written."""
        form = self._players.well_formed
        label = self._label(prompt) if self._settings.positive == "label" else None
        return [
            text
            for text in dict.fromkeys(texts)
            if text.strip() and text != label and (form is None or form(text, prompt) >= 1)
        ]

    def _asked(self, prompt: Prompt, candidates: list[str], counted: bool) -> dict[str, str]:
        """What the tools say, those that are not asked saying nothing."""
        tools = self._players.tools
        names = list(tools) if self._players.choose is None else self._players.choose(prompt, list(tools))
        if unknown := sorted(set(names) - set(tools)):
            raise SettingError(f"tools {unknown} were chosen", expected=f"among {sorted(tools)}")
        asked = {name: tools[name] for name in tools if name in names}
        said, failed = ask(asked, prompt, candidates, seconds=self._settings.tool_seconds)
        self._counts["tool_calls"] += len(asked)
        self._counts["tool_failures"] += len(failed)
        if counted and asked and len(failed) == len(asked):
            self._counts[TOOLLESS] += 1
            self.failure = f"{named(prompt)}: " + "; ".join(f"{name}: {why}" for name, why in failed.items())
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
        for places in (order, order[::-1])[: self._settings.orders]:
            shown = [candidates[place] for place in places]
            scores, said = assessed(self._players.judge, prompt, shown, knowledge, instructions.judge)
            for place, score, reason in zip(places, scores, said, strict=True):
                before = sums[place]
                sums[place] = None if score is None or before is None else before + score
                reasons[place] = reasons[place] or reason
        return [None if one is None else one / self._settings.orders for one in sums], reasons

    def _picked(self, values: Tensor) -> list[tuple[int, int]]:
        if self._settings.pair == "best_worst":
            return best_worst(values)
        return all_margin(values, margin=self._settings.margin)

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
