"""Semantic entropy by hand, and what clusters are made of."""

import math

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.objectives.semantic_entropy import semantic_clusters, semantic_entropy, uncertainty_factor

TWO_ONE_ONE = torch.tensor([0, 0, 1, 2])


def test_by_numbers_of_answers():
    se = semantic_entropy(TWO_ONE_ONE, kind="frequency")
    assert se == pytest.approx(1.039721, abs=1e-6)
    assert se / math.log(4) == pytest.approx(0.75)
    assert uncertainty_factor(se, 4, alpha=1, kind="linear") == pytest.approx(0.25)
    assert uncertainty_factor(se, 4, alpha=1, kind="exponential") == pytest.approx(0.472367, abs=1e-6)


def test_by_likelihood():
    log_prob = torch.tensor([-0.5, -0.6, -1.0])
    labels = torch.tensor([0, 0, 1])
    se = semantic_entropy(labels, log_prob)
    assert se == pytest.approx(0.552819, abs=1e-6)
    assert semantic_entropy(labels, log_prob, kind="printed") == pytest.approx(0.848629, abs=1e-6)
    assert uncertainty_factor(se, 3, alpha=1) == pytest.approx(0.665249, abs=1e-6)
    assert uncertainty_factor(se, 3, alpha=0.0417) == pytest.approx(0.979448, abs=1e-6)


@pytest.mark.parametrize("kind", ["likelihood", "printed", "frequency"])
def test_from_full_agreement_to_none(kind):
    same, alike = torch.zeros(4, dtype=torch.long), torch.full((4,), -2.0)
    assert semantic_entropy(same, alike, kind=kind) == pytest.approx(0, abs=1e-12)
    assert semantic_entropy(torch.arange(4), alike, kind=kind) == pytest.approx(math.log(4))
    assert uncertainty_factor(math.log(4), 4, alpha=1) == pytest.approx(0.5)


def test_answers_cluster_by_meaning_and_unreadable_ones_stay_alone():
    answers = ["10", "10.0", None, "11", None, "10"]
    same = lambda a, b: float(a) == float(b)  # noqa: E731
    assert semantic_clusters(answers, same).tolist() == [0, 0, 1, 2, 3, 0]
    assert semantic_clusters(answers).tolist() == [0, 1, 2, 3, 4, 0]


def test_a_comparison_that_depends_on_the_order_names_the_pair():
    with pytest.raises(DataError, match="2 and 3"):
        semantic_clusters([2, 3], lambda a, b: a <= b)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(SettingError, match="one cannot disagree"):
        uncertainty_factor(0.0, 1, alpha=1)
    with pytest.raises(SettingError, match="0 or more"):
        uncertainty_factor(0.5, 4, alpha=-1)
    with pytest.raises(SettingError, match="log-probabilities"):
        semantic_entropy(TWO_ONE_ONE)
    with pytest.raises(DataError, match="4 labels for 2"):
        semantic_entropy(TWO_ONE_ONE, torch.zeros(2))
    with pytest.warns(UserWarning, match="held at 0"):
        uncertainty_factor(1.0, 4, alpha=2, kind="linear")
