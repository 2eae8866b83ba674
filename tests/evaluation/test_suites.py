"""The protocol of Meta-World's suites: what is played, what counts, and what may stand beside each other."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("metaworld")

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.common.stages import Stage, result_of
from policysmith.evaluation.suites import (
    SuiteResult,
    check_alike,
    meta_evaluate,
    mt_evaluate,
    suite_findings,
)
from policysmith.policies.actors import gaussian_actor
from policysmith.policies.protocol import Policy
from policysmith.worlds.metaworld import MetaWorldExpert
from policysmith.worlds.metaworld_suites import Suite, make_suite


class Still(Policy):
    """Stays where it is, and notes what it saw and how its trials went."""

    action_size = 4

    def __init__(self, observation_size: int) -> None:
        super().__init__()
        self.observation_size = observation_size
        self.seen: list[torch.Tensor] = []
        self.begun = 0

    def new_episode(self, state, mask):
        self.begun += int(mask.sum())
        return state

    def act(self, observation, state, *, rng):
        self.check_batch(observation, state)
        self.seen.append(observation[:, -1])
        return torch.zeros(len(observation), 1, 4), state


def suite(name: str, **settings) -> Suite:
    return make_suite(name, 1, task="reach-v3", **settings)


def made_up(success, **settings) -> SuiteResult:
    flags = np.array(success, bool)
    tasks = tuple(f"task {i}" for i in range(len(flags)))
    nothing = np.zeros((*flags.shape[:2], 0), bool)
    result = SuiteResult(
        "MT", "train", 0, 500, "v2", "one episode per goal", tasks, flags, flags.astype(float), nothing
    )
    return replace(result, **settings)


# ---- multi-task --------------------------------------------------------------------------------------


def test_an_expert_solves_every_goal_at_any_step():
    stages = mt_evaluate(MetaWorldExpert, suite("MT1", goals=3, horizon=80), goals=3)
    assert next(stages) == Stage("play reach-v3", 0, 1)
    result = result_of(stages)
    assert result.tasks == ("reach-v3",)
    assert result.success.shape == (1, 3, 1)
    assert result.success.all()
    assert (result.suite, result.seed, result.reward_version) == ("MT1 reach-v3", 1, "v2")


def test_every_task_is_played_with_its_own_number():
    names = ("reach-v3", "push-v3")
    policy = Still(41)
    two = Suite("two", names, names, multi_task=True, goals=2, horizon=3)
    result = result_of(mt_evaluate(policy, two, goals=2))
    numbers = torch.cat([seen[:, 39:] for seen in policy.seen])
    assert numbers[:6].tolist() == [[1, 0]] * 6
    assert numbers[6:].tolist() == [[0, 1]] * 6
    assert result.returns.shape == (2, 2, 1)
    assert not result.success.any()


def test_the_goals_played_are_the_first_of_the_suite():
    policy, several = Still(39), suite("MT1", goals=3, horizon=1)
    result_of(mt_evaluate(policy, several, goals=2, parallel=1))
    wanted = several.train[0].placements[:2, 3:].astype(np.float32)
    assert np.array_equal(torch.cat(policy.seen)[:, 36:].numpy(), wanted)


def test_the_same_call_gives_the_same_numbers():
    policy = gaussian_actor(39, 4)
    one, two = (result_of(mt_evaluate(policy, suite("MT1", goals=2, horizon=5), goals=2)) for _ in range(2))
    assert one.to_json() == two.to_json()


# ---- meta --------------------------------------------------------------------------------------------


def test_a_trial_is_exploration_and_then_the_episodes_that_count():
    policy = Still(45)
    result = result_of(
        meta_evaluate(
            policy,
            suite("ML1", goals=3, horizon=2),
            goals=3,
            adaptation_steps=2,
            adaptation_episodes=2,
            evaluation_episodes=3,
            batch=2,
        )
    )
    assert result.split == "test"
    assert result.success.shape == (1, 3, 3)
    assert result.exploration.shape == (1, 3, 4)
    # Seven episodes for each of three goals, of which the first of a trial is no `new_episode`.
    assert policy.begun == 3 * 6
    assert sum(len(seen) for seen in policy.seen) == 3 * 7 * 2
    seen = torch.cat(policy.seen)
    assert torch.equal(seen[:, 36:39], torch.zeros(len(seen), 3))
    # What an action led to is seen at the next, also of the next episode, but not of the next trial.
    assert (seen[:, 43] > 0).sum() == 3 * (7 * 2 - 1)


def test_experts_know_the_goal_that_is_hidden_from_policies():
    result = result_of(
        meta_evaluate(
            MetaWorldExpert,
            suite("ML1", goals=2, horizon=80),
            goals=2,
            adaptation_episodes=1,
            evaluation_episodes=1,
            batch=2,
        )
    )
    assert result.success.all()
    assert result.exploration.all()


@pytest.mark.parametrize(
    "settings",
    [{"adaptation_episodes": 0}, {"evaluation_episodes": 0}, {"batch": 0}, {"goals": 4}, {"goals": 0}],
)
def test_numbers_of_episodes_that_make_no_trial_are_refused(settings):
    with pytest.raises(SettingError):
        result_of(meta_evaluate(Still(39), suite("ML1", goals=3), **{"goals": 3, **settings}))


def test_a_meta_batch_has_equally_many_of_every_task():
    with pytest.raises(SettingError, match="multiple of 5"):
        result_of(meta_evaluate(Still(39), make_suite("ML10"), batch=12))


# ---- what fits what ----------------------------------------------------------------------------------


def test_a_policy_of_another_width_is_told_which_widths_there_are():
    with pytest.raises(ShapeError, match="39, or 40 with the task"):
        result_of(mt_evaluate(Still(49), suite("MT1")))
    with pytest.raises(ShapeError, match="39, or 45 with the last action"):
        result_of(meta_evaluate(Still(40), suite("ML1")))


def test_each_kind_of_suite_has_its_own_protocol():
    with pytest.raises(SettingError, match="meta_evaluate"):
        result_of(mt_evaluate(Still(39), suite("ML1")))
    with pytest.raises(SettingError, match="mt_evaluate"):
        result_of(meta_evaluate(Still(39), suite("MT1")))
    with pytest.raises(SettingError, match="60 goals"):
        result_of(mt_evaluate(Still(39), suite("MT1"), goals=60))


# ---- reports -----------------------------------------------------------------------------------------


def test_the_headline_is_the_mean_over_tasks():
    result = made_up([[[1], [1], [1], [1]], [[0], [0], [0], [1]]])
    assert result.rate.value == pytest.approx((1 + 0.25) / 2)
    assert result.task_rate("task 1").value == 0.25
    # Wilson's interval of four in four reaches down to 4 / (4 + 1.96^2).
    assert result.task_rate("task 0").low == pytest.approx(4 / (4 + 1.959964**2), abs=1e-6)
    below = np.hypot(*(one.value - one.low for one in result.task_rates.values())) / 2
    assert result.rate.low == pytest.approx(0.625 - below)
    assert result.rate_over_tasks.low < result.rate.low
    assert result.rate_over_tasks.high == 1.0
    alike = made_up([[[0], [0]], [[0], [0]]])
    assert alike.rate_over_tasks == alike.rate  # tasks that agree do not make it certain


def test_episodes_of_one_goal_do_not_count_as_independent():
    alike = made_up([[[1, 1, 1], [0, 0, 0]] * 10])
    mixed = made_up([[[1, 0, 1], [0, 1, 0]] * 10])
    assert alike.rate.value == mixed.rate.value == 0.5
    assert alike.rate.width > 1.5 * mixed.rate.width


def test_findings_say_everything_and_hold_as_json():
    explored = np.array([[[0, 0], [1, 0]], [[0, 1], [1, 1]]], bool)
    result = made_up([[[1], [0]], [[1], [1]]], exploration=explored)
    found = suite_findings("title", {"policy": result})
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["summary"]["success"] == 0.75
    assert plain["summary"]["reward version"] == "v2"
    assert plain["results"]["policy"]["success"] == [[[True], [False]], [[True], [True]]]
    tasks, along = found.tables
    assert [row[0] for row in tasks.rows] == ["task 0", "task 1"]
    assert along.rows == [[1, 0.5], [2, 0.5], [3, 0.75]]


def test_policies_stand_beside_each_other_where_they_were_measured_alike():
    one, two = made_up([[[1], [0]]]), made_up([[[1], [1]]])
    found = suite_findings("title", {"one": one, "two": two})
    assert (found.summary["success, one"], found.summary["success, two"]) == (0.5, 1.0)
    assert list(found.tables[0].columns)[1::2] == ["success, one", "success, two"]
    with pytest.raises(DataError, match="no results"):
        suite_findings("title", {})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reward_version": "v1"}, "reward versions"),
        ({"suite": "MT10"}, "suites"),
        ({"split": "test"}, "splits"),
        ({"seed": 1}, "seeds"),
        ({"horizon": 200}, "horizons"),
        ({"protocol": "1 x 10"}, "protocols"),
        ({"success": np.zeros((1, 3, 1), bool)}, "numbers of goals"),
    ],
)
def test_results_that_were_measured_otherwise_are_not_put_beside_each_other(settings, words):
    one = made_up([[[1], [0]]])
    with pytest.raises(DataError, match=words):
        suite_findings("title", {"one": one, "two": replace(one, **settings)})
    check_alike([one, one])
