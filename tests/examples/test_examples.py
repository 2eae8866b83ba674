"""The worked examples of the guides do what the guides say."""

from __future__ import annotations

from pathlib import Path

import control_loop
import gaussian_cloning as example
import pytest

from policysmith.common.errors import StaleError
from policysmith.evaluation.conformance import ENVIRONMENT, check_presets, check_training, standard_inputs
from policysmith.evaluation.rollouts import roll_out
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.training.loop import finish
from policysmith.worlds import registry

ROOT = Path(__file__).parents[2]


def test_the_guides_system_conforms(tmp_path):
    check_presets(example)
    check_training(example, standard_inputs(("episodes",), tmp_path), tmp_path)


@pytest.fixture(scope="module")
def cloned():
    """The guide's policy, trained to reach."""
    episodes = Episodes.from_arrays(Demonstrations(ENVIRONMENT, episodes=60, action_noise=0.1).record())
    config = example.Config(steps=400, batch_size=64, learning_rate=3e-3)
    policy = finish(example.train(episodes, config=config)).policy()
    policy.deterministic = True
    return policy


def test_the_guides_system_learns_to_reach(cloned):
    rollouts = roll_out(cloned, lambda: registry.make(ENVIRONMENT), seeds=range(10, 30))
    assert rollouts.success.mean() >= 0.6


def test_the_guide_shows_the_example_as_it_is():
    guide = (ROOT / "docs" / "write-a-system.md").read_text(encoding="utf-8")
    source = (ROOT / "examples" / "gaussian_cloning.py").read_text(encoding="utf-8")
    body = source[source.index("    with seeded_initialisation(seed):") :].rstrip()
    assert body in guide


class Clock:
    """Moves when somebody sleeps."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_the_control_loop_reaches_goals_and_keeps_its_rate(cloned, tmp_path):
    cloned.save_pretrained(tmp_path)
    reached = []
    for seed in range(10):
        clock = Clock()
        robot = control_loop.PointRobot(seed=seed, clock=clock)
        report = control_loop.control(tmp_path, robot, clock=clock, sleep=clock.sleep)
        reached.append(robot.reached)
        assert report.late == 0
        assert clock.slept == pytest.approx([0.1] * report.ticks)
    assert sum(reached) >= 6


def test_the_control_loop_stops_where_the_camera_has_stopped(cloned, tmp_path):
    cloned.save_pretrained(tmp_path)
    clock = Clock()
    robot = control_loop.PointRobot(clock=lambda: 0.0)  # the camera gives its first picture for ever
    with pytest.raises(StaleError, match=r"0.300 s old"):
        control_loop.control(tmp_path, robot, clock=clock, sleep=clock.sleep)


def test_the_guide_shows_the_control_loop_as_it_is():
    guide = (ROOT / "docs" / "guides" / "control-loop.md").read_text(encoding="utf-8")
    source = (ROOT / "examples" / "control_loop.py").read_text(encoding="utf-8")
    loop = source[source.index("def control(") : source.index("\n\nif __name__")].rstrip()
    assert loop in guide
