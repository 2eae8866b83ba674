"""Advantages damped by semantic entropy: one factor per prompt, from its own answers."""

import math

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.samples import Request, Samples, Written, collate
from policysmith.rewards.verifiers import after, numeric
from policysmith.training.learners.group_relative import centred, then
from policysmith.training.learners.uncertainty import group_uncertainty, shrunk_by_uncertainty

VERIFY = numeric(after("#"))


def answered(*groups: list[str], right: str = "#10") -> Samples:
    """Groups of texts; `right` has the reward 1. Every token has the log-probability -1."""
    rows = [(group, copy, text) for group, texts in enumerate(groups) for copy, text in enumerate(texts)]
    requests = [Request([1, 2], group_id=group, copy=copy, about=Prompt("5+5=")) for group, copy, _ in rows]
    written = [Written([3, 4], [-1.0, -1.0], True) for _ in rows]
    batch = collate(requests, written, pad=0, version=0)
    batch["reward"] = torch.tensor([float(text == right) for _, _, text in rows])
    return Samples(batch, requests, [text for _, _, text in rows])


def shrunk(samples: Samples, **settings) -> list[float]:
    label = then(centred(), shrunk_by_uncertainty(VERIFY.extract, VERIFY.equal, **settings))
    return label(samples).batch["advantage"][:, 0].tolist()


def test_two_one_one_by_hand():
    """Clusters of 2, 1 and 1 of four answers: the linear factor is 0.25."""
    samples = answered(["#10", "#10", "#11", "#12"])
    found = shrunk(samples, alpha=1, damping="linear", estimator="frequency")
    assert found == pytest.approx([0.125, 0.125, -0.125, -0.125])


def test_meaning_counts_and_not_spelling_and_unreadable_answers_stay_alone():
    samples = answered(["#10", "#10.0", "#1e1", "#10"], ["10", "10", "#10", "#10"])
    entropy = group_uncertainty(samples, VERIFY.extract, VERIFY.equal).entropy.tolist()
    assert entropy == pytest.approx([0.0, 1.5 * math.log(2)])  # clusters of 1, 1 and 2


def test_a_likely_answer_weighs_more():
    samples = answered(["#10", "#10", "#11"])
    for row, mean in enumerate((-0.5, -0.6, -1.0)):
        samples.batch["behaviour_log_prob"][row, 2:] = torch.tensor([mean - 0.2, mean + 0.2])
    entropy = group_uncertainty(samples, VERIFY.extract, VERIFY.equal).entropy
    assert float(entropy) == pytest.approx(0.552819, abs=1e-6)


def test_sure_prompts_keep_their_advantages_and_signs_never_change():
    samples = answered(["#10", "#10", "#10", "#11"], ["#10", "#11", "#12", "#13"])
    before = centred()(samples).batch["advantage"][:, 0].tolist()
    after_ = shrunk(samples, alpha=1)
    factor = [a / b for a, b in zip(after_, before, strict=True)]
    assert factor[4:] == pytest.approx([0.5] * 4)  # all differ: 1 / (1 + 1)
    assert factor[:4] == pytest.approx([factor[0]] * 4)
    assert 0.5 < factor[0] < 1
    assert shrunk(samples, alpha=0) == pytest.approx(before)


def test_the_groups_own_size_sets_the_most_it_can_differ():
    samples = answered(["#10", "#11"], ["#10", "#11", "#12", "#13", "#14"])
    shrunk(samples, alpha=1)
    assert samples.batch["log", "factor"].tolist() == pytest.approx([0.5] * 7)


def test_the_control_scales_all_by_the_mean_factor():
    groups = ["#10", "#10", "#10", "#11"], ["#10", "#11", "#12", "#13"]
    chosen, even = answered(*groups), answered(*groups)
    shrunk(chosen, alpha=1)
    shrunk(even, alpha=1, selective=False)
    mean = chosen.batch["log", "factor"].mean()
    torch.testing.assert_close(even.batch["log", "factor"], mean.expand(8))


def test_likelihoods_that_are_not_there_are_asked_for():
    samples = answered(["#10", "#11"])
    samples.batch["off_policy"] = torch.tensor([False, True])
    with pytest.raises(DataError, match=r"row 1(.|\n)*frequency"):
        shrunk(samples, alpha=1)
    assert len(shrunk(samples, alpha=1, estimator="frequency")) == 2


def test_one_answer_cannot_disagree():
    with pytest.raises(SettingError, match="two answers or more"):
        shrunk(answered(["#10"]), alpha=1)
