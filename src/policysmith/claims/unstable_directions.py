"""Unstable directions at small scale: where DQN is brittle, how shifts move that, what robust training does.

Two of MinAtar's games stand in for the arcade. DQN (double, duelling) and the same with SA-DQN's regulariser
are trained for as many frames, and every policy is diagnosed on two independent sets of greedy episodes.
Three questions: is the direction more than noise (moved along it, are three times as many decisions changed
as at random); does every shift and attack lower the quotient below that of an independent run; and is the
robust policy's instability more uneven over time, and elsewhere than another seed of DQN would put it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from policysmith.common.config import config_to_json
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.directions import greedy_episodes, scores_of
from policysmith.evaluation.drawing import Style
from policysmith.evaluation.plots import bars_with_intervals
from policysmith.evaluation.statistics import Interval, mean_interval
from policysmith.objectives.directions import overlap
from policysmith.systems import dqn, sa_dqn, unstable_directions
from policysmith.worlds import registry

GAMES = ("minatar/breakout", "minatar/space-invaders")
PLAIN, ROBUST = "DQN", "SA-DQN"
FRAMES = 25_000
LIMIT = 100
"""Steps of an episode that is diagnosed; of those that are played for their return, ten times as many."""
STEP = 0.25
"""Length of the step by which a direction is compared with random ones: a quarter of one cell's whole range.

Twice and four times as long steps are recorded too.
"""
TIMES = 3.0
"""So many times the decisions that random directions change have to be changed."""
RETURN, CHANGED, RANDOM = "return", "decisions changed along the direction", "changed at random"
BEYOND = f"changed along less {TIMES:g} times at random"
QUOTIENT = "quotient, "
INDEPENDENT, HIGHEST, DROP = f"{QUOTIENT}independent set", "highest quotient of moved states", "least drop"
VARIATION, CONCENTRATED = "variation over time", "share in a twentieth of the cells"
OVERLAP = "overlap with DQN's direction"
"""Of the same seed for SA-DQN, of the next seed for DQN."""
ASKED = "what is asked for"


def arms() -> dict[str, tuple[ModuleType, Any]]:
    """System and settings of each arm; the robust one differs by its regulariser alone."""
    plain = replace(dqn.PRESETS["minatar"], environment_steps=FRAMES)
    robust = replace(sa_dqn.PRESETS["minatar"], environment_steps=FRAMES)
    return {PLAIN: (dqn, plain), ROBUST: (sa_dqn, robust)}


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 10, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished training runs are taken from `folder`.

    `evaluate` episodes make a set of states. There are no `ablations`: both readings of the quotient are
    always recorded.
    """
    began = time.perf_counter()
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for game in GAMES:
        for name, (module, config) in arms().items():
            for seed in seeds:
                make = partial(registry.make, game)
                run = CachedRun(module, (make,), game, config, seed, folder)
                label = f"{name} in {game}, seed {seed}"
                for now in run.train(checkpoint_every=config.steps, log_every=100):
                    yield Stage(f"train {label}", now.step, now.total, now.metrics.get("loss"))
                one = yield from diagnosed(run.policy(), game, seed=seed, episodes=evaluate)
                found.setdefault((game, name), []).append(one)
    return judged(found, seeds, seconds=time.perf_counter() - began, episodes=evaluate)


def diagnosed(policy: Any, game: str, *, seed: int, episodes: int) -> Generator[Stage, None, dict[str, Any]]:
    """What the measure finds of a policy, and the return of its greedy episodes."""
    settings = unstable_directions.Config(
        game, episodes=episodes, limit=LIMIT, steps=(STEP, 2 * STEP, 4 * STEP), seed=seed
    )
    report = yield from unstable_directions.measure(policy, config=settings)
    make = partial(registry.make, game)
    played = greedy_episodes(scores_of(policy), make, episodes=episodes, seed=seed, limit=10 * LIMIT)
    return dict(report.data) | {RETURN: float(np.mean(played.returns))}


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """The quotients of DQN's direction on an independent set, as it was and moved."""
    summary = next(arm for arm in found.arms if arm.name == PLAIN).summary
    quotients = {
        name.removeprefix(QUOTIENT): one for name, one in summary.items() if name.startswith(QUOTIENT)
    }
    return "How well DQN's direction serves on other states", bars_with_intervals(
        quotients, "quotient", palette=dict.fromkeys(quotients, Style(0))
    )


# ---- what it comes to ----------------------------------------------------------------------------------

Found = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]
"""(game, arm) -> what was found, a seed each."""


def judged(found: Found, seeds: Sequence[int], *, seconds: float, episodes: int) -> claim.Claim:
    """The claim of diagnoses of both arms in both games, one per seed."""
    return claim.build_claim(
        "unstable-directions",
        paper_claim="a trained value policy has directions, found over a whole run, along which it is "
        "unstable; shifts and attacks move them; certified robust training moves them to other, fewer places "
        "and makes instability vary more over time",
        question="DQN and SA-DQN in two of MinAtar's games: a step along the direction changes more than "
        f"{TIMES:g} times the decisions that random steps do; every shift and attack has a quotient below an "
        "independent run's; SA-DQN's instability varies more over time, and its direction overlaps less with "
        "DQN's than two seeds of DQN do",
        arms=_arms(found, seeds),
        comparisons=_comparisons(found),
        seeds=seeds,
        settings={
            "games": list(GAMES),
            "environment_steps": FRAMES,
            "episodes_per_set": episodes,
            "limit": LIMIT,
            "step": STEP,
            "quotient": "the base's axis on the moved states; the paper's formula is not known",
        },
        seconds=round(seconds, 1),
        recipe_version=1,
    )


def measured(found: Found, game: str, name: str) -> list[dict[str, float]]:
    """The numbers of one arm in one game, a run each."""
    rows = []
    plain = [direction(one) for one in found[game, PLAIN]]
    for number, one in enumerate(found[game, name]):
        probe = next(probe for probe in one["probes"] if probe["size"] == STEP)
        highest = max(moved["quotient"] for moved in one["moved"])
        independent = one["independent"]["quotient"]
        row = {
            RETURN: one[RETURN],
            CHANGED: probe["along"],
            RANDOM: probe["random"],
            BEYOND: probe["along"] - TIMES * probe["random"],
            INDEPENDENT: independent,
            HIGHEST: highest,
            DROP: independent - highest,
            VARIATION: one["variation"],
            CONCENTRATED: one["concentration"],
            **{f"{QUOTIENT}{moved['name']}": moved["quotient"] for moved in one["moved"]},
        }
        other = number if name == ROBUST else (number + 1) % len(plain)
        if name == ROBUST or len(plain) > 1:
            row[OVERLAP] = overlap(direction(one), plain[other])
        rows.append(row)
    return rows


def direction(found: Mapping[str, Any]) -> torch.Tensor:
    """The direction of a diagnosis, in the observation's shape."""
    return torch.tensor(found["direction"], dtype=torch.double).view(*found["shape"])


def _over_games(found: Found, name: str, metric: str) -> list[float]:
    """Of every run of an arm, in one game after the other."""
    return [row[metric] for game in GAMES for row in measured(found, game, name) if metric in row]


def _comparisons(found: Found) -> list[claim.Comparison]:
    def said(
        name: str, metric: str, values: Sequence[float], direction: str, sides: tuple[str, str]
    ) -> claim.Comparison:
        return claim.Comparison(name, *sides, metric, mean_interval(values), 0.0, direction)  # type: ignore[arg-type]

    asked, both = (PLAIN, ASKED), (ROBUST, PLAIN)
    pairs = zip(_over_games(found, ROBUST, VARIATION), _over_games(found, PLAIN, VARIATION), strict=True)
    comparisons = [
        said(f"a step along DQN's direction changes {TIMES:g} times as much", BEYOND,
             _over_games(found, PLAIN, BEYOND), "higher", asked),
        said("every shift and attack lowers DQN's quotient", DROP,
             _over_games(found, PLAIN, DROP), "higher", asked),
        said("SA-DQN's instability varies more over time", VARIATION,
             [robust - plain for robust, plain in pairs], "higher", both),
    ]  # fmt: skip
    if others := _over_games(found, PLAIN, OVERLAP):
        pairs = zip(_over_games(found, ROBUST, OVERLAP), others, strict=True)
        comparisons.append(
            said("SA-DQN's direction is elsewhere than another seed's", OVERLAP,
                 [robust - other for robust, other in pairs], "lower", both)
        )  # fmt: skip
    return comparisons


def _arms(found: Found, seeds: Sequence[int]) -> list[claim.Arm]:
    """Each arm over both games, then in each game, and what is asked for."""
    settings = {name: config_to_json(config) for name, (_, config) in arms().items()}
    whole, single = [], []
    for name in (PLAIN, ROBUST):
        by_game = [measured(found, game, name) for game in GAMES]
        means = [
            {metric: float(np.mean([rows[i][metric] for rows in by_game])) for metric in by_game[0][i]}
            for i in range(len(seeds))
        ]
        whole.append(_arm(name, settings[name], means, seeds))
        single += [
            _arm(f"{name}, {game}", {"game": game}, rows, seeds)
            for game, rows in zip(GAMES, by_game, strict=True)
        ]
    nothing = Interval(0.0, 0.0, 0.0)
    return [*whole, *single, claim.Arm(ASKED, {}, [], {BEYOND: nothing, DROP: nothing})]


def _arm(name: str, settings: Any, rows: Sequence[dict[str, float]], seeds: Sequence[int]) -> claim.Arm:
    runs = [claim.Run(seed, row) for seed, row in zip(seeds, rows, strict=True)]
    return claim.Arm(name, settings, runs, claim.summarise(runs))
