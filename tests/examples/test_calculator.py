"""The example with a calculator: imitation teaches how to call; the guide's commands go on from there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

import calculator as example

from policysmith.cli.main import main
from policysmith.evaluation.conversations import converse
from policysmith.experience.world_prompts import WorldPrompts
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder

torch.set_num_threads(1)

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "text-environments.md").read_text(encoding="utf-8")
COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)).replace("\\\n", " ").splitlines()
FEWER = {"--size": "40", "--episodes": "4", "--preset": "tiny"}


def tiny(context=96):
    return small_decoder(0, width=32, layers=1, heads=2, context=context, spread=0.15)


def test_imitation_teaches_to_call_and_to_answer():
    def forms(policy):
        episodes = WorldPrompts("calculator", example.WORLD, size=50, seed=1)
        found = converse(policy, episodes, sampling=Sampling(limit=12))
        first = [episode.texts[0][:1] for episode in found.episodes]
        return first.count("?"), first.count("#")

    policy = tiny()
    assert sum(forms(policy)) < 5
    example.warm_up(policy, steps=60)
    assert min(forms(policy)) > 10


def test_the_commands_of_the_guide_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    tiny().save_pretrained("start")
    (own,) = [
        code for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "class Countdown" in code
    ]
    Path("my_worlds.py").write_text(own)
    commands = [shlex.split(command)[1:] for command in COMMANDS if command.startswith("policysmith ")]
    assert {words[0] for words in commands} == {"run", "eval", "report", "resume", "show"}
    for words in commands:
        for option in FEWER.keys() & set(words):
            words[words.index(option) + 1] = FEWER[option]
        if words[0] == "run":
            words += ["--answer-limit", "4"]
        assert main(words) == 0, (words, capsys.readouterr().err)
