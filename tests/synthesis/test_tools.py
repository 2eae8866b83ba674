"""What the calculator works out and refuses, what is looked up, and tools that fail."""

import json
import time

import pytest

from policysmith.common.errors import DataError, FileError
from policysmith.experience.prompts import Prompt
from policysmith.synthesis.tools import NO_KNOWLEDGE, ask, calculator, evaluated, facts_from_file, lookup


def worked_out(text):
    return calculator()(Prompt(text), [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12+73-35=", "50"),
        ("What is 12 + 7 * 3?", "33"),
        ("Work out (2 + 3) * 4.", "20"),
        ("Half of it: 7 / 2", "3.5"),
        ("3 - -4 =", "7"),
        ("2^10", "1024"),
        ("First 1 + 1, then 2 + 2", "4"),
        ("Paris has 20 districts", None),
        ("1 / 0", None),
        ("", None),
        ("0 * 7", "0"),
    ],
)
def test_the_last_expression_is_worked_out(text, value):
    assert worked_out(text) == value


def test_a_conversation_is_read_as_one_text():
    turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 6*7?"})
    assert calculator()(Prompt(turns), []) == "42"


@pytest.mark.parametrize(
    "text",
    ["__import__('os').getcwd()", "9**9**9", "(1).__class__", "2**65", "'a'*3", "len([1])", "1+" * 500 + "1",
     "[1][0]", "1 if 1 else 2", "(" * 300 + "1", "10.0**60*10.0**60", "True+1", "(-8)**0.5"],
)  # fmt: skip
def test_nothing_but_arithmetic_of_a_usual_size_is_worked_out(text):
    assert evaluated(text) is None


def test_a_fact_is_found_by_its_longest_key_at_the_borders_of_words():
    tool = lookup({"capital of France": "Paris", "France": "a country", "Oman": "Muscat"})
    assert tool(Prompt("What is the  CAPITAL of france?"), []) == "Paris"
    assert tool(Prompt("Where is France?"), []) == "a country"
    assert tool(Prompt("a woman"), []) is None
    with pytest.raises(DataError, match="without a fact"):
        lookup({})


def test_facts_are_read_from_a_file(tmp_path):
    pytest.importorskip("datasets")
    file = tmp_path / "facts.jsonl"
    file.write_text(json.dumps({"key": "sky", "value": "blue"}) + "\n")
    assert facts_from_file(str(file))(Prompt("the sky is"), []) == "blue"
    with pytest.raises(FileError, match="no table of facts"):
        facts_from_file(str(file), key="question")


def test_what_raises_or_hangs_has_no_knowledge_and_the_rest_is_said():
    def broken(prompt, candidates):
        raise ConnectionError("no network")

    def slow(prompt, candidates):
        time.sleep(5)

    tools = {"broken": broken, "slow": slow, "none": lambda *_: None, "table": lambda *_: {"b": 1, "a": 2}}
    said, failed = ask(tools, Prompt("?"), ["a"], seconds=0.2)
    assert said == {"broken": NO_KNOWLEDGE, "slow": NO_KNOWLEDGE, "none": "", "table": '{"a": 2, "b": 1}'}
    assert set(failed) == {"broken", "slow"}
    assert "no network" in failed["broken"]
    assert "within 0.2 seconds" in failed["slow"]


def test_a_tool_sees_the_candidates_and_cannot_change_them():
    seen = ["one", "two"]
    assert ask(
        {"count": lambda prompt, given: str(len(given)) + str(given.clear() or "")}, Prompt("?"), seen
    )[0]
    assert seen == ["one", "two"]
