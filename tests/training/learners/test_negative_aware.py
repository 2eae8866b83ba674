"""Right and wrong answers with their rates: what the label tells, what it refuses, what the loss sees."""

import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import DataError
from policysmith.experience.prompts import Prompt
from policysmith.objectives.averaging import fixed_weight
from policysmith.policies.language.samples import Request, Samples, Written, collate
from policysmith.training.learners.negative_aware import negative_aware, outcomes


def answered(*rewards_by_group: list[float]) -> Samples:
    """Groups of answers, "1+0=" and so on, with these rewards."""
    requests = [
        Request([1, 2], group_id=group, copy=copy, about=Prompt(f"1+{group}="))
        for group, rewards in enumerate(rewards_by_group)
        for copy in range(len(rewards))
    ]
    written = [Written([3, 4], [-1.0, -1.0], True) for _ in requests]
    batch = collate(requests, written, pad=0, version=0)
    batch["reward"] = torch.tensor([float(reward) for rewards in rewards_by_group for reward in rewards])
    return Samples(batch, requests, ["so"] * len(requests))


def test_the_rate_is_the_groups_and_not_the_batchs():
    batch = outcomes()(answered([1, 0, 0, 0], [1, 1, 0])).batch
    assert batch["correct"].tolist() == [True, False, False, False, True, True, False]
    torch.testing.assert_close(batch["rate"], torch.tensor([0.25] * 4 + [2 / 3] * 3))


def test_a_graded_reward_names_the_prompt_and_the_way_out():
    with pytest.raises(DataError, match=r"reward 0\.5(.|\n)*1\+1=(.|\n)*grpo"):
        outcomes()(answered([1, 0], [0.5, 0]))


@pytest.mark.parametrize(("rewards", "kind"), [([1, 1], "right"), ([0, 0], "wrong"), ([1], "right")])
def test_a_prompt_of_one_kind_of_answers_is_named_with_the_filter(rewards, kind):
    with pytest.raises(DataError, match=rf"are {kind}(.|\n)*1\+1=(.|\n)*filter_agreeing"):
        outcomes()(answered([1, 0], rewards))


def test_where_the_filter_left_nothing_nothing_is_learnt():
    batch = outcomes(filtered=True)(answered([1, 1], [0, 0])).batch
    batch["old_log_prob"] = batch["behaviour_log_prob"]
    log_prob = (batch["behaviour_log_prob"] - 0.1).requires_grad_()
    values, _ = negative_aware()(log_prob, torch.zeros(4, 4), batch)
    values.sum().backward()
    assert log_prob.grad is not None
    assert values.abs().sum() == log_prob.grad.abs().sum() == 0
    with pytest.raises(DataError, match="filter_agreeing"):
        outcomes(filtered=True)(answered([1, 1], [1, 0]))


def batch_by_hand(mask: list[list[bool]]) -> TensorDict:
    """The two rows whose losses are worked by hand: one right, one wrong, at a rate of a half."""
    return TensorDict(
        {
            "old_log_prob": torch.tensor([[-0.5, -1.2], [-1.0, -0.2]]),
            "correct": torch.tensor([True, False]),
            "rate": torch.tensor([0.5, 0.5]),
            "mask": torch.tensor(mask),
        },
        batch_size=[2],
    )


LOG_PROB = torch.tensor([[-0.4, -1.0], [-0.9, -0.3]])


def test_summed_and_divided_by_a_constant_by_hand():
    batch = batch_by_hand([[True, True], [True, True]])
    log_prob = LOG_PROB.clone().requires_grad_()
    values, statistics = negative_aware()(log_prob, torch.zeros(2, 2), batch)
    loss = (values * fixed_weight(batch["mask"], denominator=1000)).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-0.000195451, abs=1e-9)
    expected = torch.tensor([[-0.0005, -0.0005], [0.000553, 0.000413]])
    torch.testing.assert_close(log_prob.grad, expected, atol=1e-6, rtol=0)
    # The wrong answer's first token has become likelier, its second has not.
    assert statistics["floored"].tolist() == [[0, 0], [1, 0]]


def test_without_negatives_wrong_answers_are_not_learnt_from():
    batch = batch_by_hand([[True, True], [True, True]])
    log_prob = LOG_PROB.clone().requires_grad_()
    values, _ = negative_aware(negative_weight=0.0)(log_prob, torch.zeros(2, 2), batch)
    loss = (values * fixed_weight(batch["mask"], denominator=1000)).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-0.00015)
    assert log_prob.grad is not None
    assert log_prob.grad[1].tolist() == [0, 0]


def test_what_the_policy_did_not_write_has_no_loss():
    values, _ = negative_aware()(LOG_PROB, torch.zeros(2, 2), batch_by_hand([[True, False], [True, False]]))
    assert values[:, 1].tolist() == [0, 0]


def test_the_log_probabilities_of_sampling_are_asked_for():
    batch = batch_by_hand([[True, True], [True, True]]).exclude("old_log_prob")
    with pytest.raises(DataError, match="old_log_prob"):
        negative_aware()(LOG_PROB, torch.zeros(2, 2), batch)
