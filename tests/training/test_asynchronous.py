"""An actor beside the learner: it plays what was published last, waits for nobody but its learner, and says
what went wrong."""

import os
import signal
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from policysmith.common.errors import SettingError, StaleError
from policysmith.experience.environments import InThisProcess
from policysmith.experience.interaction import Interaction
from policysmith.experience.workers import InProcesses
from policysmith.training.asynchronous import AsynchronousActor
from policysmith.worlds import registry
from policysmith.worlds.point import PointReach


def number(value):
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, value)
    return layer


def actor(environments=None, *, play=None, **options):
    interaction = Interaction(environments or InThisProcess([PointReach]), seed=0)

    def walk(policy):
        interaction.step(np.zeros((1, 2), np.float32))
        return float(policy.weight)

    return AsynchronousActor(number(0.0), play or walk, interaction=interaction, **options)


def test_it_plays_with_what_was_published_last_and_loses_no_step():
    acting = actor(ahead=5)
    first = acting.take(5)
    acting.publish(number(1.0))
    later = [weight for _ in range(4) for weight in acting.take(5)]
    acting.close()
    assert first[:5] == [0.0] * 5
    assert later == sorted(later)
    assert later[-1] == 1.0
    assert acting.played == len(first) + len(later) + len(acting._waiting)
    assert acting.interaction.count == acting.played


def test_it_keeps_a_copy_that_the_learner_can_go_on_changing():
    acting = actor()
    policy = number(2.0)
    acting.publish(policy)
    nn.init.constant_(policy.weight, 9.0)
    assert acting.take(3)[0] == 2.0
    acting.close()


def test_it_waits_when_the_learner_is_too_far_behind():
    acting = actor(ahead=3)
    acting.start()
    time.sleep(0.3)
    assert acting.played == 3
    acting.take()
    time.sleep(0.3)
    assert acting.played == 6
    acting.close()
    assert not acting._thread.is_alive()


def test_it_keeps_its_rate_whoever_waits():
    acting = actor(rate=50.0)
    began = time.monotonic()
    acting.take(11)
    assert time.monotonic() - began >= 0.19
    acting.close()


def test_what_stops_the_actor_is_raised_where_its_steps_are_asked_for():
    def fail(policy):
        raise ValueError("the gripper is stuck")

    acting = actor(play=fail)
    with pytest.raises(ValueError, match="stuck"):
        acting.take(1)
    acting.close()


def test_an_environment_that_hangs_is_noticed():
    free = threading.Event()
    acting = actor(play=lambda policy: free.wait())
    with pytest.raises(StaleError, match="0 steps"):
        acting.take(1, patience=0.1)
    free.set()
    acting.close()


def test_the_state_is_that_between_two_steps_and_is_gone_on_from():
    acting = actor(ahead=4)
    acting.take(4)
    state = acting.state_dict()
    acting.close()
    again = actor(ahead=4)
    again.load_state_dict(state)
    assert again.played == state["played"]
    assert again.interaction.count == state["played"]
    assert "clock" in again.inexact
    assert len(again.take(2)) >= 2
    again.close()


def test_a_killed_simulator_is_started_again_while_acting_goes_on():
    environments = InProcesses([partial(registry.make, "point-reach")], workers=1)
    try:
        acting = actor(environments, ahead=10)
        acting.take(5)
        os.kill(environments.process_ids[0], signal.SIGKILL)
        for _ in range(3):
            acting.take(10)
        acting.close()
        assert environments.restarted == 1
        assert acting.interaction.lost > 0
    finally:
        environments.close()


def test_rates_and_leads_that_make_no_sense_are_refused():
    with pytest.raises(SettingError, match="0 steps per second"):
        actor(rate=0)
    with pytest.raises(SettingError, match="0 steps ahead"):
        actor(ahead=0)


def test_the_copy_takes_no_gradients():
    acting = actor()
    seen = []
    acting._play = lambda policy: seen.append(any(p.requires_grad for p in policy.parameters()))
    acting.take(1)
    acting.close()
    assert seen[0] is False
    assert torch.is_grad_enabled()
