"""The compliant controller: it tracks in free space and does not push through a wall."""

import numpy as np
import pytest

from policysmith.common.errors import SettingError
from policysmith.policies.impedance import impedance_force

SPRING = {"stiffness": 2000.0, "damping": 90.0}


def test_the_terms_add_up_per_axis():
    force = impedance_force(
        np.array([0.001, 0.02]),
        np.array([0.1, 0.0]),
        stiffness=[1000, 2000],
        damping=10,
        largest_error=0.005,
        feedforward=[0, 1],
        coriolis=[0.5, 0],
    )
    assert force.tolist() == pytest.approx([1 + 1 + 0.5, 10 + 1])


def simulate(target, *, wall=np.inf, largest_error=np.inf, seconds=3.0, tick=1e-3):
    """A mass of 1 kg under the controller at 1 kHz; returns where it ends and the most it pushed a wall."""
    position, velocity, push = 0.0, 0.0, 0.0
    for _ in range(int(seconds / tick)):
        force = impedance_force(
            np.array([target - position]), np.array([-velocity]), largest_error=largest_error, **SPRING
        )[0]
        velocity += force * tick
        position += velocity * tick
        if position >= wall:
            position, velocity = wall, 0.0
            push = max(push, force)
    return position, push


def test_it_reaches_its_target_in_free_space_with_the_error_clipped():
    assert simulate(0.1, largest_error=0.005)[0] == pytest.approx(0.1, abs=1e-4)


def test_the_clip_bounds_the_force_on_what_is_in_the_way():
    hard, soft = (simulate(0.1, wall=0.05, largest_error=most)[1] for most in (np.inf, 0.005))
    assert hard == pytest.approx(2000 * 0.05, rel=0.01)
    assert soft == pytest.approx(2000 * 0.005, rel=0.01)


def test_negative_springs_are_refused():
    with pytest.raises(SettingError, match="damping"):
        impedance_force(np.zeros(1), np.zeros(1), stiffness=1, damping=-1)
