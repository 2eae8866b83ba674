"""Gymnasium's pendulum as a function of what is observed: what really follows a state and an action.

    speed' = speed + (3 g / 2 l sin(angle) + 3 / (m l^2) torque) dt,    angle' = angle + speed' dt
    reward = -(angle^2 + 0.1 speed^2 + 0.001 torque^2)

with g = 10, m = l = 1, dt = 0.05, and the angle 0 upright and within (-pi, pi].
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

PENDULUM = "Pendulum-v1"
TORQUE, SPEED = 2.0, 8.0
"""Largest torque and largest speed."""
STEP = 0.05
"""Seconds per step."""


def pendulum_step(
    observation: Float[Tensor, "row 3"], action: Float[Tensor, "row 1"]
) -> tuple[Float[Tensor, "row 3"], Float[Tensor, "row"]]:
    """(next observation, reward) for observations (cosine, sine, speed).

    A cosine and a sine that are not on the circle stand for the angle that they point to.
    """
    angle, speed = torch.atan2(observation[:, 1], observation[:, 0]), observation[:, 2]
    torque = action[:, 0].clamp(-TORQUE, TORQUE)
    reward = -(angle.square() + 0.1 * speed.square() + 0.001 * torque.square())
    after = (speed + (15 * angle.sin() + 3 * torque) * STEP).clamp(-SPEED, SPEED)
    angle = angle + after * STEP
    return torch.stack([angle.cos(), angle.sin(), after], dim=1), reward
