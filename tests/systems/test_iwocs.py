"""IWOCS on the small world: worlds in turn, thresholds by their worst case, and going on from anywhere."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from policysmith.common.errors import CapabilityError, NotFiniteError, SettingError, UnknownNameError
from policysmith.common.saving import load_tree, save_tree
from policysmith.policies.protocol import load_policy
from policysmith.systems import iwocs
from policysmith.systems.iwocs import PRESETS, train
from policysmith.training.learners.robust import REPEATED
from policysmith.worlds import registry
from policysmith.worlds.point import PointReach

MAKE = partial(registry.make, "point-reach")
TINY = PRESETS["tiny"]


@pytest.fixture
def searches(monkeypatch):
    """The searches' answers, in order, in place of what episodes would say; each is (point, value)."""

    def answer(*given):
        left = iter(given)

        def found(score, box, **settings):
            point, value = next(left)
            return iwocs.Found(np.array([point]), value, np.array([[point]]), np.array([value]))

        monkeypatch.setattr(iwocs, "grid_search", found)
        return left

    return answer


def test_the_runs_are_in_the_worst_worlds_in_turn(searches):
    left = searches((0.05, -9.0), (0.2, -5.0), (0.2, -5.0), (0.1, -4.0), (0.1, -4.0))
    last = list(train(MAKE, config=replace(TINY, worlds=2), seed=0))[-1]
    state = last.state
    assert state.points == [(0.05,), (0.2,), (0.1,)]
    assert [expert.point for expert in state.policy().experts] == [(0.05,), (0.2,)]
    assert state.worst == [-9.0, -5.0, -4.0]
    assert last.metrics["worst_return"] == -4.0
    assert last.step == last.total == 12
    assert not list(left)


def test_the_threshold_with_the_best_worst_world_is_kept(searches):
    searches((0.05, -9.0), (0.2, -7.0), (0.1, -5.0))
    state = list(train(MAKE, config=TINY, seed=0))[-1].state
    assert float(state.policy().experts[0].threshold) == 0.5
    assert state.points[-1] == (0.1,)
    searches((0.05, -9.0), (0.2, -5.0), (0.1, -5.0))
    state = list(train(MAKE, config=TINY, seed=0))[-1].state
    assert float(state.policy().experts[0].threshold) == pytest.approx(0.05)


def test_a_worst_world_that_was_solved_ends_the_sequence(searches):
    searches((0.05, -9.0), (0.05, -5.0), (0.2, -6.0))
    progress = list(train(MAKE, config=replace(TINY, worlds=3), seed=0))
    assert progress[-1].state.phase == REPEATED
    assert progress[-1].step == progress[-1].total == 8  # of 16
    assert list(train(MAKE, config=replace(TINY, worlds=3), seed=0, state=progress[-1].state)) == []


@pytest.fixture
def restless(monkeypatch):
    """Searches go to a point that hangs on all that was measured, so that worlds differ from one another."""
    search = iwocs.grid_search

    def found(score, box, *, points):
        real = search(score, box, points=points)
        point = 0.05 + 0.15 * (float(np.abs(real.values).sum()) * 1e3 % 1)
        return replace(real, point=np.array([point]))

    monkeypatch.setattr(iwocs, "grid_search", found)


@pytest.mark.parametrize("cut", [1, 4, 6, 8, 10])
def test_a_run_goes_on_from_any_step_to_the_same_policy(cut, tmp_path, restless):
    config = replace(TINY, worlds=2, sac=replace(TINY.sac, random_steps=4))
    whole = train(MAKE, config=config, seed=3)
    half = list(itertools.islice(whole, cut))[-1]
    save_tree(tmp_path / "state.safetensors", half.state.state_dict())
    uninterrupted = list(whole)
    assert uninterrupted[-1].step == 12
    saved = load_tree(tmp_path / "state.safetensors")
    resumed = list(train(MAKE, config=config, seed=3, state=saved))
    assert [now.metrics for now in resumed] == [now.metrics for now in uninterrupted]
    mine, theirs = resumed[-1].state.policy(), uninterrupted[-1].state.policy()
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(mine.state_dict()[name], value) for name, value in theirs.state_dict().items())


def test_every_run_is_in_its_own_world():
    lengths = []

    class Watched(PointReach):
        def step(self, action):
            lengths.append(self.step_length)
            return super().step(action)

    config = replace(TINY, grid_points=2, sac=replace(TINY.sac, random_steps=100))
    sequence = train(Watched, config=config, seed=0)
    lengths.clear()  # what the check of the parameters played
    list(itertools.islice(sequence, 4 - 1))
    assert len(lengths) == 12
    assert len(set(lengths)) == 1 or min(lengths) >= 0.05
    last = next(sequence)  # and the search
    point = last.state.points[0][0]
    assert {0.05, 0.2} <= set(lengths)
    lengths.clear()
    list(itertools.islice(sequence, 3))
    assert set(lengths) == {point}


def test_before_the_first_world_the_default_acts(tmp_path):
    first = next(train(MAKE, config=TINY, seed=0))
    policy = first.state.policy()
    assert len(policy.experts) == 0
    assert policy.default is not None
    policy.save_pretrained(tmp_path / "policy")
    assert load_policy(tmp_path / "policy").parameter_names == ("step length",)


def test_the_published_box_is_used_where_none_is_given():
    pytest.importorskip("mujoco")
    make = partial(registry.make, "InvertedPendulum-v5")
    assert iwocs.uncertain(make, iwocs.Config()).names == ("pole mass", "cart mass")
    with pytest.raises(SettingError, match="between 1 and 2"):
        iwocs.uncertain(make, iwocs.Config(dimensions=3))
    with pytest.raises(UnknownNameError, match="which parameters are uncertain"):
        iwocs.uncertain(MAKE, iwocs.Config())


def test_a_parameter_that_changes_nothing_is_warned_of():
    class Deaf(PointReach):
        def set_physics(self, parameters):
            pass

    with pytest.warns(UserWarning, match="uncertainty parameter has no effect: step length"):
        train(Deaf, config=TINY, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(MAKE, config=TINY, seed=0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"worlds": 0}, "at least 1"),
        ({"search_episodes": 0}, "at least 1"),
        ({"thresholds": ()}, "0 or more"),
        ({"thresholds": (-1.0,)}, "0 or more"),
        ({"sac": replace(TINY.sac, n_step=3)}, "one step"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(SettingError, match=says):
        replace(TINY, **settings)


def test_a_box_that_is_none_names_its_parameter():
    with pytest.raises(ValueError, match="'step length'"):
        train(MAKE, config=replace(TINY, low=(0.3,)), seed=0)
    with pytest.raises(SettingError, match="1 parameters with 1 low and 0 high"):
        train(MAKE, config=replace(TINY, high=()), seed=0)


def test_a_world_whose_physics_cannot_be_set_is_refused():
    with pytest.raises(CapabilityError, match="set_physics"):
        train("Pendulum-v1", config=TINY, seed=0)


def test_a_return_that_is_not_finite_names_the_world():
    class Blown(PointReach):
        def step(self, action):
            seen, reward, *rest = super().step(action)
            return seen, reward if self.step_length < 0.2 else float("nan"), *rest

    config = replace(TINY, default_steps=4)  # a single step in a world that is drawn
    with pytest.raises(NotFiniteError, match=r"step length 0\.2"):
        list(train(Blown, config=config, seed=0))


def test_the_steps_are_those_of_all_runs():
    assert TINY.steps == 8
    assert PRESETS["paper"].steps == 1_600_000 + 3 * 800_000
