"""`compare` for systems that learn from preferences: one model, one set of pairs, measured by held-out pairs.

What is measured is the share of held-out pairs whose chosen answer a policy has moved towards further than
towards the rejected one, as `eval` does; no reward is needed. Prompts of held-out pairs occur in no training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import Float

from policysmith.cli import look
from policysmith.cli.comparing_answers import model_fingerprint
from policysmith.cli.eval_preferences import pair_log_prob
from policysmith.cli.preferences import PreferenceInputs
from policysmith.cli.runs import training_inputs
from policysmith.common.cache import cache_folder
from policysmith.common.catalogue import System, find_system
from policysmith.common.config import config_to_json
from policysmith.common.errors import CapabilityError, DataError, SettingError
from policysmith.common.rng import generator
from policysmith.common.stages import Stage
from policysmith.evaluation import plots
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.comparison import Arm
from policysmith.evaluation.drawing import palette, svg
from policysmith.evaluation.report import Report
from policysmith.evaluation.statistics import Interval, mean_interval, paired_difference, success_interval
from policysmith.experience.preferences import Preferences, flipped
from policysmith.policies.language.models import get_model, open_policy

HELD_SHARE = 0.2
"""Of the prompts, so many are kept back."""

Ratios = Float[np.ndarray, "pair 2"]


@dataclass
class PairsResult:
    """What an arm came to: for each run the log-ratios of the held-out pairs, chosen first."""

    arm: Arm
    ratios: list[Ratios] = field(default_factory=list)

    @property
    def right(self) -> Float[np.ndarray, "run pair"]:
        """1 where a pair is the right way round, else 0."""
        return (self.margins > 0).astype(float)

    @property
    def margins(self) -> Float[np.ndarray, "run pair"]:
        """How much further towards the chosen answer."""
        return np.stack([ratio[:, 0] - ratio[:, 1] for ratio in self.ratios])


@dataclass(frozen=True)
class ComparePairs(PreferenceInputs):
    """Train several systems on the same pairs under one budget, and compare how they order held-out ones."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    test: str = ""
    """held-out preferences, in the form of --data; by default those of a fifth of the prompts"""
    preset: str = "bench"
    """whose settings: paper, bench or tiny"""
    steps: int | None = None
    """of each; this and what follows by default as the presets have them"""
    batch_size: int | None = None
    """pairs of a step"""
    learning_rate: float | None = None
    """of each system"""
    lora_rank: int | None = None
    """train adapters of this rank"""
    seeds: int = 3
    """runs per system"""
    out: str = "runs/comparison"
    """folder of the report"""
    json: bool = False
    """print JSON and nothing else"""

    def run(self) -> None:
        """Train, score, print, and write the page."""
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise SettingError(
                "`compare` needs two systems or more, each named once", cure="policysmith compare dpo ipo ..."
            )
        if not self.model:
            raise SettingError("which model?", cure="give --model FOLDER or NAME, such as smollm2-135m")
        entries = [find_system(name) for name in self.names]
        for entry in entries:
            check_learns_from_pairs(entry)
        train, held = self._split()
        arms = [Arm(entry.name, entry.load(), self._settings(entry.load())) for entry in entries]
        look.note(
            f"{len(train)} preferences to train on, {len(held)} pairs held out, {self.seeds} run(s) each"
        )
        results = look.watch(self._compared(arms, entries, train, held))
        self._tell(results, held)

    # ---- what is compared ----------------------------------------------------------------------------

    def _split(self) -> tuple[Preferences, Preferences]:
        """What is trained on, and the held-out pairs; flips are of the first alone."""
        found = self.preferences()
        if self.test:
            train, held = found, replace(self, data=self.test, test="").preferences()
        else:
            texts = sorted({str(row.prompt.text) for row in found})
            order = torch.randperm(len(texts), generator=generator(0, "held out")).tolist()
            back = {texts[i] for i in order[: max(1, round(HELD_SHARE * len(texts)))]}
            if len(back) == len(texts):
                raise DataError(
                    "all preferences are about one prompt: none can be held out",
                    cure="give held-out ones: --test FILE",
                )
            parts: tuple[list[Any], list[Any]] = ([], [])
            for row in found:
                parts[str(row.prompt.text) in back].append(row)
            train, held = (Preferences(part, provenance=found.provenance) for part in parts)
        if self.flip:
            train = flipped(train, self.flip, seed=self.flip_seed)
        return train, held.as_pairs()

    def _settings(self, module: Any) -> Any:
        if self.preset not in module.PRESETS:
            raise SettingError(f"no preset is called '{self.preset}'", expected=", ".join(module.PRESETS))
        settings = module.PRESETS[self.preset]
        known = {one.name for one in fields(settings)}
        told = {
            name: getattr(self, name)
            for name in ("steps", "batch_size", "learning_rate", "lora_rank")
            if getattr(self, name) is not None and name in known
        }
        return replace(settings, **told)

    def _compared(
        self, arms: list[Arm], entries: list[System], train: Preferences, held: Preferences
    ) -> Generator[Stage, None, list[PairsResult]]:
        folder = Path(self.model) if Path(self.model).exists() else get_model(self.model)
        model = model_fingerprint(folder)
        results = [PairsResult(arm) for arm in arms]
        settings = [config_to_json(arm.config) for arm in arms]
        before = [pair_log_prob(open_policy(str(folder)), held, one) for one in settings]
        pairs = train if all(row.is_pair for row in train) else train.as_pairs()
        for seed in range(self.seeds):
            for result, entry, own, start in zip(results, entries, settings, before, strict=True):
                data = train if training_inputs(entry).lists else pairs
                run = CachedRun(
                    result.arm.module,
                    (str(folder), data),
                    f"{model}/{data.fingerprint}/{scores_of(data)}",
                    result.arm.config,
                    seed,
                    cache_folder(),
                )
                for now in run.train(checkpoint_every=self.checkpoint_every, log_every=1):
                    yield Stage(f"train {result.arm.label}, seed {seed}", now.step, now.total)
                yield Stage(f"measure {result.arm.label}, seed {seed}", 0, 1)
                result.ratios.append(pair_log_prob(run.policy(), held, own) - start)
        return results

    # ---- what is told --------------------------------------------------------------------------------

    def _tell(self, results: list[PairsResult], held: Preferences) -> None:
        columns, rows = pairs_table(results)
        title = " and ".join(self.names)
        subtitle = f"on {self.subject}, {len(held)} held-out pairs, {self.seeds} run(s) each"
        page = pairs_page(Path(self.out) / "report.html", results, title=title, subtitle=subtitle)
        if self.json:
            look.print_json(
                {
                    "report": str(page),
                    "systems": {one.arm.label: _as_json(one, results[0]) for one in results},
                }
            )
            return
        look.table(columns, rows, title=f"{title} {subtitle}")
        look.results.print(f"report: {page.resolve()}", soft_wrap=True)


def check_learns_from_pairs(system: System) -> None:
    """Raise `CapabilityError` for a system that takes something else than a model and preferences."""
    if not issubclass(training_inputs(system), PreferenceInputs) or "reward" in system.takes:
        raise CapabilityError(
            f"'{system.name}' takes {', '.join(system.takes)}",
            expected="systems that learn from a model and preferences alone",
            cure=f"policysmith run {system.name}, and policysmith eval of the run",
        )


def scores_of(data: Preferences) -> str:
    """Tells preferences with other scores apart, which their fingerprint does not."""
    return hashlib.sha256(repr([row.data.get("scores") for row in data]).encode()).hexdigest()[:8]


def share(result: PairsResult) -> Interval:
    """Of held-out pairs, how many are the right way round."""
    return success_interval(result.right)


def pairs_table(results: list[PairsResult]) -> tuple[list[str], list[list[str]]]:
    """Columns, and a row per system; the last column is paired with the first system."""
    first = results[0]
    rows = [
        [
            one.arm.label,
            str(share(one)),
            str(mean_interval(one.margins.mean(1))),
            "" if one is first else str(paired_difference(one.right, first.right)),
        ]
        for one in results
    ]
    return ["system", "pairs the right way round", "margin (nats)", f"minus {first.arm.label}"], rows


def pairs_page(path: Path, results: list[PairsResult], *, title: str, subtitle: str) -> Path:
    """Write the report of a comparison; returns its path."""
    report = Report(title, subtitle)
    report.table("Held-out pairs, with 95 % intervals over runs and pairs", *pairs_table(results))
    bars = {one.arm.label: share(one) for one in results}
    colours = palette([one.arm.label for one in results])
    figure = plots.bars_with_intervals(bars, "pairs the right way round", palette=colours)
    report.figure(svg(figure), "Share of held-out pairs the right way round")
    report.facts({one.arm.label: str(config_to_json(one.arm.config)) for one in results})
    report.write(path)
    return path


def _as_json(result: PairsResult, first: PairsResult) -> dict[str, Any]:
    return {
        "settings": config_to_json(result.arm.config),
        "ordered": str(share(result)),
        "margin": result.margins.mean(1).tolist(),
        "minus_first": None if result is first else str(paired_difference(result.right, first.right)),
    }
