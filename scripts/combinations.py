"""Measure combinations of methods beside their parts, and write the table and the picture of their guide.

python scripts/combinations.py               # about half an hour the first time; finished runs are kept
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import combined_methods as methods  # noqa: E402

from policysmith.claims import ghpo as guidance  # noqa: E402
from policysmith.claims.common import helped  # noqa: E402
from policysmith.claims.common.helped_arithmetic import HINT  # noqa: E402
from policysmith.claims.common.language import (  # noqa: E402
    Arm,
    ArmResult,
    compare,
    difference,
    measured_start,
    trained_seconds,
)
from policysmith.cli import look  # noqa: E402
from policysmith.common.cache import cache_folder  # noqa: E402
from policysmith.evaluation.drawing import png  # noqa: E402
from policysmith.evaluation.plots import bars_with_intervals  # noqa: E402
from policysmith.evaluation.statistics import mean_interval  # noqa: E402

GUIDE, PICTURE = ROOT / "docs/guides/combining.md", ROOT / "docs/pictures/combinations.png"
BEGIN, END = "<!-- measured: written by scripts/combinations.py -->", "<!-- end of what was measured -->"
TESTS = ("short", "long")
MEASURING = replace(helped.MEASURING, every=0)
"""At the end alone."""


def main() -> int:
    """Run, or take from the cache, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=helped.STEPS)
    parser.add_argument("--questions", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = list(range(options.seeds))
    budget = {**helped.BUDGET, "steps": options.steps, "template": HINT}
    arms = [Arm(name, methods, methods.Config(**budget, method=name)) for name in methods.METHODS]

    def work():
        start = yield from helped.start(guidance.warm_start(), cache_folder())
        tests = {
            name: prompts
            for name, prompts in helped.question_sets(options.questions).items()
            if name in TESTS
        }
        results = yield from compare(
            arms, start, seeds=seeds, tests=tests, measuring=MEASURING, folder=cache_folder()
        )
        return results, measured_start(start, tests, MEASURING)

    results, before = look.watch(work())
    lines = [*table(results, before), "", *against_parts(results), "", settings(options, results)]
    text = GUIDE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    GUIDE.write_text(f"{head}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{tail}", encoding="utf-8")
    accuracy = {name: mean_interval(result.scores("long").mean(1)) for name, result in results.items()}
    PICTURE.write_bytes(png(bars_with_intervals(accuracy, "accuracy on long sums, asked without hints")))
    return 0


def table(results: dict[str, ArmResult], before: dict) -> list[str]:
    """Every method: accuracy by test with its interval over runs, tokens drawn, and what entropy was left."""
    lines = [
        "| method | short sums | long sums | idle groups | entropy at the end |",
        "| --- | --- | --- | --- | --- |",
        f"| the start | {before['short'].numbers['rate']:.2f} | {before['long'].numbers['rate']:.2f} | | |",
    ]
    for name, result in results.items():
        shown = f"**{name}**" if name in methods.COMBINATIONS else name
        scores = [str(mean_interval(result.scores(test).mean(1))) for test in TESTS]
        idle, entropy = (mean_interval(result.final(metric, last=20)) for metric in ("agreeing", "entropy"))
        lines.append(f"| {shown} | {scores[0]} | {scores[1]} | {idle.value:.2f} | {entropy.value:.3f} |")
    return lines


def against_parts(results: dict[str, ArmResult]) -> list[str]:
    """Each combination minus each of its parts and minus GRPO, paired over seeds and questions."""
    lines = ["| combination | minus | short sums | long sums |", "| --- | --- | --- | --- |"]
    for name, parts in methods.COMBINATIONS.items():
        for part in ("GRPO", *parts):
            found = [str(difference(results[name], results[part], test)) for test in TESTS]
            lines.append(f"| {name} | {part} | {found[0]} | {found[1]} |")
    return lines


def settings(options: argparse.Namespace, results: dict[str, ArmResult]) -> str:
    """What the tables are of."""
    budget = ", ".join(f"{name} {value}" for name, value in helped.BUDGET.items())
    return (
        f"{options.seeds} seeds, {options.questions} questions of each kind with {MEASURING.copies} "
        f"answers at temperature 1, {options.steps} steps ({budget}); 95 % intervals; "
        f"{trained_seconds(results) / 60:.0f} minutes of training on one core."
    )


if __name__ == "__main__":
    sys.exit(main())
