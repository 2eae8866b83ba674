"""`data record`: data of levels from an agent that is trained for it, words in and folders out."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from policysmith.cli import recording
from policysmith.cli.main import main
from policysmith.experience.store import load_episodes
from policysmith.policies.protocol import Policy
from policysmith.training.loop import Progress

torch.set_num_threads(1)


class Walks(Policy):
    """Walks to the goal of `point-reach` at a share of the full speed."""

    def __init__(self, speed):
        super().__init__()
        self.observation_size, self.action_size, self.speed = 4, 2, speed

    def act(self, observation, state, *, rng):
        way = observation[:, -1, 2:4] - observation[:, -1, :2]
        return (self.speed * (10 * way).clamp(-1, 1))[:, None], state


@dataclass(frozen=True)
class Settings:
    environment_steps: int = 10


def train(maker, *, config, seed):
    """Walks at rising speeds; plays a few steps with each."""
    environment = maker()
    for number, speed in enumerate((0.05, 0.4, 1.0), 1):
        environment.reset(seed=seed)
        for _ in range(config.environment_steps // 3):
            environment.step(torch.zeros(2).numpy())
        state = SimpleNamespace(policy=lambda speed=speed: Walks(speed))
        yield Progress(number, 3, {"loss": 0.0}, {}, state)


@pytest.fixture
def walker(monkeypatch):
    """A system that learns to walk at once, under every name."""
    module = SimpleNamespace(train=train, PRESETS={"paper": Settings()})
    monkeypatch.setattr(recording, "find_system", lambda name: SimpleNamespace(load=lambda: module))


def words(out, *more):
    agent = ["--agent", "walker", "--agent-steps", "30", "--evaluations", "3", "--episodes", "4"]
    return ["data", "record", str(out), "--env", "point-reach", *agent, *more]


def test_several_levels_are_folders_that_say_how_they_were_made(walker, tmp_path, capsys):
    levels = ("random", "medium", "medium-replay", "expert")
    options = ["--env-option", "horizon=20", "--level", *levels, "--steps", "50", "--seed", "3"]
    assert main(words(tmp_path / "data", *options)) == 0
    found = {level: load_episodes(tmp_path / "data" / level) for level in levels}
    about = found["medium"].provenance
    assert (about["environment"], about["system"], about["seed"]) == ("point-reach", "walker", 3)
    assert about["options"] == {"horizon": 20}
    assert (about["action_low"], about["action_high"]) == ([-1.0, -1.0], [1.0, 1.0])
    assert about["settings"] == {"environment_steps": 30}
    assert found["medium"].returns.mean() < found["expert"].returns.mean()
    assert int(found["random"].lengths.sum()) == int(found["expert"].lengths.sum()) == 50
    assert int(found["medium-replay"].lengths.sum()) == about["agents"][0]["steps"] == 20
    assert int(found["expert"].lengths.max()) <= 20
    assert "medium: " in capsys.readouterr().out


def test_a_single_level_is_the_folder_itself_and_nothing_is_overwritten(walker, tmp_path, capsys):
    out = tmp_path / "set"
    assert main(words(out, "--level", "random", "--steps", "9")) == 0
    assert int(load_episodes(out).lengths.sum()) == 9
    assert "system" not in load_episodes(out).provenance
    assert main(words(out, "--level", "random")) == 1
    assert "something at this path already" in capsys.readouterr().err


def test_what_cannot_be_done_is_said(walker, tmp_path, capsys):
    assert main(words(tmp_path / "a", "--level", "middling")) == 1
    assert "medium-replay" in capsys.readouterr().err
    assert main(words(tmp_path / "b", "--preset", "huge")) == 1
    assert "no preset 'huge'" in capsys.readouterr().err
    assert main(["data", "record", str(tmp_path / "c")]) == 1
    assert "which environment?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_system_that_does_not_learn_by_acting_is_refused(tmp_path, capsys):
    assert main([*words(tmp_path / "a")[:5], "--agent", "sdp"]) == 1
    assert "does not learn by acting" in capsys.readouterr().err
