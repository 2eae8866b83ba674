"""Rows learnt by their likelihood: no member of their group, no advantage, one term of the loss."""

from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict

from policysmith.objectives.averaging import sequence_mean_weight, sequence_sum_weight, token_mean_weight
from policysmith.policies.language.samples import Samples
from policysmith.training.learners.group_relative import clipped, group_relative, with_kl
from policysmith.training.learners.imitation import apart, imitation_weight, with_imitation

# Two usual rows, then explanations of three tokens and of one.
LOG_PROB = torch.tensor([[-0.7, -0.1, 0.0], [-0.2, 0.0, 0.0], [-0.5, -1.0, -0.2], [-0.3, 0.0, 0.0]])
MASK = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]]).bool()


def batch(beta: float = 0.04) -> TensorDict:
    return TensorDict(
        {
            "mask": MASK,
            "imitation": torch.tensor([0.0, 0.0, beta, beta]),
            "old_log_prob": torch.where(torch.tensor([True, True, False, False])[:, None], LOG_PROB, 0.0),
            "reference_log_prob": LOG_PROB,
            "advantage": torch.tensor([[-0.3], [0.1], [0.0], [0.0]]),
        },
        batch_size=[4],
    )


@pytest.mark.parametrize(
    ("reduction", "likelihood"),
    [(token_mean_weight, 0.5), (sequence_mean_weight, 0.433333), (sequence_sum_weight, 1.0)],
)
def test_the_term_is_worked_by_hand_under_every_reduction(reduction, likelihood):
    values, _ = with_imitation(clipped())(LOG_PROB, LOG_PROB, batch())
    weight = imitation_weight(sequence_mean_weight, reduction)(batch())
    usual = float((values * weight)[:2].sum())
    assert usual == pytest.approx(0.1)  # the ratio is 1: the mean of 0.3 and -0.1
    assert float((values * weight).sum()) == pytest.approx(usual + 0.04 * likelihood, abs=1e-6)


def test_imitated_rows_have_the_gradient_of_their_likelihood_and_no_other():
    log_prob = LOG_PROB.clone().requires_grad_()
    values, statistics = with_imitation(with_kl(clipped(), 5.0))(log_prob, LOG_PROB, batch())
    weight = imitation_weight(sequence_mean_weight, token_mean_weight)(batch())
    (gradient,) = torch.autograd.grad((values * weight).sum(), log_prob)
    assert torch.allclose(gradient[2:], torch.where(MASK[2:], -0.04 / 4, 0.0))
    assert all(not bool(one[2:].any()) for one in statistics.values())


def test_usual_rows_count_as_they_would_alone():
    together = imitation_weight(sequence_mean_weight, token_mean_weight)(batch())
    assert torch.equal(together[:2], sequence_mean_weight(MASK[:2]))


@pytest.mark.parametrize("kept", [[0, 1], [2, 3]])
def test_a_batch_may_have_rows_of_one_kind_only(kept):
    weight = imitation_weight(sequence_mean_weight, token_mean_weight)(batch()[torch.tensor(kept)])
    assert float(weight.sum()) == pytest.approx(1.0 if kept == [0, 1] else 0.04)


def samples(rewards: list[float], imitation: list[float]) -> Samples:
    rows = len(rewards)
    content = TensorDict(
        {
            "token": torch.zeros(rows, 2, dtype=torch.long),
            "reward": torch.tensor(rewards),
            "imitation": torch.tensor(imitation),
            "group_id": torch.zeros(rows, dtype=torch.long),
            "place": torch.arange(rows),
        },
        batch_size=[rows],
    )
    return Samples(content, [SimpleNamespace(about=None)] * rows, [""] * rows)  # type: ignore[list-item]


def test_an_imitated_row_is_no_member_of_its_group():
    found = apart(group_relative())(samples([1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.04, 0.0])).batch
    alone = group_relative()(samples([1.0, 0.0, 0.0], [0.0] * 3)).batch["advantage"][:, 0]
    by_place = dict(zip(found["place"].tolist(), found["advantage"][:, 0].tolist(), strict=True))
    assert [by_place[place] for place in (0, 1, 3)] == pytest.approx(alone.tolist())
    assert by_place[2] == 0.0


def test_without_imitated_rows_the_label_is_as_it_is():
    found = apart(group_relative())(samples([1.0, 0.0], [0.0, 0.0])).batch["advantage"]
    assert torch.equal(found, group_relative()(samples([1.0, 0.0], [0.0, 0.0])).batch["advantage"])
