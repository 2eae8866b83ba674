"""Prompts: where they come from, and how they are drawn."""

import importlib.util
import json

import pytest
import torch

from policysmith.common.errors import DataError, FileError, UnknownNameError
from policysmith.experience.prompts import (
    Prompt,
    Prompts,
    PromptSampler,
    from_dataset,
    from_rows,
    from_task,
    rephrased,
)

needs_language = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="needs the extra 'language'"
)


def rng():
    return torch.Generator().manual_seed(0)


def five():
    return Prompts([Prompt(str(number), number) for number in range(5)])


def test_every_prompt_is_drawn_once_a_pass():
    sampler = PromptSampler(five(), rng=rng())
    drawn = [prompt.answer for _ in range(5) for prompt in sampler.sample(2)]
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == [0, 1, 2, 3, 4]


def test_a_sampler_goes_on_where_it_was():
    first = PromptSampler(five(), rng=rng())
    first.sample(3)
    state, generator = first.state_dict(), first.rng.get_state()
    expected = [prompt.answer for prompt in first.sample(6)]
    second = PromptSampler(five(), rng=rng())
    second.rng.set_state(generator)
    second.load_state_dict(state)
    assert [prompt.answer for prompt in second.sample(6)] == expected
    with pytest.raises(DataError, match="not those of the saved run"):
        PromptSampler(five()[:3], rng=rng()).load_state_dict(state)


def test_columns_beside_prompt_and_answer_are_kept():
    prompts = from_rows([{"question": "2?", "final": "2", "level": 3}], prompt="question", answer="final")
    assert (prompts[0].text, prompts[0].answer, prompts[0].data) == ("2?", "2", {"level": 3})


@pytest.mark.parametrize(
    ("rows", "said"), [([], "no prompts"), ([{"q": 1}], "row 0"), ([{"prompt": ""}], "empty")]
)
def test_rows_without_a_prompt_are_named(rows, said):
    with pytest.raises(DataError, match=said):
        from_rows(rows)


@needs_language
def test_files_of_rows_are_read(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"{n}?", "answer": str(n)}) for n in range(3)))
    assert [prompt.answer for prompt in from_dataset(str(path))] == ["0", "1", "2"]
    with pytest.raises(FileError, match="no such file"):
        from_dataset(str(tmp_path / "other.jsonl"))


@needs_language
def test_a_task_that_is_not_there_is_named():
    with pytest.raises(UnknownNameError, match="'no_such_task'"):
        from_task("no_such_task", size=1, seed=0)


def test_a_question_is_put_in_other_words_where_the_user_asks_it():
    turns = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "why"})
    for text, changed in (("why", "why?"), (turns, (turns[0], {"role": "user", "content": "why?"}))):
        asked = rephrased(Prompt(text, "so", {"a": 1}), lambda question: question + "?")
        assert asked == Prompt(changed, "so", {"a": 1})
    with pytest.raises(DataError, match="without a turn of the user"):
        rephrased(Prompt((turns[0],)), str.upper)
