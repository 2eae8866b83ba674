"""DR-PO before reviews: equal budgets on the same pairs, what decides the verdict, and a miniature of it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from policysmith.claims.common import reset_reviews as experiment
from policysmith.claims.common.language import Arm, ArmResult, Measured
from policysmith.claims.common.reset_reviews import (
    COMPARING,
    DPO,
    PPO,
    PROBABILITIES,
    PROXY,
    RECIPE,
    SAMPLED,
    WINS,
    called,
    review_arms,
    review_comparisons,
    worth,
)
from policysmith.claims.common.review_learning import GOLD, HELD_OUT, KL, VALIDATION, with_validation
from policysmith.claims.common.reviews import best_pairs, gold, prompts
from policysmith.claims.common.starts import Compared
from policysmith.claims.ppo_max import BUDGET
from policysmith.common.stages import result_of
from policysmith.systems import dpo, drpo

RECORDS = prompts(20, 5)
OURS = [called(b) for b in PROBABILITIES]


def arms(*, ablations: bool = True) -> dict[str, Arm]:
    pairs = best_pairs(RECORDS, 0, of=3)
    rewarded, plain = Compared(Path("m"), "m", pairs, gold, "gold"), Compared(Path("m"), "m", pairs)
    return {arm.label: arm for arm in review_arms(rewarded, plain, "critic", ablations=ablations)}


def test_arms_that_learn_from_the_reward_differ_in_resets_alone():
    found = arms()
    assert list(arms(ablations=False)) == [*OURS, PPO, DPO]
    plain = found[PPO].config
    assert plain == replace(RECIPE, critic="critic", reset_probability=0.0)
    for b in PROBABILITIES:
        assert found[called(b)].config == replace(plain, reset_probability=b)
    assert found[SAMPLED].config == replace(plain, reset_probability=0.5, resets="start")
    assert not found[SAMPLED].config.needs_references


def test_every_arm_sees_as_many_answers_after_as_many_steps_at_one_rate():
    rates = {arm.config.learning_rate for arm in arms().values()}
    assert len(rates) == 1
    assert (COMPARING.steps, COMPARING.batch_size) == (RECIPE.steps, RECIPE.prompts * RECIPE.group_size)
    assert (RECIPE.epochs, RECIPE.optimizer_steps) == (1, 1)


def test_every_arm_knows_the_same_pairs_and_dpo_knows_no_reward():
    found = arms()
    assert len({arm.start.preferences.fingerprint for arm in found.values()}) == 1  # type: ignore[union-attr]
    assert found[DPO].module is dpo
    assert found[DPO].start.inputs[2:] == ()  # type: ignore[union-attr]
    for label in (*OURS, PPO, SAMPLED):
        assert found[label].module is drpo
        assert found[label].start.inputs[2] is gold  # type: ignore[union-attr]


def made(held_out: dict[str, float], validation: dict[str, float] | None = None) -> dict[str, ArmResult]:
    """Three runs of each arm with that gold on sixty records, a little apart from run to run."""
    found = {}
    noise = np.random.default_rng(0).normal(0, 0.05, (3, 60, 2))
    chosen = {**held_out, **(validation or {})}
    for label, arm in arms(ablations=False).items():
        found[label] = ArmResult(arm)
        for one in noise:
            found[label].measured.append(
                {
                    test: {100: Measured(gold[label] + one, {"rate": gold[label]})}
                    for test, gold in ((HELD_OUT, held_out), (VALIDATION, chosen))
                }
            )
    return found


def test_resets_are_held_to_be_better_than_ppo_and_dpo_in_gold_and_in_wins():
    rival = np.full(60, 0.5)
    gold = {called(0.25): 0.5, called(0.5): 0.3, called(1.0): 0.3, PPO: 0.3, DPO: 0.45}
    better = review_comparisons(made(gold), rival)
    assert [one.verdict for one in better] == ["holds"] * 4
    assert {one.arm for one in better} == {called(0.25)}
    assert [(one.baseline, one.metric) for one in better] == [
        (name, f"{HELD_OUT}: {what}") for name in (PPO, DPO) for what in (GOLD, WINS)
    ]
    behind = review_comparisons(made({**dict.fromkeys(OURS, 0.4), PPO: 0.3, DPO: 0.6}), rival)
    assert [one.verdict for one in behind] == ["holds", "undecided", "fails", "fails"]


def test_the_probability_is_chosen_on_other_records_than_those_it_is_judged_by():
    held_out = {called(0.25): 0.9, called(0.5): 0.2, called(1.0): 0.2, PPO: 0.3, DPO: 0.3}
    found = review_comparisons(made(held_out, {called(0.25): 0.0}), np.full(60, 0.5))
    assert {one.arm for one in found} == {called(0.5)}
    assert found[0].verdict == "fails"


def test_what_is_to_be_beaten_is_the_better_one_of_a_pair():
    pairs = best_pairs(RECORDS, 0, of=experiment.CHOICE, spoilt=experiment.SPOILT)
    assert worth(RECORDS).tolist() == [row.data["scores"][0] for row in pairs]


def test_a_miniature_run_makes_arms_that_say_gold_wins_and_where_the_critic_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_reviews: None
):
    for name, value in (
        ("SEEDS", 2),
        ("PAIRS", 12),
        ("PROBABILITIES", (1.0,)),
        ("RECIPE", replace(RECIPE, steps=1, prompts=2)),
        ("COMPARING", replace(COMPARING, steps=1, batch_size=2)),
    ):
        monkeypatch.setattr(experiment, name, value)
    part = result_of(experiment.reviews([5, 6, 7], tmp_path, 6, ablations=False))
    assert [arm.name for arm in part.arms] == [called(1.0), PPO, DPO]
    measured = {f"{HELD_OUT}: {name}" for name in (GOLD, KL, PROXY, WINS, "answer tokens")}
    for arm in part.arms:
        assert [run.seed for run in arm.runs] == [5, 6], "the first few of the seeds"
        assert set(arm.summary) == measured
        assert str(tmp_path) not in str(arm.settings)
    assert (tmp_path / "reward-models" / part.arms[0].settings["critic"]).is_dir()
    assert part.settings["seeds"] == [5, 6]
    assert part.settings["gold_of_good_reviews"] == pytest.approx(worth(with_validation(6)[HELD_OUT]).mean())
    assert set(part.settings["start"]) == {GOLD, PROXY, WINS}


def test_settings_are_those_of_the_bench_and_of_the_paper():
    settings = asdict(RECIPE)
    for name in ("prompts", "optimizer_steps", "answer_limit", "critic_learning_rate", "warmup_steps"):
        assert settings[name] == BUDGET[name]
    published = drpo.Config()
    for name in ("kl", "clip", "whiten_rewards", "missing_end", "lam", "discount", "value_low"):
        assert settings[name] == getattr(published, name)
