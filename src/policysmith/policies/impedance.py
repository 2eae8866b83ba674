"""Compliant tracking: a spring and damper that never pull harder than at a small error.

    F = K clip(e) + D e' + feedforward + Coriolis

With the error clipped at a few millimetres per axis the force against an obstacle is at most K times that,
however far beyond it the policy's target lies, while free motion is tracked as if nothing were clipped. It
runs at the rate of the robot's own controller, far above the policy's.

Source: Luo et al. 2024 (SERL), section IV-F.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from policysmith.common.errors import SettingError


def impedance_force(
    error: Float[np.ndarray, "*batch axis"],
    error_rate: Float[np.ndarray, "*batch axis"],
    *,
    stiffness: ArrayLike,
    damping: ArrayLike,
    largest_error: ArrayLike = np.inf,
    feedforward: ArrayLike = 0.0,
    coriolis: ArrayLike = 0.0,
) -> Float[np.ndarray, "*batch axis"]:
    """The force (and torque) per axis for a target that is `error` away and recedes by `error_rate`.

    `stiffness`, `damping` and `largest_error` are numbers for all axes or one for each, in units that fit one
    another (N/m, N s/m, m; Nm/rad... for rotations). Raises `SettingError` for negative ones.
    """
    named = {"stiffness": stiffness, "damping": damping, "largest_error": largest_error}
    spring, damper, most = (np.asarray(value, float) for value in named.values())
    for name, value in zip(named, (spring, damper, most), strict=True):
        if not (value >= 0).all():
            raise SettingError(f"{name} is {value.tolist()}", expected="0 or more")
    further = np.asarray(feedforward, float) + np.asarray(coriolis, float)
    return spring * np.clip(error, -most, most) + damper * error_rate + further
