"""FamO2O's claim at small scale: a balance for every state against one for all, on data uneven by state.

The data are of a driver in a maze with one turn that keeps to the way in one half of the cells, and takes
random actions most of the time in the other. IQL with one of three balances, FamO2O with the range they span,
and FamO2O with balances at random learn from the same data and then by acting, the same steps each. Their
returns (-1 for every step, until the goal) are measured after the data and along the experience.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from policysmith.claims.common import fine_tuning
from policysmith.claims.common.imitation import Task
from policysmith.claims.common.measured import measured_run
from policysmith.common.config import config_to_json
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.comparison import episode_seeds, training_seconds
from policysmith.evaluation.plots import learning_curves
from policysmith.evaluation.rollouts import roll_out
from policysmith.evaluation.statistics import Interval, mean_interval, paired_difference
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.policies.family import FamilyPolicy
from policysmith.systems import famo2o
from policysmith.training.learners.fine_tuning import FineTuningSettings
from policysmith.worlds import registry
from policysmith.worlds.uneven import UnevenDriver

MAZE = "point-maze-uneven"
DATA = Task(Demonstrations(MAZE, episodes=660, only_successful=False, limit=200), limit=200)
"""About 50,000 steps."""
BALANCES = (1.0, 3.0, 10.0)
OURS, RANDOM, MEAN = "FamO2O", "FamO2O, random balances", "IQL, mean of its balances"
MARKS = 2
"""The return is measured after the data and at so many times along the experience."""
WITHIN = 5.0
"""The return may be so many steps below that of the best single balance."""
DIFFERS = 0.45
"""A twentieth of the range: by so much the balances of the two halves have to differ."""


def arms(budget: famo2o.Config = famo2o.PRESETS["bench"]) -> dict[str, tuple[ModuleType, Any]]:
    """Name -> module and settings; what the single balances have in common with the family is the same."""
    shared = {field.name: getattr(budget, field.name) for field in fields(FineTuningSettings)}
    shared |= {
        name: getattr(budget, name) for name in ("hidden", "learning_rate", "rate", "expectile", "cap")
    }
    found: dict[str, tuple[ModuleType, Any]] = {
        _single(balance): (fine_tuning, fine_tuning.Config(**shared, beta=balance)) for balance in BALANCES
    }
    found[OURS] = (famo2o, budget)
    found[RANDOM] = (famo2o, replace(budget, random_balances=True))
    return found


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 30, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished training runs are taken from `folder`. There are no further ablations."""
    began = time.perf_counter()
    episodes = yield from DATA.episodes(folder)
    budget = famo2o.PRESETS["bench"]
    every = budget.online_steps // MARKS
    marks = [budget.offline_steps + every * number for number in range(MARKS + 1)]
    starts = episode_seeds(0, evaluate)
    measured: dict[str, list[dict[int, dict[str, list[float]]]]] = {}
    halves: dict[str, list[tuple[float, float]]] = {OURS: [], RANDOM: []}
    trained = 0.0
    for seed in seeds:
        for name, (module, config) in arms(budget).items():
            inputs = (partial(registry.make, MAZE), episodes)
            run = CachedRun(module, inputs, episodes.fingerprint, config, seed, folder)
            curve = yield from measured_run(
                run, marks, partial(_measure, starts=starts, seed=seed), label=f"{name}, seed {seed}"
            )
            measured.setdefault(name, []).append(curve)
            trained += training_seconds(run)
            if name in halves:
                halves[name].append(balances_by_half(run.policy(), episodes))
    returns = {name: _returns(curves, marks) for name, curves in measured.items()}
    return claim.build_claim(
        "famo2o",
        paper_claim="a balance chosen for every state beats every single one, and balances at random, after "
        "fine-tuning online what was learnt offline; gains over IQL and CQL are significant",
        question="on data that are good in one half of a maze and bad in the other: return and area under "
        "the online curve as good as those of the best of three single balances, above their mean and above "
        "balances at random, with balances that differ between the halves",
        arms=_arms(returns, measured, halves, marks, seeds),
        comparisons=_comparisons(returns, halves),
        seeds=seeds,
        settings={
            "data": asdict(DATA.demonstrations),
            "steps_of_the_data": len(episodes.steps),
            "random_actions_in_the_careless_half": 0.7,
            "episodes_per_measurement": evaluate,
            "return": "-1 for every step, and 0 for the one that reaches the goal; cut after 200 steps",
            "best_single_balance": _best(returns)[1],
        },
        seconds=round(max(time.perf_counter() - began, trained), 1),
        recipe_version=1,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """The return of every arm along the experience."""
    curves = {}
    for arm in found.arms:
        names = [name for name in arm.runs[0].metrics if name.startswith("return after")]
        steps = [float(name.split()[2]) for name in names]
        if names:
            curves[arm.name] = [(steps, [run.metrics[name] for name in names]) for run in arm.runs]
    return "Return along the experience, after the data", learning_curves(
        curves, "return (-1 per step)", xlabel="environment steps"
    )


def balances_by_half(policy: FamilyPolicy, episodes: Episodes, *, every: int = 20) -> tuple[float, float]:
    """The mean balance in states of the careful and of the careless half, every so many steps of the data."""
    observation = episodes.steps["observation"][::every]
    driver = UnevenDriver(registry.make(MAZE))
    careless = torch.tensor([driver.is_careless(one) for one in observation.numpy()])
    with torch.inference_mode():
        balance = policy.chooser(observation)
    return float(balance[~careless].mean()), float(balance[careless].mean())


def _measure(policy: Any, *, starts: Sequence[int], seed: int) -> dict[str, list[float]]:
    rollouts = roll_out(policy, partial(registry.make, MAZE), seeds=starts, seed=seed, parallel=10)
    returns = rollouts.success.astype(float) - rollouts.lengths
    return {"return": returns.tolist(), "success": rollouts.success.astype(float).tolist()}


def _single(balance: float) -> str:
    return f"IQL, balance {balance:g}"


def _returns(
    curves: Sequence[dict[int, dict[str, list[float]]]], marks: Sequence[int]
) -> Float[np.ndarray, "run mark episode"]:
    return np.array([[curve[mark]["return"] for mark in marks] for curve in curves])


def _final(returns: Float[np.ndarray, "run mark episode"]) -> Float[np.ndarray, "run episode"]:
    return returns[:, -1]


def _area(returns: Float[np.ndarray, "run mark episode"]) -> Float[np.ndarray, "run episode"]:
    """The mean over the times along the experience, the one before it left out."""
    return returns[:, 1:].mean(1)


MEASURES = {"final return": _final, "mean return online": _area}


def _best(returns: dict[str, Any]) -> dict[int, str]:
    """The best single balance by each measure, in hindsight."""
    singles = [_single(balance) for balance in BALANCES]
    measures = list(MEASURES.values())
    return {i: max(singles, key=lambda name: measures[i](returns[name]).mean()) for i in range(len(measures))}


# ---- the record --------------------------------------------------------------------------------------


def _arms(
    returns: dict[str, Any],
    measured: dict[str, list[dict[int, dict[str, list[float]]]]],
    halves: dict[str, list[tuple[float, float]]],
    marks: Sequence[int],
    seeds: Sequence[int],
) -> list[claim.Arm]:
    settings = {name: config_to_json(config) for name, (_, config) in arms().items()}
    found = []
    for name, values in returns.items():
        runs = []
        for i, seed in enumerate(seeds):
            metrics = {measure: float(of(values)[i].mean()) for measure, of in MEASURES.items()}
            for j, mark in enumerate(marks):
                metrics[f"return after {mark - marks[0]} steps"] = float(values[i, j].mean())
            metrics["final success"] = float(np.mean(measured[name][i][marks[-1]]["success"]))
            if name in halves:
                careful, careless = halves[name][i]
                metrics["balance, careful half"], metrics["balance, careless half"] = careful, careless
                metrics["difference of the halves"] = abs(careless - careful)
            runs.append(claim.Run(seed, metrics))
        found.append(claim.Arm(name, settings[name], runs, claim.summarise(runs)))
    mean = _mean_of_singles(returns)
    runs = [
        claim.Run(seed, {measure: float(of(mean)[i].mean()) for measure, of in MEASURES.items()})
        for i, seed in enumerate(seeds)
    ]
    return [*found, claim.Arm(MEAN, {"beta": list(BALANCES)}, runs, claim.summarise(runs))]


def _mean_of_singles(returns: dict[str, Any]) -> Float[np.ndarray, "run mark episode"]:
    return np.mean([returns[_single(balance)] for balance in BALANCES], axis=0)


def _comparisons(
    returns: dict[str, Any], halves: dict[str, list[tuple[float, float]]]
) -> list[claim.Comparison]:
    best, found = _best(returns), []
    named = {**returns, MEAN: _mean_of_singles(returns)}
    for i, (measure, of) in enumerate(MEASURES.items()):

        def difference(baseline: str, of: Any = of) -> Interval:
            return paired_difference(of(named[OURS]), of(named[baseline]))

        found += [
            claim.Comparison(
                f"{measure} as good as the best balance's", OURS, best[i], measure,
                difference(best[i]), WITHIN, "not_lower",
            ),
            claim.Comparison(
                f"{measure} above the balances' mean", OURS, MEAN, measure, difference(MEAN), 0.0, "higher"
            ),
        ]  # fmt: skip
    at_random = paired_difference(_area(returns[OURS]), _area(returns[RANDOM]))
    apart = mean_interval([abs(careless - careful) for careful, careless in halves[OURS]])
    found += [
        claim.Comparison(
            "above balances at random", OURS, RANDOM, "mean return online", at_random, 0.0, "higher"
        ),
        claim.Comparison(
            "balances differ between the halves", OURS, RANDOM, "difference of the halves",
            apart, DIFFERS, "higher",
        ),
    ]  # fmt: skip
    return found
