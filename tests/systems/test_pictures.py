"""Diffusion Policy and SDP on episodes with pictures: trained, resumed, played and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from policysmith.cli.main import main
from policysmith.common.errors import CapabilityError, SettingError, ShapeError
from policysmith.evaluation.conformance import check_training
from policysmith.evaluation.rollouts import roll_out
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.systems import diffusion_policy, sdp
from policysmith.training.loop import finish
from policysmith.worlds import registry

torch.set_num_threads(1)

PICTURES = {"camera": (20, 24)}
RECORDED = Demonstrations("point-reach", episodes=4, action_noise=0.1, options={"pictures": PICTURES})
EPISODES = Episodes.from_arrays(RECORDED.record())
BOTH = pytest.mark.parametrize("system", [diffusion_policy, sdp])


@BOTH
def test_a_run_from_pictures_is_resumed_to_the_same_numbers_and_plays_when_loaded(system, tmp_path):
    check_training(system, (EPISODES,), tmp_path)


@BOTH
def test_what_the_episodes_hold_is_what_the_policy_reads(system):
    policy = finish(system.train(EPISODES, config=system.PRESETS["tiny"])).policy()
    assert policy.parts == {"state": (2,), "camera": (20, 24, 3)}
    assert policy.model.eyes.crops == {"camera": (18, 22)}  # 76 of 84, rounded
    plays = partial(roll_out, policy, seeds=[0, 1], limit=4)
    assert plays(partial(registry.make, "point-reach", pictures=policy.pictures)).lengths.sum() > 1
    with pytest.raises(ShapeError, match="observations have shape"):
        plays(partial(registry.make, "point-reach"))
    with pytest.raises(ShapeError, match=r"camera have shape \[32, 32, 3\]"):
        plays(partial(registry.make, "point-reach", pictures={"camera": (32, 32)}))


@BOTH
def test_training_moves_the_encoder(system):
    config = system.PRESETS["tiny"]
    before = next(system.train(EPISODES, config=replace(config, steps=1, learning_rate=0.0))).state
    after = finish(system.train(EPISODES, config=config))
    weights = [
        state.learners["policy"].module.model.eyes.encoders[0].stages[0].weight for state in (before, after)
    ]
    assert not torch.equal(*weights)


def test_a_goal_beside_the_pictures_is_refused():
    observation = {"goal": np.zeros((5, 2)), "front": np.zeros((5, 8, 8, 3), np.uint8)}
    episodes = Episodes.from_arrays([{"observation": observation, "action": np.zeros((5, 2))}])
    with pytest.raises(CapabilityError, match="have a goal"):
        next(diffusion_policy.train(episodes, config=diffusion_policy.PRESETS["tiny"]))


@pytest.mark.parametrize("crop", [0.0, 1.1, -1.0])
def test_a_crop_larger_than_the_picture_is_refused(crop):
    with pytest.raises(SettingError, match="picture_crop"):
        replace(diffusion_policy.PRESETS["tiny"], picture_crop=crop)


def test_descriptions_without_options_are_those_of_before():
    assert "options" not in replace(RECORDED, options={}).description
    assert RECORDED.description["options"] == {"pictures": {"camera": (20, 24)}}


def test_the_command_line_trains_resumes_and_evaluates_from_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("POLICYSMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    words = "run diffusion-policy --env point-reach --pictures 20 --episodes 3 --preset tiny --out run"
    main(words.split())
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["inputs"]
    assert (saved["pictures"], saved["cameras"]) == (20, [])
    main(["resume", "run"])
    capsys.readouterr()
    main(["eval", "run", "--episodes", "2", "--limit", "3", "--json"])
    assert json.loads(capsys.readouterr().out)["environment"] == "point-reach"
