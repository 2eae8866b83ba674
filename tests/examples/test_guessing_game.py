"""The example that plays a text world: it learns, goes on after a stop, and the guide shows it as it is."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

import guessing_game as example

from policysmith.policies.language.small import small_decoder

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "text-environments.md").read_text(encoding="utf-8")
SOURCE = (ROOT / "examples" / "guessing_game.py").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


FEW = replace(example.SETTINGS, steps=4, prompts=4, group_size=4)


def tiny():
    return small_decoder(0, width=64, layers=1, context=96)


def share_of_guesses(policy):
    """How much of what the policy says is a number of the game, and nothing else."""
    episodes = [prompt.data["episode"] for prompt in example.measure(policy, games=100).about]
    texts = [text for episode in episodes for text in episode.texts]
    return sum(text in set("1234567") for text in texts) / len(texts)


@pytest.fixture(scope="module")
def warm():
    policy = tiny()
    example.warm_up(policy, steps=80)
    return policy


def test_imitation_teaches_the_form_of_the_game(warm):
    assert share_of_guesses(tiny()) < 0.1
    assert share_of_guesses(warm) > 0.5


def test_a_run_that_was_stopped_plays_the_same_games_again(warm):
    def fresh():
        policy = tiny()
        policy.load_state_dict(warm.state_dict())
        return policy

    whole = [now.metrics for now in islice(example.learn(fresh(), settings=FEW), 4)]
    assert whole[0]["success"] != whole[1]["success"]
    *_, half = islice(example.learn(fresh(), settings=FEW), 2)
    saved = half.state.state_dict()
    assert [now.metrics for now in example.learn(fresh(), settings=FEW, state=saved)] == whole[2:]


def test_the_code_of_the_guide_runs_or_is_the_examples(capsys):
    own = [code for code in BLOCKS if code.strip() not in SOURCE]
    names: dict = {}
    for code in own:
        exec(compile(code, "text-environments.md", "exec"), names)
    assert len(own) == 3
    assert len(BLOCKS) > len(own)
    assert capsys.readouterr().out.endswith("> 1\nLift-off!\n(done)\n")
    assert names["episode"].success
    assert len(names["samples"]) == 8
