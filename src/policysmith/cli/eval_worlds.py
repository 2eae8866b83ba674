"""`eval` of a language policy in a text world: it plays fresh episodes, before and after training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from policysmith.cli import look
from policysmith.cli.conversations import CONVERSATIONS, conversations_table
from policysmith.cli.eval_answers import plain_interval, policies_at, run_config
from policysmith.cli.pages import run_page
from policysmith.cli.worlds import WorldInputs
from policysmith.common.errors import SettingError
from policysmith.common.rng import derive
from policysmith.evaluation.conversations import Conversations, converse
from policysmith.evaluation.statistics import Interval, mean_interval, paired_difference, success_interval
from policysmith.policies.language.sampling import Sampling
from policysmith.training.runs import RunDirectory

SHOWN = 4
"""Conversations that are kept of each policy."""


@dataclass(frozen=True)
class EvalWorld(WorldInputs):
    """Let a language policy talk to a world, and measure how fresh episodes go."""

    path: tyro.conf.Positional[str] = ""
    """run directory, a folder with a model, or one of `policysmith models list`"""
    episodes: int = 200
    """how many episodes, of seeds that no run trains on"""
    limit: int = 0
    """most tokens of one answer; by default what the run was trained with, else 256"""
    temperature: float = -1.0
    """0 takes the likeliest token; by default what the run was trained with, else 1"""
    before: bool = True
    """of a run, measure the model it began with too"""
    seed: int = 0
    """seed of the episodes and of the draws, the same for every policy that is measured"""
    json: bool = False
    """print JSON and nothing else"""

    def run(self) -> None:
        """Play, count, print, and keep the numbers with the run, where the path is one's."""
        if self.episodes < 1:
            raise SettingError(f"{self.episodes} episodes", expected="at least 1")
        config = run_config(self.path)
        asked = self._asked(config.get("inputs", {}))
        settings = config.get("settings", {})
        prompts = asked.world_prompts(self.episodes, derive(self.seed, "evaluation"))
        sampling = Sampling(
            limit=self.limit or settings.get("answer_limit", 256),
            temperature=self.temperature if self.temperature >= 0 else settings.get("temperature", 1.0),
            top_p=settings.get("top_p", 1.0),
            stop=tuple(settings.get("stop", ())),
        )
        system = settings.get("system", "")
        found = {}
        for name, load in policies_at(self.path, config, before=self.before).items():
            look.note(f"{name}: {len(prompts)} episodes")
            found[name] = converse(load(), prompts, sampling=sampling, seed=self.seed, system=system)
        measured = {
            "world": " ".join([asked.world, *asked.world_option]),
            "episodes": self.episodes,
            "seed": self.seed,
            "fingerprint": prompts.fingerprint,
            "temperature": sampling.temperature,
            "limit": sampling.limit,
            "system": system,
            "policies": {name: _numbers(one) for name, one in found.items()},
            "differences": _differences(found),
            "conversations": {name: _shown(one) for name, one in found.items()},
        }
        if config:
            CONVERSATIONS.add(Path(self.path), measured)
            run_page(RunDirectory.open(self.path))
        if self.json:
            look.print_json(measured)
            return
        columns, rows = conversations_table(measured)
        look.table(columns, rows, title=f"{self.episodes} fresh episodes of {measured['world']}")
        for name, difference in measured["differences"].items():
            look.results.print(f"difference in {name}: {Interval(**difference)}, paired over the episodes")

    def _asked(self, kept: Mapping[str, Any]) -> WorldInputs:
        """The world that is asked for, or the run's; limits as given, else the run's."""
        if self.world and (self.world != kept.get("world") or self.world_option):
            return self
        own = {
            name: getattr(self, name) or kept.get(name)
            for name in ("world", "world_option", "turn_limit", "token_limit")
        }
        return replace(self, **own | {"world_option": tuple(own["world_option"] or ())})


def _numbers(found: Conversations) -> dict[str, Any]:
    """Means over the episodes with their intervals; of success Wilson's."""
    named = {"reward": found.reward, "turns": found.turns, "tokens": found.tokens, **found.told}
    numbers = {name: plain_interval(mean_interval(values)) for name, values in named.items()}
    finished = {"finished": plain_interval(success_interval(found.finished[None].astype(float)))}
    if found.success is None:
        return numbers | finished
    success = plain_interval(success_interval(found.success[None].astype(float)))
    return {"success": success} | numbers | finished


def _differences(found: Mapping[str, Conversations]) -> dict[str, dict[str, float]]:
    """Trained minus before, in reward and in success, paired over the episodes; empty for one policy."""
    if len(found) < 2:
        return {}
    after, before = found["trained"], found["before"]
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {"reward": (after.reward, before.reward)}
    if after.success is not None and before.success is not None:
        pairs["success"] = after.success.astype(float), before.success.astype(float)
    return {
        name: plain_interval(paired_difference(one[None], other[None]))
        for name, (one, other) in pairs.items()
    }


def _shown(found: Conversations) -> list[dict[str, Any]]:
    """The first conversations as plain data; the same episodes of every policy."""
    return [
        {
            "episode": episode.seed,
            "conversation": [list(one) for one in episode.said],
            "reward": float(reward),
            "ended": episode.ended,
        }
        for episode, reward in zip(found.episodes[:SHOWN], found.reward, strict=False)
    ]
