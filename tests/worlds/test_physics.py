"""The same task in other worlds: physics are set, hold for an episode, and are drawn by its seed."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from policysmith.common.errors import CapabilityError, SettingError, UnknownNameError
from policysmith.worlds.physics import (
    ROBUST_TASKS,
    RandomPhysics,
    robust_box,
    set_physics,
    with_physics,
    without_effect,
)
from policysmith.worlds.point import PointReach
from policysmith.worlds.uncertainty import Parameter, UncertaintyBox

STEP = UncertaintyBox((Parameter("step length", 0.05, 0.2),))


def walked(env, *, seed=0):
    """How far the first step of an episode moves the point."""
    start, _ = env.reset(seed=seed)
    after, *_ = env.step(np.array([-1.0 if start[0] > 0.5 else 1.0, 0.0]))
    return abs(after[0] - start[0])


def test_an_environment_of_ones_own_takes_part_by_a_method():
    assert walked(with_physics(PointReach(), {"step length": 0.2})) == pytest.approx(0.2)
    assert walked(PointReach()) == pytest.approx(0.1)


def test_the_world_stays_what_was_asked_for_over_episodes():
    env = with_physics(PointReach(), {"step length": 0.2})
    set_physics(env, {"step length": 0.05})  # somebody else moved it meanwhile
    assert walked(env) == pytest.approx(0.2)


def test_random_worlds_are_drawn_by_the_seed_and_stay_for_the_episode():
    env = RandomPhysics(PointReach(), STEP)
    lengths = []
    for seed in range(50):
        step = walked(env, seed=seed)
        assert step == pytest.approx(env.parameters["step length"], abs=1e-6)
        lengths.append(env.parameters["step length"])
        env.step(np.zeros(2))
        assert env.parameters["step length"] == lengths[-1]
    assert min(lengths) < 0.08 < 0.17 < max(lengths)
    assert walked(env, seed=7) == pytest.approx(lengths[7], abs=1e-6)
    env.reset()
    assert env.parameters["step length"] != lengths[7]


def test_a_parameter_that_changes_nothing_is_found():
    class Deaf(PointReach):
        def set_physics(self, parameters):
            super().set_physics({"step length": parameters["step length"]})

    box = UncertaintyBox((*STEP.parameters, Parameter("colour", 0, 1)))
    assert without_effect(lambda parameters: with_physics(Deaf(), parameters), box) == ["colour"]
    assert without_effect(lambda parameters: PointReach(), STEP) == ["step length"]


def test_a_world_whose_physics_cannot_be_set_says_what_would_do():
    with pytest.raises(CapabilityError, match="set_physics"):
        with_physics(gymnasium.make("CartPole-v1"), {"pole mass": 1.0})


@pytest.mark.parametrize("length", [0.0, -1.0, float("nan")])
def test_a_step_length_that_is_none_is_refused(length):
    with pytest.raises(SettingError, match="step length"):
        with_physics(PointReach(), {"step length": length})
    with pytest.raises(UnknownNameError, match="mass"):
        with_physics(PointReach(), {"mass": length})


def test_the_published_boxes_are_of_two_or_three_parameters():
    assert robust_box("InvertedPendulum-v5").grid(2).tolist() == [[1, 1], [1, 11], [31, 1], [31, 11]]
    assert robust_box("HumanoidStandup-v5", dimensions=3).names[2] == "left_thigh mass"
    with pytest.raises(SettingError, match="between 1 and 2"):
        robust_box("InvertedPendulum-v5", dimensions=3)
    with pytest.raises(UnknownNameError, match="InvertedPendulum"):
        robust_box("Swimmer-v5")


# ---- MuJoCo ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ROBUST_TASKS)
def test_every_parameter_of_a_published_box_exists_and_has_an_effect(task):
    pytest.importorskip("mujoco")
    box = robust_box(f"{task}-v5", dimensions=len(ROBUST_TASKS[task]))

    def make(parameters):
        return with_physics(gymnasium.make(f"{task}-v5"), parameters)

    assert without_effect(make, box) == []


def test_masses_and_friction_are_what_was_asked_for():
    pytest.importorskip("mujoco")
    env = with_physics(gymnasium.make("Hopper-v5"), {"torso mass": 2.0, "floor friction": 0.3})
    model = env.unwrapped.model
    assert model.body("torso").mass[0] == 2.0
    assert model.geom("floor").friction[0] == 0.3
    assert model.geom("torso_geom").friction[0] == 0.9
    # What MuJoCo derives from the masses agrees with them.
    assert model.body_subtreemass[1] == pytest.approx(model.body_mass[1:].sum())
    everything = with_physics(gymnasium.make("Hopper-v5"), {"friction": 0.3})
    assert (everything.unwrapped.model.geom_friction[:, 0] == 0.3).all()


def test_a_heavier_pole_falls_otherwise_and_the_same_one_does_not():
    pytest.importorskip("mujoco")

    def fall(mass):
        env = with_physics(gymnasium.make("InvertedPendulum-v5"), {"pole mass": mass})
        env.reset(seed=0)
        return np.array([env.step(np.array([1.0]))[0] for _ in range(5)])

    np.testing.assert_array_equal(fall(2.0), fall(2.0))
    assert np.abs(fall(2.0) - fall(30.0)).max() > 0.01


def test_names_and_values_that_the_simulation_does_not_have_are_refused():
    pytest.importorskip("mujoco")
    env = gymnasium.make("InvertedPendulum-v5")
    with pytest.raises(UnknownNameError, match="no body 'torso'") as raised:
        set_physics(env, {"torso mass": 1.0})
    assert "pole" in str(raised.value)
    with pytest.raises(UnknownNameError, match="no geom 'floor'"):
        set_physics(env, {"floor friction": 1.0})
    with pytest.raises(UnknownNameError, match="'gravity'"):
        set_physics(env, {"gravity": 1.0})
    for mass in (0.0, -1.0, float("inf")):
        with pytest.raises(SettingError, match="pole mass"):
            set_physics(env, {"pole mass": mass})
