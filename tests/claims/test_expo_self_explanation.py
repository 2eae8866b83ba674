"""The experiment of ExPO: its task, how chains are compared, and what decides the verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("reasoning_gym")

from policysmith.claims import expo_self_explanation as experiment
from policysmith.claims.common.arithmetic import right
from policysmith.claims.common.language import Arm, ArmResult, Measured, compare
from policysmith.claims.common.starts import Start
from policysmith.claims.common.warm_start import WarmStart
from policysmith.claims.expo_self_explanation import (
    EXPERT,
    EXPERTS,
    EXPLANATIONS,
    GRPO,
    LEADS,
    OURS,
    OWN,
    STRONG,
    SURPRISE,
    TEST,
)
from policysmith.common.stages import result_of
from policysmith.evaluation import claim
from policysmith.evaluation.chains import ChainQuality
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.small import small_decoder

SEEDS = [0, 1, 2]


@pytest.fixture
def recipe(monkeypatch) -> WarmStart:
    """The start's recipe with fewer examples."""
    for name in ("ALONE", "TOLD"):
        monkeypatch.setattr(experiment, name, dict.fromkeys(getattr(experiment, name), 40))
    return experiment.warm_start()


@pytest.mark.parametrize(
    ("question", "solution"),
    [
        ("5+8-7+2-9=", "5+8=13;13+2=15;7+9=16;15-16=-1;#-1"),
        ("5+8=", "5+8=13;13-0=13;#13"),
        ("-5-8=", "5+8=13;0-13=-13;#-13"),
    ],
)
def test_the_expert_adds_first_and_takes_away_then(question, solution):
    assert experiment.expert_solution(question) == solution


def test_expert_solutions_are_right_and_not_those_that_were_taught(recipe):
    for prompt in experiment.prompts()[:50]:
        assert right(prompt.data["solution"], prompt) == 1.0
    taught = {example.answer for example in recipe.examples}
    strange = [prompt.data["solution"] not in taught for prompt in experiment.prompts()]
    assert np.mean(strange) > 0.7, "where nothing is taken before something is added both styles agree"


def test_the_start_is_taught_long_sums_with_the_answer_in_view_only(recipe):
    long = [one for one in recipe.examples if len(one.prompt.split("=")[0]) > 6]
    assert len(long) >= experiment.TOLD[experiment.LEVEL]
    assert all(one.prompt.endswith("?") for one in long)


def test_the_arms_differ_in_what_is_imitated_and_how_much():
    assert replace(STRONG.config, beta=0.04) == OURS.config
    assert replace(EXPERT.config, chains="explanation") == OURS.config
    for name, value in experiment.BUDGET.items():
        assert getattr(GRPO.config, name) == value == getattr(OURS.config, name)
    assert GRPO.config.clip == OURS.config.clip
    assert len(experiment.arms(ablations=True)) == 7


def test_chains_are_compared_on_the_same_questions():
    policy = small_decoder(0, width=32, layers=1, heads=2, context=64)
    questions = [Prompt("1+1=", "2", {"solution": "1+1=2;#2"})]

    told = SimpleNamespace(texts=[["no", "1;#2", "2;#2"]], score=np.array([[0.0, 1.0, 1.0]]))
    alone = SimpleNamespace(texts=[["1;#2", "3;#3", "4;#4"]], score=np.array([[1.0, 0.0, 0.0]]))
    found = iter([told, alone])
    taken = []

    def chain_quality(policy, chains):
        taken.append(chains[0].text)
        return ChainQuality(torch.ones(1), torch.ones(1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "answer", lambda *args, **options: next(found))
        patch.setattr(experiment, "chain_quality", chain_quality)
        experiment.chain_qualities(policy, questions, 0)  # type: ignore[arg-type]
    assert taken == ["1;#", "1+1=2;#", "3;#"]


# ---- the verdict -------------------------------------------------------------------------------------


def result(arm: Arm, rate: float) -> ArmResult:
    """Three runs that answer so large a share of a hundred questions."""
    found = ArmResult(arm)
    for _ in SEEDS:
        logs = {"explanation/right": 0.6, "explanation/answer_tokens": 30.0} if arm is not GRPO else {}
        found.metrics.append([{"step": step, **logs} for step in range(1, 61)])
        found.measured.append({TEST: {60: measured(rate)}})
        found.seconds.append(1.0)
    return found


def measured(rate: float) -> Measured:
    score = np.zeros((100, 4))
    score[: round(100 * rate)] = 1.0
    return Measured(score, {"rate": float(score.mean()), "pass": float(score.mean()), "tokens": 20.0})


def made(**changes: float):
    said = {"plain": 0.05, "ours": 0.6, "expert": 0.2, "strong": 0.4, "surprise": 0.3, "leads": -0.5}
    said |= changes
    results = {
        arm.label: result(arm, said[name])
        for name, arm in (("plain", GRPO), ("expert", EXPERT), ("ours", OURS), ("strong", STRONG))
    }
    qualities = [
        {
            EXPLANATIONS: {SURPRISE: said["surprise"] + 0.01 * seed, LEADS: said["leads"]},
            EXPERTS: {SURPRISE: 1.0, LEADS: -0.1},
            OWN: {SURPRISE: 0.1, LEADS: -3.0},
        }
        for seed in SEEDS
    ]
    return results, measured(0.04), qualities


def verdicts(**changes: float) -> dict[str, str]:
    return {one.name: one.verdict for one in experiment.comparisons(*made(**changes))}


def test_the_claim_holds_where_all_that_it_says_is_seen():
    found = verdicts()
    assert set(found.values()) == {"holds"}
    assert len(found) == 6


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"surprise": 2.0}, "explanations are likelier"),
        ({"leads": -5.0}, "they lead to the answer"),
        ({"plain": 0.3}, "GRPO stays at its start"),
        ({"expert": 0.9}, "better than with expert solutions"),
        ({"strong": 0.9}, "better than with a large beta"),
    ],
)
def test_each_part_of_the_claim_can_fail(changes, failing):
    found = verdicts(**changes)
    assert found.pop(failing) == "fails"
    assert set(found.values()) == {"holds"}


def test_being_no_better_than_grpo_is_a_failure():
    assert verdicts(ours=0.05, expert=0.02, strong=0.01)["better than GRPO"] == "fails"


def test_a_record_is_made_of_the_start_its_chains_and_the_arms():
    results, before, qualities = made()
    found = claim.build_claim(
        "expo-self-explanation",
        paper_claim="p",
        question="q",
        arms=[
            experiment.start_arm(before, SEEDS),
            *(experiment.quality_arm(kind, qualities, SEEDS) for kind in (EXPLANATIONS, EXPERTS, OWN)),
            *(experiment.trained_arm(one, SEEDS) for one in results.values()),
        ],
        comparisons=experiment.comparisons(results, before, qualities),
        seeds=SEEDS,
        settings={},
        seconds=1.0,
        recipe_version=1,
    )
    assert found.verdict == "holds"
    named = {arm.name: arm for arm in found.arms}
    assert named[OURS.label].runs[0].metrics["tokens of an explanation"] == 30.0
    assert "tokens of an explanation" not in named[GRPO.label].runs[0].metrics
    caption, figure = experiment.plot(found)
    assert "without the answer" in caption
    assert len(figure.axes[0].patches) == 5


def test_the_arms_run(tmp_path: Path):
    policy = small_decoder(0, width=32, layers=1, heads=2, context=64)
    policy.save_pretrained(tmp_path / "model")
    begun = Start(tmp_path / "model", "tiny", experiment.prompts()[:8], lambda *_: 1.0, "all")
    small = {"steps": 2, "prompts": 2, "group_size": 2, "answer_limit": 8, "optimizer_steps": 1}
    arms = [replace(arm, config=replace(arm.config, **small)) for arm in experiment.arms(ablations=False)]
    results = result_of(
        compare(
            arms,
            begun,
            seeds=[0],
            tests={TEST: experiment.prompts()[:2]},
            measuring=replace(experiment.MEASURING, every=0),
            folder=tmp_path,
        )
    )
    assert [experiment.trained_arm(one, [0]).name for one in results.values()] == [arm.label for arm in arms]
