"""Pairs from the command line: who is brought by which words, and a file that a preference system reads."""

import json
import sys

import pytest

pytest.importorskip("transformers")
pytest.importorskip("datasets")

from policysmith.cli import measuring
from policysmith.cli.game import GameInputs
from policysmith.cli.main import main
from policysmith.cli.preferences import PreferenceInputs
from policysmith.common.catalogue import find_system
from policysmith.common.errors import CapabilityError, SettingError, UnknownNameError
from policysmith.policies.language.small import small_decoder
from policysmith.synthesis.judging import LanguageJudge

CODE = """
def judge(prompt, candidates, knowledge, rubric):
    return [10 - sum(map(ord, text)) / max(1, len(text)) / 13 for text in candidates]

def tool(prompt, candidates):
    return "known"

five = 5
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "my_players.py").write_text(CODE)
    rows = [{"prompt": f"{number}+1=", "answer": str(number + 1)} for number in range(12)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "facts.jsonl").write_text(json.dumps({"key": "3+1", "value": "4"}))
    small_decoder(0, width=32, layers=1, heads=2, context=64).save_pretrained(tmp_path / "model")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_players", None)


def test_run_writes_pairs_that_a_preference_system_learns_from(place, capsys):
    words = ["run", "anyprefer", "--model", "model", "--data", "prompts.jsonl", "--judge", "my_players:judge"]
    words += [
        "--preset",
        "tiny",
        "--tool",
        "calculator",
        "my_players:tool",
        "--facts",
        "facts.jsonl",
        "--out",
    ]
    assert main([*words, "made"]) in (0, None)
    assert "pairs.jsonl" in capsys.readouterr().out
    rows = [json.loads(line) for line in (place / "made" / "pairs.jsonl").read_text().splitlines()]
    assert set(rows[0]["tools"]) == {"calculator", "my_players:tool", "facts"}
    assert {row["tools"]["facts"] for row in rows} <= {"", "4"}
    assert all(int(row["tools"]["calculator"]) == int(row["prompt"][:-3]) + 1 for row in rows)
    _, pairs = PreferenceInputs(data="made/pairs.jsonl", model="model").arguments()
    assert len(pairs) == len(rows)
    learn = ["run", "robust-dpo", "--model", "model", "--data", "made/pairs.jsonl", "--preset", "tiny"]
    assert main([*learn, "--out", "learnt"]) in (0, None)


def test_players_are_brought_by_name(place):
    inputs = GameInputs(
        model="model", judge="model", instruction=("Think.",), data="prompts.jsonl", reward="numeric"
    )
    _, prompts, players = inputs.arguments()
    assert len(prompts) == 12
    assert isinstance(players.judge, LanguageJudge)
    assert players.verify("2", prompts[1]) == 1.0
    assert players.revise is not None
    assert GameInputs(judge="my_players:judge").players().revise is None
    assert GameInputs(judge="my_players:judge", feedback="my_players:tool").players().revise is not None
    assert GameInputs(judge="my_players:judge", feedback="model").players().revise is not None
    assert measuring.inputs_of(find_system("anyprefer")) is GameInputs


def test_what_is_missing_is_said(place):
    with pytest.raises(SettingError, match="which model"):
        GameInputs().arguments()
    with pytest.raises(SettingError, match="who judges"):
        GameInputs(model="model").arguments()
    with pytest.raises(SettingError, match="two places"):
        GameInputs(judge="my_players:judge", feedback="model", instruction=("x",)).players()
    with pytest.raises(UnknownNameError, match="no judge"):
        GameInputs(judge="my_players:nobody").players()
    with pytest.raises(CapabilityError, match="cannot be called"):
        GameInputs(judge="my_players:judge", tool=("my_players:five",)).players()
