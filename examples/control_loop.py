"""Your own control loop: a saved policy drives a robot at 10 Hz.

    policysmith run sdp --env point-reach --preset bench --steps 300 --batch-size 64 --out runs/reach
    python examples/control_loop.py runs/reach

The robot here is a point that walks to a goal, behind the interface that robots have: it gives a dictionary
with its state and its camera's picture, and takes an action. Put yours in its place.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from policysmith.policies.controller import Controller
from policysmith.worlds import registry

RATE = 10.0


class PointRobot:
    """A robot to try loops on: a point, a goal and a camera above them."""

    def __init__(self, *, seed=0, clock=time.monotonic):
        self.environment = registry.make("point-reach", render_mode="rgb_array")
        self.state, _ = self.environment.reset(seed=seed)
        self.clock, self.done, self.reached = clock, False, False

    def get_observation(self):
        """What the robot knows, and when it knew it."""
        return {
            "observation.state": self.state,
            "observation.images.top": self.environment.render(),
            "timestamp": self.clock(),
        }

    def send_action(self, action):
        """Move."""
        self.state, _, terminated, truncated, info = self.environment.step(action)
        self.done, self.reached = terminated or truncated, bool(info["success"])


def control(folder, robot, *, clock=time.monotonic, sleep=time.sleep):
    """Let the policy saved in `folder` drive `robot` until it is done; returns how the ticks went."""
    controller = Controller.load(
        folder,
        rate=RATE,
        low=-1.0,
        high=1.0,
        largest_change=0.8,  # per tick, in the action's units
        stale_after=0.25,  # seconds: a picture older than that is not looked at ...
        when_stale="continue",  # ... the planned actions are played, and when there are none: StaleError
        threads=1,
        clock=clock,
    )
    controller.reset(last_action=np.zeros(2))  # the robot stands still
    tick = clock()
    while not robot.done:
        seen = robot.get_observation()
        observation = {"state": seen["observation.state"], "top": seen["observation.images.top"]}
        robot.send_action(controller.act(observation, time=seen["timestamp"]))
        tick = max(tick + 1 / RATE, clock())  # a late tick moves those after it, instead of crowding them
        sleep(max(0.0, tick - clock()))
    return controller.report()


if __name__ == "__main__":
    point = PointRobot()
    print(control(sys.argv[1], point))
    print("reached the goal" if point.reached else "did not reach the goal")
