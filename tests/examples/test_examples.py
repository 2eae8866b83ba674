"""The worked example of the guide does what the guide says."""

from __future__ import annotations

from pathlib import Path

import gaussian_cloning as example

from policysmith.evaluation.conformance import ENVIRONMENT, check_presets, check_training, standard_inputs
from policysmith.evaluation.rollouts import roll_out
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.training.loop import finish
from policysmith.worlds import registry

ROOT = Path(__file__).parents[2]


def test_the_guides_system_conforms(tmp_path):
    check_presets(example)
    check_training(example, standard_inputs(("episodes",)), tmp_path)


def test_the_guides_system_learns_to_reach():
    episodes = Episodes.from_arrays(Demonstrations(ENVIRONMENT, episodes=60, action_noise=0.1).record())
    config = example.Config(steps=400, batch_size=64, learning_rate=3e-3)
    policy = finish(example.train(episodes, config=config)).policy()
    policy.deterministic = True
    rollouts = roll_out(policy, lambda: registry.make(ENVIRONMENT), seeds=range(10, 30))
    assert rollouts.success.mean() >= 0.6


def test_the_guide_shows_the_example_as_it_is():
    guide = (ROOT / "docs" / "write-a-system.md").read_text(encoding="utf-8")
    source = (ROOT / "examples" / "gaussian_cloning.py").read_text(encoding="utf-8")
    body = source[source.index("    with seeded_initialisation(seed):") :].rstrip()
    assert body in guide
