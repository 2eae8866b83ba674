"""SEED-GRPO as a system: what it reduces to, whose meaning it goes by, what it refuses."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from policysmith.common.errors import SettingError
from policysmith.evaluation.conformance import check_system, language_inputs
from policysmith.rewards.scoring import Scoring
from policysmith.rewards.verifiers import after, exact, last_number, numeric, whole
from policysmith.systems import dr_grpo, seed_grpo

TINY = seed_grpo.PRESETS["tiny"]
SHORT = replace(TINY, steps=3, prompts=4)


def metrics(run) -> list[dict[str, float]]:
    return [now.metrics for now in run]


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("seed-grpo", tmp_path)


def test_without_alpha_it_is_dr_grpo(tmp_path: Path) -> None:
    inputs = language_inputs(tmp_path)
    ours = metrics(seed_grpo.train(*inputs, config=replace(SHORT, alpha=0.0)))
    same = {field.name: getattr(SHORT, field.name) for field in fields(dr_grpo.Config)}
    theirs = metrics(dr_grpo.train(*inputs, config=dr_grpo.Config(**same)))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.pop("factor") == 1
        del mine["semantic_entropy"]
        assert mine == other


def test_where_no_two_answers_are_the_same_the_factor_is_a_half(tmp_path: Path) -> None:
    run = seed_grpo.train(*language_inputs(tmp_path), read=lambda text: None, config=SHORT)
    # The answers' likelihoods differ a little, so that the entropy is a little below its most.
    assert all(0.5 <= one["factor"] < 0.51 for one in metrics(run))


@pytest.mark.parametrize("standardise", [False, True])
def test_where_all_answers_are_the_same_nothing_is_damped(tmp_path: Path, standardise: bool) -> None:
    config = replace(SHORT, standardise=standardise)
    run = seed_grpo.train(*language_inputs(tmp_path), read=lambda text: "same", config=config)
    assert all(one["factor"] == 1 and one["semantic_entropy"] == 0 for one in metrics(run))


def test_the_verifier_says_what_an_answer_means() -> None:
    verify = numeric(after("#"))
    form = lambda text, prompt: 0.0  # noqa: E731
    read, equal = seed_grpo.meaning(Scoring({"form": form, "right": verify}), None, None)
    assert read("5+5=10;#10") == "10"
    assert equal is not None
    assert equal("10", "10.0")
    assert seed_grpo.meaning(Scoring({"right": exact()}), last_number, None) == (last_number, None)
    assert seed_grpo.meaning(Scoring({"form": form}), None, None) == (whole, None)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(SettingError, match="one answer cannot disagree"):
        seed_grpo.Config(group_size=1)
    with pytest.raises(SettingError, match="0 or more"):
        seed_grpo.Config(alpha=-0.1)
