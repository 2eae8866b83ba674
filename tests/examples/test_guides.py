"""The code of the guides runs, and does what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from policysmith.cli.main import main
from policysmith.evaluation.rollouts import roll_out
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.systems import sdp
from policysmith.training.loop import finish

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def run_guide(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Run the Python of a guide from top to bottom, its names going on from block to block."""
    text = (GUIDES / name).read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, name, "exec"), given)
    return given


def test_the_guide_of_data_makes_reads_and_selects_episodes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_guide("your-data.md", {})
    assert names["again"].lengths.tolist() == [40, 25, 31]
    assert len(names["good"]) == 3
    assert "3 episodes, 96 steps" in capsys.readouterr().out


def test_the_guide_of_saving_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    episodes = Episodes.from_arrays(Demonstrations("point-reach", episodes=4).record())
    config = sdp.PRESETS["tiny"]
    whole = [now.metrics["loss"] for now in sdp.train(episodes, config=config)]
    policy = finish(sdp.train(episodes, config=config)).policy()
    run_guide("saving.md", {"policy": policy, "sdp": sdp, "episodes": episodes, "config": config})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(int(step), float(loss)) for step, loss in lines] == list(enumerate(whole, 1))[3:]


def test_the_guide_of_preferences_learns_what_is_liked(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    names = run_guide("preferences.md", {})
    assert names["now"].metrics["accuracy"] == 1
    assert names["report"].accuracy.value > 0.5  # of three pairs: rounding alone decides over one
    assert (tmp_path / "my-reward-model").is_dir()
    assert names["seen"].metrics["accuracy"] > 0.95


@pytest.mark.parametrize("file", sorted(GUIDES.glob("*.md")), ids=lambda file: file.stem)
def test_commands_of_the_guides_name_verbs_that_exist(file):
    from policysmith.cli.main import VERBS

    text = file.read_text(encoding="utf-8")
    for verb in re.findall(r"^policysmith (\w+)|`policysmith ([a-z]+)", text, re.MULTILINE):
        assert "".join(verb) in VERBS


def test_the_guide_of_reinforcement_learning_learns_by_trying_and_from_recordings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_guide("reinforcement-learning.md", {"STEPS": 256})
    for policy in (names["policy"], names["recorded"], names["explored"]):
        rollouts = roll_out(policy, names["Docking"], seeds=[0], limit=60)
        assert rollouts.lengths.tolist() == [60] or rollouts.success.any()
    assert max(names["seen"].values()) > 1


@pytest.mark.parametrize("block", [0, 1, 2])
def test_the_commands_of_the_guide_of_reinforcement_learning_work(tmp_path, monkeypatch, capsys, block):
    monkeypatch.chdir(tmp_path)
    text = (GUIDES / "reinforcement-learning.md").read_text(encoding="utf-8")
    commands = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[block].replace("\\\n", " ").splitlines()
    # The agent has to get better than its thousand random steps for there to be levels.
    fewer = {"--environment-steps": "200", "--random-steps": "150", "--agent-steps": "2000", "--steps": "60"}
    for command in commands:
        words = shlex.split(command)[1:]
        for option in set(fewer) & set(words):
            words[words.index(option) + 1] = fewer[option]
        if words[0] == "eval":
            words += ["--episodes", "3"]
        if words[:2] == ["data", "record"]:
            words += ["--evaluations", "2", "--episodes", "2"]
        assert main(words) == 0, (command, capsys.readouterr().err)
