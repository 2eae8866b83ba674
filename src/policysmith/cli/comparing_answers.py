"""`compare` for language systems: one model, prompts, reward and budget, scored on held-out prompts."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from policysmith.claims.common.language import (
    Arm,
    ArmResult,
    Measured,
    Measuring,
    compare,
    difference,
    measured_start,
)
from policysmith.claims.common.starts import Start
from policysmith.cli import look
from policysmith.cli.comparing import check_comparable
from policysmith.cli.language import LanguageInputs
from policysmith.common.cache import cache_folder
from policysmith.common.catalogue import find_system
from policysmith.common.config import config_to_json
from policysmith.common.errors import SettingError
from policysmith.common.rng import generator
from policysmith.evaluation import plots
from policysmith.evaluation.drawing import palette, svg
from policysmith.evaluation.report import Report
from policysmith.evaluation.statistics import mean_interval
from policysmith.experience.prompts import Prompts, from_dataset
from policysmith.policies.language.models import get_model
from policysmith.policies.language.sampling import Sampling
from policysmith.training.learners.language_settings import LanguageSettings

COLUMNS = ["system", "score", "pass", "tokens per answer", "entropy", "minus {first}"]
HELD = "held out"
"""What the prompts that nobody trains on are called."""


@dataclass(frozen=True)
class CompareAnswers(LanguageInputs):
    """Train several language systems from one model under one budget, and score them on held-out prompts."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    test: str = ""
    """held-out prompts, in the form of --data; by default a fifth of the prompts is kept back"""
    preset: str = "bench"
    """whose settings: paper, bench or tiny"""
    steps: int | None = None
    """rollouts of each; this and what follows by default as the presets have them"""
    prompts_per_step: int | None = None
    """prompts of a rollout"""
    group_size: int | None = None
    """answers to a prompt"""
    answer_limit: int | None = None
    """most tokens of an answer"""
    optimizer_steps: int | None = None
    """per rollout"""
    learning_rate: float | None = None
    """of each system"""
    lora_rank: int | None = None
    """train adapters of this rank"""
    seeds: int = 3
    """runs per system"""
    questions: int = 200
    """at most so many held-out prompts"""
    answers: int = 4
    """answers to each of them"""
    out: str = "runs/comparison"
    """folder of the report"""
    json: bool = False
    """print JSON and nothing else"""

    def run(self) -> None:
        """Train, answer, print, and write the page."""
        if len(self.names) < 2:
            raise SettingError("`compare` needs two systems or more", cure="policysmith compare grpo nft ...")
        entries = [find_system(name) for name in self.names]
        check_comparable(entries)
        model, prompts, reward = self.arguments()
        train, held = self._split(prompts)
        arms = [Arm(entry.name, entry.load(), self._settings(entry.load())) for entry in entries]
        settings: LanguageSettings = arms[0].config
        folder = Path(model) if Path(model).exists() else get_model(model)
        start = Start(folder, model_fingerprint(folder), train, reward, _reward_name(self.reward, reward))
        measuring = Measuring(
            reward, Sampling(limit=settings.answer_limit, temperature=settings.temperature), self.answers
        )
        tests = {HELD: held}
        look.note(f"{len(train)} prompts to train on, {len(held)} held out; {self.seeds} runs per system")
        results = look.watch(
            compare(
                arms, start, seeds=range(self.seeds), tests=tests, measuring=measuring, folder=cache_folder()
            )
        )
        before = measured_start(start, tests, measuring)[HELD]
        rows = comparison_rows(results, before)
        page = self._page(results, rows)
        if self.json:
            look.print_json(
                {
                    name: {
                        "score": result.scores(HELD).mean(1).tolist(),
                        "minus_first": str(difference(result, next(iter(results.values())), HELD)),
                    }
                    for name, result in results.items()
                }
                | {"before": before.numbers["rate"]}
            )
            return
        look.table(self._columns, rows, title=f"{len(held)} held-out prompts, reward: {self.reward}")
        look.results.print(f"\npage: {page}", soft_wrap=True)

    @property
    def _columns(self) -> list[str]:
        return [column.format(first=self.names[0]) for column in COLUMNS]

    def _settings(self, module: Any) -> Any:
        if self.preset not in module.PRESETS:
            raise SettingError(f"no preset is called '{self.preset}'", expected=", ".join(module.PRESETS))
        wanted = {
            one.name: getattr(self, "prompts_per_step" if one.name == "prompts" else one.name, None)
            for one in fields(LanguageSettings)
            if one.name in _BUDGET
        }
        return replace(
            module.PRESETS[self.preset], **{k: value for k, value in wanted.items() if value is not None}
        )

    def _split(self, prompts: Prompts) -> tuple[Prompts, Prompts]:
        """What is trained on, and what is held out."""
        if self.test:
            held = from_dataset(self.test, prompt=self.prompt, answer=self.answer)
            return prompts, held[: self.questions]

        order = torch.randperm(len(prompts), generator=generator(0, "held out")).tolist()
        count = min(self.questions, len(prompts) // 5)
        if count < 1:
            raise SettingError(
                f"{len(prompts)} prompts are too few to keep some back",
                cure="give --test FILE, or more prompts",
            )
        return Prompts(prompts[i] for i in order[count:]), Prompts(prompts[i] for i in order[:count])

    def _page(self, results: dict[str, ArmResult], rows: list[list[str]]) -> Path:
        report = Report(" and ".join(self.names), f"on {self.subject}, from {self.model}")
        colours = palette(list(results))
        report.table("Held-out prompts, with 95 % intervals over runs", self._columns, rows)
        scores = {name: mean_interval(result.scores(HELD).mean(1)) for name, result in results.items()}
        report.figure(svg(plots.bars_with_intervals(scores, "score", palette=colours)), "Score at the end")
        for name in ("reward", "entropy", "answer_tokens"):
            curves = {label: result.logged(name) for label, result in results.items()}
            figure = plots.learning_curves(curves, name.replace("_", " "), palette=colours)
            report.figure(svg(figure), f"{name.replace('_', ' ')} over rollouts")
        report.facts({label: str(config_to_json(result.arm.config)) for label, result in results.items()})
        path = Path(self.out) / "report.html"
        report.write(path)
        return path


_BUDGET = (
    "steps",
    "prompts",
    "group_size",
    "answer_limit",
    "optimizer_steps",
    "learning_rate",
    "lora_rank",
)


def comparison_rows(results: dict[str, ArmResult], before: Measured) -> list[list[str]]:
    """A row for the model before training, and one per system; the last column is paired with the first."""
    first = next(iter(results.values()))
    numbers = before.numbers
    rows = [["before", f"{numbers['rate']:.2f}", f"{numbers['pass']:.2f}", f"{numbers['tokens']:.1f}",
             f"{numbers['entropy']:.3f}", ""]]  # fmt: skip
    for name, result in results.items():
        means = {what: mean_interval(result.mean(HELD, what)) for what in ("pass", "tokens", "entropy")}
        rows.append(
            [
                name,
                str(mean_interval(result.scores(HELD).mean(1))),
                f"{means['pass'].value:.2f}",
                f"{means['tokens'].value:.1f}",
                f"{means['entropy'].value:.3f}",
                "" if result is first else str(difference(result, first, HELD)),
            ]
        )
    return rows


def model_fingerprint(folder: Path) -> str:
    """A hash of the weights, so that a model that was trained further in place is another one."""
    digest = hashlib.sha256()
    for file in sorted([*folder.rglob("*.safetensors"), *folder.glob("*.gguf")]) or [folder]:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def _reward_name(name: str, reward: Any) -> str:
    """The name, and of a function of the user's own a hash of its source: finished runs are found by it."""
    if ":" not in name:
        return name
    try:
        source = inspect.getsource(reward)
    except (OSError, TypeError):
        source = repr(reward)
    return f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
