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
from policysmith.claims.drpo import GUESSING, LOCK, OURS, PPO, TEST, lock_arms, lock_comparisons
from policysmith.common.stages import result_of
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


def test_a_miniature_run_makes_a_record_and_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quick = SupervisedSettings(steps=3, batch_size=8)
    for module, name, value in (
        (experiment, "LENGTH", 2),
        (experiment, "SHOWN", 6),
        (experiment, "LOCK", replace(LOCK, steps=2, prompts=4, answer_limit=3)),
        (locks, "READING", quick),
        (locks, "GUESSING", quick),
    ):
        monkeypatch.setattr(module, name, value)
    found = result_of(experiment.reproduce(seeds=[0, 1], folder=tmp_path, evaluate=5))
    assert [arm.name for arm in found.arms] == [OURS, PPO, GUESSING]
    assert found.seeds == (0, 1)
    given = {arm.name: arm.summary["tokens given to an answer"].value for arm in found.arms[:2]}
    assert given[PPO] == 0 < given[OURS]
    assert found.settings["lock"]["known_answers"] == 6
    assert experiment.plot(found)[1].axes
