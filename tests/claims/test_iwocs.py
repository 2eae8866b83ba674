"""The experiment on IWOCS: the exact half, what is compared on the pendulum, and the record of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policysmith.claims import iwocs as experiment
from policysmith.claims.iwocs import AT_RANDOM, IN_TURN, NOMINAL, PLAIN, ROBUST, SEARCH
from policysmith.common.stages import result_of
from policysmith.evaluation.record import from_json, to_json
from policysmith.evaluation.robustness import GridResult
from policysmith.worlds.physics import RandomPhysics


def grids(*worst):
    """A run per number: a hundred worlds in which everything is survived, but for one."""
    found = []
    for number in worst:
        returns = np.full((100, 3), 200.0)
        returns[7] = number
        points = tuple({"pole mass": float(i), "cart mass": 1.0} for i in range(100))
        found.append(GridResult(points, returns))
    return found


def played(in_turn, at_random, plain):
    return {IN_TURN: grids(*in_turn), AT_RANDOM: grids(*at_random), PLAIN: grids(*plain)}


def verdicts(*worst):
    return [one.verdict for one in experiment.pendulum_comparisons(played(*worst))]


def test_the_walk_is_solved_exactly_with_two_models():
    arms = {arm.name: arm.summary for arm in experiment.walk_arms()}
    assert arms[SEARCH][experiment.WORST_VALUE].value == pytest.approx(-7.952147, abs=1e-6)
    assert arms[ROBUST][experiment.WORST_VALUE].value == pytest.approx(-7.952147, abs=1e-6)
    assert arms[NOMINAL][experiment.WORST_VALUE].value == pytest.approx(-10.294413, abs=1e-6)
    assert (arms[SEARCH][experiment.SOLVED].value, arms[ROBUST][experiment.SOLVED].value) == (2, 25)
    assert [one.verdict for one in experiment.walk_comparisons(experiment.walk_arms())] == ["holds", "holds"]


def test_without_wind_the_nominal_policy_is_the_best_and_in_the_strongest_the_worst():
    values = {
        name: experiment.walk_values(policy) for name, (policy, _) in experiment.walk_policies().items()
    }
    assert values[NOMINAL][0] == pytest.approx(-4.524381, abs=1e-6)
    assert all(values[NOMINAL][0] >= each[0] for each in values.values())
    assert all(values[NOMINAL][-1] <= each[-1] for each in values.values())


def test_a_worst_case_a_little_below_that_of_random_worlds_still_counts():
    assert verdicts((195, 196, 194), (200, 200, 200), (10, 12, 9)) == ["holds"] * 3
    assert verdicts((150, 151, 152), (200, 200, 200), (10, 12, 9)) == ["fails", "holds", "holds"]


def test_runs_that_differ_much_decide_nothing():
    assert verdicts((200, 20, 100), (60, 150, 90), (10, 100, 200))[0] == "undecided"


def test_all_arms_take_as_many_steps():
    in_turn, *baselines = experiment.arms()
    steps = in_turn.config.default_steps + in_turn.config.worlds * in_turn.config.steps_per_world
    assert [arm.config.environment_steps for arm in baselines] == [steps, steps]
    for arm in baselines:
        for name in ("hidden", "batch_size", "learning_rate", "critic_learning_rate", "every", "rate"):
            assert getattr(arm.config, name) == getattr(in_turn.config.sac, name)


def test_the_arms_are_trained_in_their_worlds():
    pytest.importorskip("mujoco")
    in_turn, at_random, plain = experiment.arms()
    assert isinstance(at_random.make(), RandomPhysics)
    assert plain.make().unwrapped.model.body("pole").mass[0] == pytest.approx(5.02, abs=0.01)
    assert in_turn.make is plain.make
    assert plain.make().spec.max_episode_steps == experiment.LONGEST
    world = experiment.make_in({"pole mass": 20.0, "cart mass": 2.0})
    assert world.unwrapped.model.body("pole").mass[0] == 20.0


def test_the_record_says_where_the_worst_was_and_comes_back_from_json(monkeypatch):
    pytest.importorskip("mujoco")
    by_arm = played((190, 195), (198, 199), (9, 10)).values()
    outcomes = iter([grid for runs in zip(*by_arm, strict=True) for grid in runs])

    class Finished:
        def train(self, **_):
            yield from ()

        def policy(self):
            return None

    monkeypatch.setattr(experiment.Pendulum, "run", lambda arm, seed, folder: Finished())
    monkeypatch.setattr(experiment, "seconds_of", lambda run: 100.0)
    monkeypatch.setattr(experiment, "on_the_grid", lambda policy, episodes: next(outcomes))
    claim = result_of(experiment.reproduce(seeds=[0, 1], folder=Path()))
    arms = {arm.name: arm for arm in claim.arms}
    assert [run.metrics[experiment.WORST] for run in arms[IN_TURN].runs] == [190, 195]
    assert arms[PLAIN].settings["worst_worlds"][0] == {"pole mass": 7.0, "cart mass": 1.0}
    assert claim.seconds == 600.0
    assert from_json(to_json(claim)) == claim
    caption, figure = experiment.plot(claim)
    assert "windy walk" in caption
    assert len(figure.axes[0].lines) == 3
    assert figure.axes[1].get_xticklabels()[0].get_text() == IN_TURN
