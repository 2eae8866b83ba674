"""Verifiers: what counts as the answer, and when it is right."""

import importlib.util

import pytest

from policysmith.common.errors import DataError
from policysmith.experience.prompts import Prompt, from_task
from policysmith.rewards.form import form, shorter
from policysmith.rewards.verifiers import (
    after,
    between,
    exact,
    last_line,
    last_number,
    mathematical,
    numeric,
    task,
    whole,
)

needs_language = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="needs the extra 'language'"
)


@pytest.mark.parametrize(
    ("extract", "text", "answer"),
    [
        (whole, "  7 \n", "7"),
        (whole, " \n", None),
        (last_line, "so\n 12 \n\n", "12"),
        (last_number, "3 apples and 1,204.5 pears.", "1204.5"),
        (last_number, "none", None),
        (between("<answer>", "</answer>"), "<answer>1</answer> <answer> 2 </answer>", "2"),
        (between("<answer>", "</answer>"), "<answer>2", None),
        (after("####"), "a #### 1\nb #### 42 \nc", "42"),
        (after("####"), "no mark", None),
    ],
)
def test_the_part_that_is_the_answer(extract, text, answer):
    assert extract(text) == answer


def test_exact_and_numeric_answers():
    prompt = Prompt("1 + 1 =", "2")
    assert exact()(" 2 ", prompt) == 1
    assert exact()("2.0", prompt) == 0
    assert numeric()("it is 2.0", prompt) == 1
    assert numeric()("it is 3", prompt) == numeric()("two", prompt) == 0


def test_a_prompt_without_reference_is_named():
    with pytest.raises(DataError, match="no reference answer"):
        exact()("2", Prompt("1 + 1 ="))
    with pytest.raises(DataError, match="no checker"):
        task()("2", Prompt("1 + 1 =", "2"))


@needs_language
def test_a_tasks_own_checker_judges_its_answers():
    prompts = from_task("chain_sum", size=5, seed=1, min_terms=2, max_terms=2)
    verify = task(last_number)
    for prompt in prompts:
        assert verify(f"the sum is {prompt.answer}", prompt) == 1
        assert verify("no idea", prompt) == 0
    again = from_task("chain_sum", size=5, seed=1, min_terms=2, max_terms=2)
    assert prompts.fingerprint == again.fingerprint


@needs_language
def test_answers_that_are_the_same_mathematics():
    verify = mathematical()
    assert verify("$\\frac{1}{2}$", Prompt("half?", "$0.5$")) == 1
    assert verify("$\\frac{1}{3}$", Prompt("half?", "$0.5$")) == 0


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>\n\n</think><answer>3</answer>", 1),
        ("<answer>3</answer>", 0),
        ("<think>a</think>\n<answer>3</answer> more", 0),
    ],
)
def test_the_form_of_thought_and_answer(text, reward):
    assert form()(text, Prompt("?")) == reward


def test_long_answers_are_charged_evenly():
    charge = shorter(free=10, limit=20)
    assert [charge("x" * n, Prompt("?")) for n in (5, 10, 15, 20, 99)] == [0, 0, -0.5, -1, -1]


def test_a_verifier_tells_which_answers_are_the_same_to_it():
    number = numeric()
    assert number.extract("so 1,200") == "1200"
    assert number.equal("1200", "1200.0")
    assert not number.equal("1200", "1201")
    assert number.equal("none", "none")
    assert not number.equal("none", "1200")
    assert not exact().equal("2", "2.0")


@needs_language
def test_sameness_as_mathematics_does_not_depend_on_the_order():
    equal = mathematical().equal
    assert equal("$\\frac{1}{2}$", "$0.5$")
    assert equal("$0.5$", "$\\frac{1}{2}$")
    assert not equal("$0.5$", "$0.6$")
