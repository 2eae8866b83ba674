"""The guide of environments: its code is the example's, its commands work, and the example learns."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import docking as example
import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policysmith.cli.main import main

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "your-environment.md").read_text(encoding="utf-8")


def test_the_environment_keeps_gymnasiums_rules():
    check_env(gymnasium.make("Docking-v0").unwrapped, skip_render_check=True)


def test_a_full_push_from_rest_moves_the_cart_as_worked_by_hand():
    cart = example.Docking()
    cart.reset(seed=0)
    cart.position, cart.mark = 0.0, 1.0
    observation, reward, *_ = cart.step(np.array([1.0]))
    np.testing.assert_allclose(observation, [0.02, 0.2, 1.0], rtol=1e-6)
    assert reward == pytest.approx(-0.98)


def test_the_expert_docks_from_every_start():
    cart = example.Docking()
    for seed in range(20):
        observation, _ = cart.reset(seed=seed)
        done = [cart.step(example.expert(observation))]
        while not (done[-1][3] or done[-1][4]["success"]):
            done.append(cart.step(example.expert(done[-1][0])))
        assert done[-1][4]["success"]


def test_the_example_learns_to_dock():
    rollouts = example.measure(example.learn(steps=150), episodes=20)
    assert rollouts.success.mean() >= 0.4


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL))
def test_the_guide_shows_the_example_as_it_is(code):
    assert code.strip() in (ROOT / "examples" / "docking.py").read_text(encoding="utf-8")


def test_the_commands_of_the_guide_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLICYSMITH_CACHE", str(tmp_path / "cache"))
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    commands = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert len(commands) == 6
    smaller = {
        "eval": ["--episodes", "2"],
        "compare": ["--preset", "tiny", "--seeds", "1", "--evaluate", "2", "--no-video"],
    }
    for command in commands:
        command = command.replace("--preset bench", "--preset tiny").replace("--steps 600", "--steps 6")
        name, verb, *words = shlex.split(command)
        assert name == "policysmith"
        assert main([verb, *words, *smaller.get(verb, [])]) == 0, command
    assert (tmp_path / "runs" / "comparison" / "report.html").is_file()
    assert "50 episodes" in capsys.readouterr().out
