"""The policy gradient of a preference game: worked numbers, forms of the divergence, and what is constant."""

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.objectives.nash import nash_policy_gradient_loss

LOG_P = torch.tensor([[-1.0, -2.0], [-0.5, -1.5]])
LOG_MU = torch.tensor([[-1.5, -1.0], [-0.5, -2.0]])
P, MASK = torch.tensor([0.7, 0.4]), torch.ones(2, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("form", "loss", "gradient"),
    [
        ("token", 0.2375, [[-0.075, -0.15], [0.05, 0.075]]),
        ("sequence", 0.2250, [[-0.125, -0.125], [0.075, 0.075]]),
    ],
)
def test_worked_answers_in_both_forms(form, loss, gradient):
    log_p = LOG_P.clone().requires_grad_(True)
    values = nash_policy_gradient_loss(log_p, LOG_MU, P, MASK, divergence=0.1, form=form)
    mean = values.sum(1).mean()
    mean.backward()
    assert float(mean.detach()) == pytest.approx(loss, abs=1e-6)
    assert torch.allclose(log_p.grad, torch.tensor(gradient), atol=1e-6)


def test_without_divergence_it_is_reinforce_on_who_wins():
    values = nash_policy_gradient_loss(LOG_P, LOG_MU, P, MASK, divergence=0.0)
    assert torch.allclose(values, -(P[:, None] - 0.5) * LOG_P)


def test_one_token_has_one_form():
    one = [x[:, :1] for x in (LOG_P, LOG_MU)]
    values = [
        nash_policy_gradient_loss(*one, P, MASK[:, :1], divergence=0.3, form=form)
        for form in ("token", "sequence")
    ]
    assert torch.equal(*values)


def test_padding_is_no_part_of_the_divergence():
    mask = torch.tensor([[True, False], [True, True]])
    values = nash_policy_gradient_loss(LOG_P, LOG_MU, P, mask, divergence=0.1)
    assert float(values[0, 1]) == 0
    assert float(values[0, 0]) == pytest.approx((0.2 - 0.1 * 0.5) * 1.0)


def test_what_is_no_probability_is_named():
    with pytest.raises(DataError, match=r"preference of 1\.2") as caught:
        nash_policy_gradient_loss(LOG_P, LOG_MU, torch.tensor([0.5, 1.2]), MASK, divergence=0.1)
    assert "row 1" in str(caught.value)
    with pytest.raises(SettingError, match="form"):
        nash_policy_gradient_loss(LOG_P, LOG_MU, P, MASK, divergence=0.1, form="word")
    with pytest.raises(SettingError, match="divergence"):
        nash_policy_gradient_loss(LOG_P, LOG_MU, P, MASK, divergence=-0.1)
