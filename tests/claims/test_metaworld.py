"""The experiment on Meta-World's experts: what is pooled, what is asked for, what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("metaworld")

from policysmith.claims import metaworld
from policysmith.claims.records import find_record
from policysmith.cli.pages import claim_plot
from policysmith.common.stages import result_of
from policysmith.evaluation.suites import SuiteResult
from policysmith.worlds.metaworld import MetaWorldExpert

TASKS = tuple(f"task-{i}-v3" for i in range(20))


def measured(success: np.ndarray) -> SuiteResult:
    """A result of as many goals as `success` [task, goal] says."""
    flags = success[..., None].astype(bool)
    nothing = np.zeros((*success.shape, 0), bool)
    return SuiteResult(
        "MT50", "train", 0, 500, "v2", "one episode per goal", TASKS, flags, flags.astype(float), nothing
    )


@pytest.fixture
def experiment(monkeypatch):
    """The claim as it is for given successes of the experts; random actions never succeed."""

    def run(success: np.ndarray, **settings):
        def played(policy, suite, *, goals, **_):
            assert (suite.name, goals) == ("MT50", success.shape[1])
            yield from ()
            return measured(success * (policy is MetaWorldExpert))

        monkeypatch.setattr(metaworld, "mt_evaluate", played)
        return result_of(
            metaworld.reproduce(seeds=[0, 1, 2], folder=Path(), evaluate=success.shape[1], **settings)
        )

    return run


def test_experts_that_solve_everything_bear_the_claim_out(experiment):
    claim = experiment(np.ones((20, 10)))
    assert claim.verdict == "holds"
    assert [arm.name for arm in claim.arms] == [metaworld.ALL, *TASKS, metaworld.THRESHOLD]
    assert [run.metrics[metaworld.EXPERTS] for run in claim.arms[0].runs] == [1.0] * 3
    assert claim.comparisons[0].difference.value == pytest.approx(0.1)


def test_a_task_in_five_that_its_expert_cannot_solve_does_not(experiment):
    success = np.ones((20, 10))
    success[::5] = 0
    claim = experiment(success)
    assert claim.arms[0].summary[metaworld.EXPERTS].value == pytest.approx(0.8)
    assert claim.verdict == "undecided"  # with other tasks it might be nine in ten
    success[::2] = 0
    assert experiment(success).verdict == "fails"


def test_a_tasks_interval_is_of_all_draws_of_its_goals(experiment):
    success = np.ones((20, 10))
    success[3, :5] = 0
    arm = experiment(success).arms[4]
    assert (arm.name, arm.summary[metaworld.EXPERTS].value) == ("task-3-v3", 0.5)
    # Wilson's interval of 15 in 30
    z2 = 1.959964**2
    half = np.sqrt(0.25 * z2 / 30 + z2**2 / (4 * 900)) / (1 + z2 / 30)
    assert arm.summary[metaworld.EXPERTS].low == pytest.approx(0.5 - half, abs=1e-6)


def test_the_plot_is_of_the_tasks_alone(experiment):
    caption, draw = claim_plot(experiment(np.ones((20, 10))))
    labels = [label.get_text() for label in draw().axes[0].get_yticklabels()]
    assert labels == [f"task-{i}" for i in range(20)]
    assert "fifty tasks" in caption
    assert draw() is not draw()


def test_experiments_without_a_plot_of_their_own_show_score_against_cost():
    record = find_record("sdp")
    assert record is not None
    caption, draw = claim_plot(record)
    assert "cost" in caption
    assert draw().axes[0].get_ylabel() == "success"


def test_the_ablation_sets_random_actions_beside_the_experts(experiment):
    claim = experiment(np.ones((20, 10)), ablations=True)
    assert claim.verdict == "holds"
    for arm in claim.arms[:-1]:
        assert (arm.summary[metaworld.EXPERTS].value, arm.summary[metaworld.RANDOM].value) == (1, 0)
    legend = claim_plot(claim)[1]().legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["the experts", "random actions"]


def test_random_actions_fill_the_action_space():
    player = metaworld.RandomActions(None)
    actions = np.stack([player.act(None) for _ in range(500)])
    assert actions.shape == (500, 4)
    assert -1 <= actions.min() < -0.95
    assert 0.95 < actions.max() <= 1
    assert abs(actions.mean()) < 0.05


def test_the_committed_record_is_of_all_fifty_tasks():
    record = find_record("metaworld")
    assert record is not None
    tasks = [arm for arm in record.arms if arm.name not in (metaworld.ALL, metaworld.THRESHOLD)]
    assert len(tasks) == 50
    mean = np.mean([arm.summary[metaworld.EXPERTS].value for arm in tasks])
    assert record.arms[0].summary[metaworld.EXPERTS].value == pytest.approx(mean)
