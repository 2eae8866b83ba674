"""What an answer without an end is worth."""

import pytest
import torch
from scripted import Scripted

pytest.importorskip("transformers")

from policysmith.common.errors import SettingError
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.scored import unless_unfinished
from policysmith.rewards.scoring import Scoring

POLICY = small_decoder(0, width=32, layers=1, heads=2, context=64)
LENGTH = Scoring({"length": lambda text, prompt: float(len(text))})


def test_answers_that_ended_keep_their_reward_and_the_others_have_the_one_for_that():
    inside = Scripted(POLICY, lambda prompt, copy: "ab" * (copy + 1), LENGTH, copies=3)

    def cut(groups, **options):
        samples = inside(groups, **options)
        samples.batch["finished"] = torch.tensor([True, False, True])
        return samples

    sampler = unless_unfinished(cut, otherwise=-1.0)
    samples = sampler({0: Prompt("1")}, rng=torch.Generator())
    assert samples.batch["reward"].tolist() == [2.0, -1.0, 6.0]
    assert samples.batch["score", "length"].tolist() == [2.0, 4.0, 6.0]
    assert samples.batch["log", "reward"].tolist() == [2.0, 4.0, 6.0]
    assert samples.batch["log", "reward_learnt"].tolist() == [2.0, -1.0, 6.0]


def test_a_reward_that_is_no_number_is_refused():
    with pytest.raises(SettingError, match="finite"):
        unless_unfinished(lambda groups, **options: None, otherwise=float("nan"))
