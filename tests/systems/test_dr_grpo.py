"""Dr. GRPO: what it shares with GRPO, and the two biases it is without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from language_seams import gradient, made_samples, seams

from policysmith.evaluation.conformance import check_system
from policysmith.systems import dr_grpo, grpo

GRPO = seams(grpo, grpo.Config(beta=0.0))
DR_GRPO = seams(dr_grpo, dr_grpo.Config(answer_limit=10))


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("dr-grpo", tmp_path)


def test_defaults_are_the_published_settings():
    config = dr_grpo.Config()
    assert (config.prompts, config.group_size, config.optimizer_steps) == (128, 8, 8)
    assert (config.answer_limit, config.learning_rate, config.clip) == (3000, 1e-6, 0.2)
    assert not seams(dr_grpo, config).get("reference", False)


def test_it_goes_grpos_way_where_groups_are_of_equal_spread_and_answers_of_equal_length():
    rewards, lengths = [1.0, 0.0, 0.5, 1.5], [3, 3, 3, 3]
    ours = gradient(DR_GRPO, made_samples(rewards, lengths=lengths))
    theirs = gradient(GRPO, made_samples(rewards, lengths=lengths))
    torch.testing.assert_close(ours / ours.norm(), theirs / theirs.norm())
    # centred 0.5 over 4 x 10 tokens; standardised 0.5 / 0.7071 over 4 x 3
    assert float(ours.norm() / theirs.norm()) == pytest.approx(0.5 / 40 / (0.5**0.5 / 12), rel=1e-4)


def test_a_question_that_is_nearly_always_answered_counts_no_more_than_its_spread():
    rewards = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    found = {}
    for name, parts in (("ours", DR_GRPO), ("theirs", GRPO)):
        row = gradient(parts, made_samples(rewards, lengths=[3] * 8, group_size=4)).abs().sum(1)
        found[name] = float(row[3] / row[6])  # the wrong answer of an easy question to that of a middling one
    assert found["ours"] == pytest.approx(0.75 / 0.5)
    assert found["theirs"] == pytest.approx(0.75 / 0.5 * (1 / 3) ** 0.5 / 0.25**0.5, rel=1e-4)


def test_a_long_wrong_answer_is_not_cheaper_per_token():
    samples = made_samples([1.0, 0.0, 1.0, 0.0], lengths=[3, 3, 3, 9])
    per_token = gradient(DR_GRPO, samples).amax(1)
    assert float(per_token[1]) == pytest.approx(float(per_token[3]))
    per_token = gradient(GRPO, made_samples([1.0, 0.0, 1.0, 0.0], lengths=[3, 3, 3, 9])).amax(1)
    assert float(per_token[1]) == pytest.approx(3 * float(per_token[3]))


def test_the_denominator_is_the_longest_that_an_answer_may_be():
    twice = seams(dr_grpo, replace(dr_grpo.Config(), answer_limit=20))
    samples = ([1.0, 0.0], [2, 5])
    one, half = (gradient(parts, made_samples(samples[0], lengths=samples[1])) for parts in (DR_GRPO, twice))
    torch.testing.assert_close(one, 2 * half)
