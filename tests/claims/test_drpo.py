"""DR-PO's experiment: equal budgets, what decides the verdict, and a miniature of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from policysmith.claims import drpo as experiment
from policysmith.claims.common import locks
from policysmith.claims.common.language import ArmResult, Measured
from policysmith.claims.common.parts import Part
from policysmith.claims.common.reset_reviews import WINS
from policysmith.claims.common.review_learning import HELD_OUT
from policysmith.claims.drpo import GUESSING, LOCK, OURS, PPO, TEST, lock_arms, lock_comparisons
from policysmith.common.stages import Stage, result_of
from policysmith.evaluation import claim
from policysmith.evaluation.statistics import Interval
from policysmith.training.learners.supervised import SupervisedSettings


def test_the_arms_differ_in_resets_alone():
    ours, ppo, *others = lock_arms(ablations=True)
    assert ours.config == LOCK
    assert ppo.config == replace(LOCK, reset_probability=0.0)
    for arm in others:
        assert replace(arm.config, reset_probability=0.75, resets="data") == LOCK
    assert len({arm.label for arm in (ours, ppo, *others)}) == 5
    assert len(lock_arms(ablations=False)) == 2


def made(label: str, rate: float) -> ArmResult:
    """Three runs that are right on so large a share of a hundred prompts."""
    result = ArmResult(next(arm for arm in lock_arms(ablations=False) if arm.label == label))
    score = (np.arange(100) < 100 * rate).astype(float)[:, None]
    for _ in range(3):
        result.measured.append({TEST: {400: Measured(score, {"rate": rate})}})
    return result


@pytest.mark.parametrize(
    ("ours", "ppo", "verdicts"),
    [
        (1.0, 0.0, ["holds", "holds"]),
        (0.5, 0.0, ["fails", "holds"]),
        (1.0, 0.95, ["fails", "fails"]),
        (0.0, 0.0, ["fails", "holds"]),
    ],
)
def test_the_claim_is_that_locks_are_solved_with_resets_and_not_without(ours, ppo, verdicts):
    found = lock_comparisons({OURS: made(OURS, ours), PPO: made(PPO, ppo)}, [6e-8] * 3)
    assert [one.verdict for one in found] == verdicts


def written(seeds, folder, evaluate, ablations):
    """The other part, without its work."""
    yield Stage("reviews", 0, 1)
    metric = f"{HELD_OUT}: {WINS}"
    runs = [claim.Run(seed, {metric: 0.1}) for seed in seeds]
    arm = claim.Arm("reviews: PPO", {}, runs, claim.summarise(runs))
    level = claim.Comparison("level", arm.name, arm.name, metric, Interval(0.0, 0.0, 0.0), 0.0, "not_lower")
    return Part([arm], [level], {"pairs": 1}, 1000.0)


def test_a_miniature_run_makes_a_record_and_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quick = SupervisedSettings(steps=3, batch_size=8)
    for module, name, value in (
        (experiment, "LENGTH", 2),
        (experiment, "SHOWN", 6),
        (experiment, "LOCK", replace(LOCK, steps=2, prompts=4, answer_limit=3)),
        (experiment, "PARTS", {"lock": experiment.lock, "reviews": written}),
        (locks, "READING", quick),
        (locks, "GUESSING", quick),
    ):
        monkeypatch.setattr(module, name, value)
    found = result_of(experiment.reproduce(seeds=[0, 1], folder=tmp_path, evaluate=5))
    assert [arm.name for arm in found.arms] == [OURS, PPO, GUESSING, "reviews: PPO"]
    assert found.seeds == (0, 1)
    assert set(found.settings) == {"lock", "reviews"}
    assert len(found.comparisons) == 3
    assert found.comparisons[-1].name == "level"
    assert found.seconds > 1000, "those of both parts"
    given = {arm.name: arm.summary["tokens given to an answer"].value for arm in found.arms[:2]}
    assert given[PPO] == 0 < given[OURS]
    assert found.settings["lock"]["known_answers"] == 6
    assert "reviews: PPO" in [
        label.get_text() for label in experiment.plot(found)[1].axes[0].get_yticklabels()
    ]
