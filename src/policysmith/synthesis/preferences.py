"""Preference pairs without people: a game of a target, a judge with tools, and a reward of the pair.

For each prompt x, under the instruction p of the target and the rubric r of the judge:

    y_1..y_C ~ target(x; p);   q_i = tool_i(x, y);   s = judge(x, y, q; r);   pair = best over worst
    R(pair) >= threshold: the pair is kept;   else its critique proposes another (p, r), and x is played again

A proposal is kept if the mean R over a few probe prompts, written and shuffled with the same random numbers
before and after, does not fall. Only instructions are improved; no weight is touched. `synthesis.players`
says what the functions are, `synthesis.pair_making` how pairs are made of what was written.

Source: Anyprefer (2504.19276). The plain reward, the probe and what is refused are of this library.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from policysmith.common.errors import DataError
from policysmith.common.rng import generator
from policysmith.experience.preferences import Preference
from policysmith.experience.prompts import Prompt
from policysmith.synthesis.game_settings import GameSettings
from policysmith.synthesis.pair_making import SKIPPED, TIED, TOOLLESS, UNJUDGED, Outcome, PairMaker
from policysmith.synthesis.players import Instructions, JudgedPair, Players, Propose

SKIPPED_AT_MOST = 0.5
"""Of all prompts, so large a share may give fewer than two candidates that differ."""

FAILED_AT_MOST = 0.2
"""Of all prompts, so large a share may meet tools that fail, all of them."""

EARLY = 20
"""So many prompts are played before a share is held to be too large."""

PATIENCE = 50
"""So many prompts are played before it is an error that no pair was good enough."""

COUNTED = (
    "prompts", "pairs", SKIPPED, UNJUDGED, TIED, "rejected", TOOLLESS, "tool_calls", "tool_failures",
    "proposed", "revised", "probed",
)  # fmt: skip
"""What is counted: prompts played, pairs kept; prompts whose candidates did not differ, could not be judged,
were judged alike, gave no pair good enough, or met no tool that worked; calls of tools and those that failed;
revisions proposed and kept, and prompts played for the probe."""


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
        self._known: dict[str, float] = {}
        self._maker = PairMaker(players, settings, self.counts)

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
            outcome = self._maker.outcome(prompt, texts, instructions, rng["order"], counted=counted)
            if counted and outcome.why:
                self.counts[outcome.why] += 1
            outcomes.append(outcome)
        return outcomes

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
                where=self._maker.failure,
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
        self.counts.clear()  # and not another counter: the maker of pairs counts in this one
        self.counts.update(plain["counts"])
        self._rewards, self._known = plain["rewards"], plain["known"]
        self.pairs = [_preference(*one) for one in plain["pairs"]]
        for name, rng in self._rng.items():
            rng.set_state(state["generators"][name])


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
