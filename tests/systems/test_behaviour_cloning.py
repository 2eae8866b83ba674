"""Behaviour cloning learns a task, and its mixture keeps two ways around an obstacle."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from policysmith.evaluation.rollouts import roll_out
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.systems import behaviour_cloning
from policysmith.training.loop import finish
from policysmith.worlds import registry

torch.set_num_threads(1)
SHORT = replace(behaviour_cloning.PRESETS["bench"], hidden=(64, 64), steps=400, learning_rate=3e-3)


@pytest.mark.parametrize("components", [0, 3])
def test_it_learns_to_reach_from_forty_demonstrations(components):
    episodes = Episodes.from_arrays(Demonstrations("point-reach", episodes=40, action_noise=0.1).record())
    config = replace(SHORT, components=components, batch_size=64, minimum_deviation=1e-2)
    policy = finish(behaviour_cloning.train(episodes, config=config)).policy()
    rollouts = roll_out(policy, lambda: registry.make("point-reach"), seeds=range(10, 30))
    assert rollouts.success.mean() >= 0.8
    assert rollouts.calls_per_action == 1.0


def test_the_presets_are_what_their_sources_say():
    presets = behaviour_cloning.PRESETS
    assert (presets["paper"].hidden, presets["paper"].steps) == ((1024, 1024), 200_000)
    assert presets["mixture"] == replace(presets["paper"], components=5)
    learner = presets["data-quality"]
    assert (learner.hidden, learner.batch_size, learner.normalise) == ((200, 200), 256 * 10, False)
