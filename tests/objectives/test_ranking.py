"""Ranking losses: worked numbers, what they reduce to, padding, and what carries no gradient."""

import pytest
import torch

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.objectives.preferences import dpo_loss, slic_loss
from policysmith.objectives.ranking import (
    dcg,
    dcg_lambda_weights,
    labels_from_pairwise,
    labels_from_ranks,
    lambda_loss,
    list_mle_loss,
    pair_hinge_loss,
    pair_logistic_loss,
    pair_terms,
    point_mse_loss,
    point_sigmoid_loss,
    ranks,
    softmax_loss,
)

S = torch.tensor([[0.2, 0.1, 0.3]])
PSI = torch.tensor([[0.9, 0.5, 0.1]])
ALL = torch.ones(1, 3, dtype=torch.bool)
LOSSES = [
    pair_logistic_loss, pair_hinge_loss, list_mle_loss, softmax_loss, point_mse_loss, point_sigmoid_loss,
    lambda_loss,
]  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "options", "terms", "mean"),
    [
        (pair_logistic_loss, {}, 3, 0.728977),
        (pair_hinge_loss, {}, 3, 1.066667),
        (list_mle_loss, {}, 1, 1.900082),
        (softmax_loss, {"normalised": False}, 1, 1.692914),
        (softmax_loss, {}, 1, 1.128609),
        (point_sigmoid_loss, {}, 3, 0.712297),
        (point_mse_loss, {}, 3, 0.230),
        (lambda_loss, {}, 3, 0.393000),
    ],
)
def test_losses_of_a_worked_list(loss, options, terms, mean):
    assert float(loss(S, PSI, ALL, **options)) / terms == pytest.approx(mean, abs=2e-6)


def test_the_weights_of_pairs_are_by_gain_and_present_rank():
    assert ranks(S, ALL).tolist() == [[2, 3, 1]]
    delta = dcg_lambda_weights(S, PSI, ALL)[0]
    assert [float(delta[i, j]) for i, j in ((0, 1), (0, 2), (1, 2))] == pytest.approx(
        [0.177483, 0.879449, 0.513660], abs=1e-6
    )
    assert float(pair_terms(PSI, ALL)) == 3
    assert float(lambda_loss(S, PSI, ALL)) == pytest.approx(1.179, abs=1e-6)


def test_the_gradient_of_the_lambda_loss_leaves_its_weights_alone():
    s = S.clone().requires_grad_(True)
    (lambda_loss(s, PSI, ALL) / 3).sum().backward()
    assert s.grad[0].tolist() == pytest.approx([-0.182, -0.066040, 0.248040], abs=1e-6)


def test_constant_weights_make_it_the_pairwise_loss():
    same = lambda_loss(S, PSI, ALL, weights="none")
    assert torch.allclose(same, pair_logistic_loss(S, PSI, ALL))
    whole = dcg_lambda_weights(S, PSI, ALL, scale_by_length=False)
    parts = [dcg_lambda_weights(S, PSI, ALL, weights=w, scale_by_length=False) for w in ("gain", "discount")]
    assert torch.allclose(whole, parts[0] * parts[1])
    with pytest.raises(SettingError, match="lambda weights"):
        lambda_loss(S, PSI, ALL, weights="map")


def test_two_outcomes_are_a_pair():
    ratio, labels = torch.tensor([[1.5, -0.5], [-2.0, 1.0]]), torch.tensor([[1.0, 0.0]]).expand(2, 2)
    there = torch.ones(2, 2, dtype=torch.bool)
    margin = ratio[:, 0] - ratio[:, 1]
    for loss in (pair_logistic_loss, list_mle_loss):
        assert torch.allclose(loss(0.1 * ratio, labels, there), dpo_loss(margin, beta=0.1))
    assert torch.allclose(pair_hinge_loss(0.1 * ratio, labels, there), slic_loss(margin, beta=0.1))


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_not_present_changes_nothing_and_has_no_gradient(loss):
    s = torch.tensor([[0.2, 5.0, 0.1, 0.3]], requires_grad=True)
    labels = torch.tensor([[0.9, 1.0, 0.5, 0.1]])
    there = torch.tensor([[True, False, True, True]])
    value = loss(s, labels, there)
    assert float(value.detach()) == pytest.approx(float(loss(S, PSI, ALL)), rel=1e-5)
    value.sum().backward()
    assert float(s.grad[0, 1]) == 0
    assert bool(s.grad.isfinite().all())


def test_equal_labels_make_no_pair_and_equal_scores_still_have_ranks():
    zeros = torch.zeros(1, 3)
    assert ranks(zeros, ALL).tolist() == [[1, 2, 3]]
    assert float(dcg_lambda_weights(zeros, PSI, ALL).sum()) > 0, "training would never begin"
    level = torch.full((1, 3), 0.5)
    for loss in (pair_logistic_loss, pair_hinge_loss, lambda_loss, list_mle_loss):
        assert float(loss(S, level, ALL)) == 0


def test_dcg_is_greatest_for_the_order_of_the_labels():
    best = dcg(PSI, PSI, ALL)
    assert float(best) > float(dcg(S, PSI, ALL)) > float(dcg(-PSI, PSI, ALL))


def test_labels_are_mean_chances_against_all():
    wins = torch.tensor([[0.5, 0.9, 0.6], [0.1, 0.5, 0.3], [0.4, 0.7, 0.5]])
    assert labels_from_pairwise(wins).tolist() == pytest.approx([2 / 3, 0.3, 1.6 / 3])
    assert labels_from_ranks(torch.tensor([2, 1, 2])).tolist() == pytest.approx([1 / 3, 5 / 6, 1 / 3])
    wins[0, 1] = 0.8
    with pytest.raises(DataError, match=r"P\(0 better than 1\) is 0\.800"):
        labels_from_pairwise(wins)
    with pytest.raises(ShapeError):
        labels_from_pairwise(torch.rand(2, 3))
    for wrong in ([[0.5, float("nan")], [0.2, 0.5]], [[0.5, 1.5], [-0.5, 0.5]]):
        with pytest.raises(DataError, match="0 better than 1"):
            labels_from_pairwise(torch.tensor(wrong))


@pytest.mark.parametrize("loss", LOSSES)
def test_labels_outside_zero_to_one_are_named(loss):
    with pytest.raises(DataError, match="label of 3") as caught:
        loss(S.expand(2, 3), torch.tensor([[0.1, 0.2, 0.3], [0.1, 3.0, 0.3]]), ALL.expand(2, 3))
    assert "list 1" in str(caught.value)
    with pytest.raises(DataError, match="label of nan"):
        loss(S, torch.tensor([[0.1, float("nan"), 0.3]]), ALL)
    with pytest.raises(ShapeError):
        loss(S, PSI[:, :2], ALL)


@pytest.mark.parametrize("loss", LOSSES)
def test_padding_may_be_anything_and_a_missing_label_is_named(loss):
    there = torch.tensor([[True, True, True, False]])
    nan = torch.tensor([[float("nan")]])
    s, labels = torch.cat([S, nan], 1).requires_grad_(True), torch.cat([PSI, nan], 1)
    value = loss(s, labels, there)
    assert float(value.detach()) == pytest.approx(float(loss(S, PSI, ALL)), rel=1e-5)
    value.sum().backward()
    assert bool(s.grad.isfinite().all())
    assert float(s.grad[0, 3]) == 0
    with pytest.raises(DataError, match="label of nan for outcome 3"):
        loss(s, labels, torch.ones(1, 4, dtype=torch.bool))


def test_a_missing_chance_is_no_label():
    with pytest.raises(DataError, match="sum to 1"):
        labels_from_pairwise(torch.tensor([[0.5, float("nan")], [0.5, 0.5]]))
