"""Thoughts that may be left out: what is dropped, what stays, and what is no thought at all."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.examples import Example, Examples
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.experience.thoughts import (
    EMPTY,
    Layout,
    reverse_thoughts,
    skip_ratio,
    thinking_examples,
    thought_dropout,
)
from policysmith.rewards.form import form

LAYOUT = Layout()
SHORT = Layout(think=("<", ">"), answer=("#", ""))
TEN = Examples(Example(f"{n}+1=", LAYOUT.write(f"after {n}", str(n + 1))) for n in range(10))


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def dropped(probability: float, examples: Examples = TEN) -> Examples:
    return thought_dropout(examples, probability=probability, rng=rng(), layout=LAYOUT)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>\n\n</think><answer>3</answer>", 1.0),
        ("<think>1+2</think>\n<answer>3</answer>\n", 1.0),
        ("<answer>3</answer>", 0.0),
        ("<think>1+2</think><answer>3</answer> so", 0.0),
        ("3", 0.0),
    ],
)
def test_the_form_asks_for_both_tags_and_nothing_around_them(text, reward):
    assert form(LAYOUT.pattern)(text, Prompt("?")) == reward
    assert form()(text, Prompt("?")) == reward, "the pattern of `rewards.form` is that of the usual tags"


@pytest.mark.parametrize("layout", [LAYOUT, SHORT, Layout(think=("[.", ".]"), answer=("(*", "*)"))])
@given(thought=st.text("ab1 \n=", max_size=8), answer=st.text("0123456789-", max_size=4))
def test_what_is_written_is_read_back(layout, thought, answer):
    assert layout.read(layout.write(thought, answer)) == (thought, answer)


def test_a_thought_of_white_space_is_skipped_and_a_missing_one_is_not():
    texts = [
        LAYOUT.write(EMPTY, "3"),
        LAYOUT.write(" ", "3"),
        LAYOUT.write("x", "3"),
        "<answer>3</answer>",
    ]
    assert [LAYOUT.skips(text) for text in texts] == [True, True, False, False]
    assert skip_ratio(texts, LAYOUT) == 0.5
    with pytest.raises(DataError):
        skip_ratio([], LAYOUT)


def test_tags_that_could_not_be_found_are_refused():
    with pytest.raises(SettingError, match="tags"):
        Layout(think=("", "</think>"))
    assert SHORT.read("<a>#3") == ("a", "3"), "the last tag may be empty"


def test_dropout_leaves_answer_and_tags():
    for before, after in zip(TEN, dropped(0.5), strict=True):
        assert after.prompt == before.prompt
        thought, answer = LAYOUT.read(after.answer)
        assert answer == LAYOUT.read(before.answer)[1]
        assert thought in (LAYOUT.read(before.answer)[0], EMPTY)


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.2, 120, 280), (0.5, 420, 580)])
def test_so_many_thoughts_are_dropped(probability, low, high):
    many = Examples(example for example in TEN for _ in range(100))
    skipped = sum(LAYOUT.skips(example.answer) for example in dropped(probability, many))
    assert low <= skipped <= high


def test_the_same_generator_drops_the_same():
    assert dropped(0.5).fingerprint == dropped(0.5).fingerprint != TEN.fingerprint


def test_dropping_everything_is_warned_of():
    with pytest.warns(UserWarning, match="none is left"):
        assert all(LAYOUT.skips(example.answer) for example in dropped(1.0))


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(probability):
    with pytest.raises(SettingError, match="0 to 1"):
        dropped(probability)


def test_a_target_without_its_tags_is_named():
    examples = Examples([TEN[0], Example("1+1=", "<think>one</think>2")])
    with pytest.raises(DataError) as caught:
        dropped(0.5, examples)
    assert caught.value.where.startswith("example 1")


def test_questions_become_examples_with_thought_and_answer():
    prompts = Prompts([Prompt("1+1=", 2, {"why": "one more than 1"})])
    examples = thinking_examples(prompts, LAYOUT, column="why")
    assert list(examples) == [Example("1+1=", "<think>one more than 1</think><answer>2</answer>")]


@pytest.mark.parametrize(
    ("prompt", "what"),
    [
        (Prompt("1+1=", 2), "no thought"),
        (Prompt("1+1=", 2, {"thought": " "}), "no thought"),
        (Prompt("1+1=", None, {"thought": "x"}), "no example"),
        (Prompt(({"role": "user", "content": "1+1"},), 2, {"thought": "x"}), "no example"),
    ],
)
def test_a_question_that_lacks_something_is_named(prompt, what):
    with pytest.raises(DataError, match=what) as caught:
        thinking_examples(Prompts([Prompt("2+2=", 4, {"thought": "x"}), prompt]), LAYOUT)
    assert caught.value.where.startswith("row 1")


# ---- thoughts written backwards ----------------------------------------------------------------------

PROMPTS = Prompts([Prompt("1+1=", 2), Prompt("2+2=", 4, {"thought": "twice two"}), Prompt("3+3=", 6)])


class Writer:
    """Stands in for a model: writes what it is told to and remembers what it was asked."""

    def __init__(self, say):
        self.say, self.asked = say, {}

    def __call__(self, groups, *, rng, version=0, copies=None):
        self.asked = {group: prompt.text for group, prompt in groups.items()}
        self.texts = [self.say(prompt) for prompt in groups.values()]
        self.batch = {"group_id": torch.tensor(list(groups))}
        return self


def test_missing_thoughts_are_written_with_the_answer_in_view():
    writer = Writer(lambda prompt: f" because of {prompt.answer}\n")
    found = reverse_thoughts(writer, PROMPTS, rng=rng())
    assert [prompt.data["thought"] for prompt in found] == ["because of 2", "twice two", "because of 6"]
    assert [prompt.text for prompt in found] == [prompt.text for prompt in PROMPTS]
    assert set(writer.asked) == {0, 2}
    assert "The answer is 6" in writer.asked[2]


def test_an_empty_thought_is_named():
    with pytest.raises(DataError, match="1 of 2 thoughts are empty") as caught:
        reverse_thoughts(Writer(lambda prompt: "" if prompt.answer == 6 else "x"), PROMPTS, rng=rng())
    assert caught.value.where.startswith("row 2")


def test_a_thought_needs_an_answer_to_lead_to():
    with pytest.raises(DataError, match="no answer"):
        reverse_thoughts(Writer(str), Prompts([Prompt("1+1=")]), rng=rng())
