"""Pairs by a judge: the likelier better answer first, none where it cannot say; as a system learns them."""

from dataclasses import replace

import pytest

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.evaluation.conformance import language_inputs
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.judges import judge_by
from policysmith.systems import online_dpo

CONFIG = replace(online_dpo.PRESETS["tiny"], prompts=16, group_size=2, steps=4)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return language_inputs(tmp_path_factory.mktemp("prompts"))[1]


def trained(prompts, reward, **options):
    policy = small_decoder(0, width=32, layers=2, heads=2, context=64)
    return list(online_dpo.train(policy, prompts, reward, config=CONFIG, **options))


def codes(text, prompt):
    return sum(map(ord, text)) / 100


def test_a_judge_that_is_the_reward_makes_the_same_run(prompts):
    by_reward, by_judge = trained(prompts, codes), trained(prompts, None, judge=judge_by(codes))
    assert [now.metrics["loss"] for now in by_reward] == [now.metrics["loss"] for now in by_judge]


def test_a_judge_who_cannot_say_makes_no_pairs(prompts):
    with pytest.raises(DataError, match="gave a preference"):
        trained(prompts, None, judge=lambda asked, first, second: [0.5] * len(asked))


def test_without_reward_and_judge_nobody_compares(prompts):
    with pytest.raises(SettingError, match="nobody compares"):
        trained(prompts, None)
