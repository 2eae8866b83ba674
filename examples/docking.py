"""An environment of your own, from its class to a trained and measured policy.

A cart on a rail is to come to rest at a mark. The environment itself is plain Gymnasium and knows nothing of
Policysmith; it is the worked example of docs/guides/your-environment.md.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from policysmith.evaluation.comparison import episode_seeds
from policysmith.evaluation.rollouts import Rollouts, roll_out
from policysmith.evaluation.statistics import success_interval
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.policies.protocol import Policy
from policysmith.systems import sdp
from policysmith.training.loop import finish
from policysmith.worlds import registry

NAME = "docking:Docking-v0"
"""The module to import, and the name it registers."""
STEP = 0.1
"""Seconds between two decisions."""
STEPS = 60
"""Decisions in an episode."""


class Docking(gymnasium.Env):
    """Push a cart along a rail until it rests at a mark.

    Observation: position, speed and mark, float32 [3]. Action: float32 [1] in [-1, 1], a push. Reward: minus
    the distance to the mark. `info["success"]` says whether the cart rests there.
    """

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a start and a mark from the seed."""
        super().reset(seed=seed)
        self.position, self.mark = self.np_random.uniform(-1.0, 1.0, size=2)
        self.speed = 0.0
        self.steps = 0
        return self._observation(), {"success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Push for a tenth of a second; the rail slows the cart down a little."""
        push = float(np.clip(action[0], -1.0, 1.0))
        self.speed += STEP * (2.0 * push - 0.5 * self.speed)
        self.position += STEP * self.speed
        self.steps += 1
        distance = abs(self.mark - self.position)
        success = distance < 0.05 and abs(self.speed) < 0.1
        return self._observation(), -distance, False, self.steps >= STEPS, {"success": success}

    def _observation(self) -> np.ndarray:
        return np.array([self.position, self.speed, self.mark], dtype=np.float32)


# Once: a file that runs as a program is imported a second time, by its name.
if "Docking-v0" not in gymnasium.registry:
    gymnasium.register(id="Docking-v0", entry_point="docking:Docking")


def expert(observation: np.ndarray) -> np.ndarray:
    """A controller written by hand: push towards the mark, and brake."""
    position, speed, mark = observation
    return np.clip([3.0 * (mark - position) - 2.0 * speed], -1.0, 1.0).astype(np.float32)


def learn(steps: int = 600) -> Policy:
    """Record 50 demonstrations of the expert, and train on them."""
    wanted = Demonstrations(NAME, episodes=50, action_noise=0.1, expert="docking:expert")
    episodes = Episodes.from_arrays(wanted.record())
    config = dataclasses.replace(
        sdp.PRESETS["bench"],
        horizon=8,
        action_steps=2,
        noise_levels=10,
        widths=(32, 64),
        batch_size=64,
        steps=steps,
    )
    return finish(sdp.train(episodes, config=config)).policy()


def measure(policy: Policy, episodes: int = 50) -> Rollouts:
    """Play fresh episodes, each from a seed of its own."""
    return roll_out(policy, lambda: registry.make(NAME), seeds=episode_seeds(0, episodes))


if __name__ == "__main__":
    rollouts = measure(learn())
    print("success:", success_interval(rollouts.success[None].astype(float)))
