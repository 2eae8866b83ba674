"""The calculator world: replies worked by hand, bad calls that are answered, and what an episode is worth."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.calculation import calculated
from policysmith.common.errors import SettingError, UnknownNameError
from policysmith.worlds.calculator import Calculator, asking, same_number
from policysmith.worlds.text import Episode, make


def begun(seed=0, **options):
    return Episode(Calculator(**options), seed)


def right(episode):
    return calculated(episode.steps[0].observation.removesuffix("="))


def test_a_call_is_worked_out_and_an_answer_ends_the_episode():
    episode = begun(cost=0.25)
    question = episode.steps[0].observation
    step = episode.step("?" + question)
    assert (step.observation, step.reward, step.done) == (right(episode), -0.25, False)
    step = episode.step(f"#{right(episode)}")
    assert (step.observation, step.reward, step.done) == ("right", 1.0, True)
    assert episode.success is True
    assert episode.told["calls"] == 1


def test_a_wrong_answer_is_told_the_right_one_and_worth_nothing():
    episode = begun()
    step = episode.step("#no idea")
    assert (step.observation, step.reward, step.done) == (f"wrong: {right(episode)}", 0.0, True)
    assert episode.success is False


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("?(3+4", "unreadable"),
        ("?1/0", "division by zero"),
        ("?9**9**9", "too large"),
        ("?" + "1+" * 300 + "1", "too long"),
        ("?open('x')", "not arithmetic"),
        ("?", "no expression"),
        ("so ?2+3\nperhaps", "5"),
        ("?1+1 or ?2*3=", "6"),
        ("seven", "?EXPRESSION or #ANSWER"),
        ("", "?EXPRESSION or #ANSWER"),
    ],
)
def test_whatever_is_said_is_answered_and_the_episode_goes_on(text, reply):
    step = begun().step(text)
    assert (step.observation, step.done) == (reply, False)


def test_a_call_costs_whatever_comes_of_it_and_silence_costs_a_turn_only():
    episode = begun(cost=0.1, turns=3)
    assert [episode.step(text).reward for text in ("?1/0", "hm", "?1+1")] == [-0.1, 0.0, -0.1]
    assert episode.ended == "done"
    assert episode.steps[-1].observation == f"no answer: {right(episode)}"
    assert episode.success is False


@pytest.mark.parametrize("text", ["7", " 7 ", "+7", "007", "7.0"])
def test_a_number_is_the_same_however_it_is_written(text):
    assert same_number(text, "7") == 1


@pytest.mark.parametrize("text", ["", "3+4", "7 or 8", "nan", "7e0", "\u0667", "1" * 5000])
def test_an_answer_that_is_no_number_or_another_is_wrong(text):
    assert same_number(text, "7") == 0


def test_questions_are_the_seeds_and_have_the_digits_terms_and_operations_that_are_asked_for():
    seen = set()
    for seed in range(300):
        episode = begun(seed, digits=3, terms=3, operations="+*")
        question = episode.steps[0].observation
        assert question == begun(seed, digits=3, terms=3, operations="+*").steps[0].observation
        numbers = question.removesuffix("=").replace("*", "+").split("+")
        size = episode.told["digits"]
        assert [len(number) for number in numbers] == [size] * 3
        seen.add((size, *(char for char in question if char in "+*-")))
    assert len(seen) == 3 * 4  # three sizes, two operations at two places


def test_a_question_of_the_largest_size_can_be_worked_out():
    for seed in range(20):
        float(right(begun(seed, operations="*", terms=9, digits=10)))


def test_marks_of_ones_own_are_read_and_told():
    episode = begun(call="calculate:", answer="answer:")
    assert episode.step("?3+4").observation == "calculate:EXPRESSION or answer:ANSWER"
    assert episode.step("I will calculate: 3+4").observation == "7"
    assert episode.step(f"The answer: {right(episode)}").reward == 1


def test_a_task_of_reasoning_gym_asks_and_judges_by_its_own_checker():
    pytest.importorskip("reasoning_gym")
    world = make("calculator", task="chain_sum", min_terms=3, max_terms=3, cost=0.5)
    episode = Episode(world, 2**40 + 3)
    assert "=" in episode.steps[0].observation
    assert Episode(world, 2**40 + 3).steps[0] == episode.steps[0]
    assert episode.step("?6*7").observation == "42"
    assert episode.step(f"#{world.right}").reward == 1
    assert episode.told == {"calls": 1}
    with pytest.raises(UnknownNameError, match="no task 'chain_sums'"):
        make("calculator", task="chain_sums")
    with pytest.raises(SettingError):
        make("calculator", task="chain_sum", min_trems=3)
    with pytest.raises(SettingError, match="refuses its options"):
        make("calculator", task="chain_sum", min_terms=5, max_terms=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"operations": "+/"}, "operations"),
        ({"operations": ""}, "operations"),
        ({"terms": 1}, "1 terms"),
        ({"digits": 0}, "0 digits"),
        ({"digits": 50}, "50 digits"),
        ({"turns": 0}, "0 turns"),
        ({"cost": -1}, "-1 for a call"),
        ({"cost": float("nan")}, "nan for a call"),
        ({"call": "#"}, "marks"),
        ({"answer": ""}, "marks"),
        ({"digit": 2}, "does not have"),
    ],
)
def test_settings_that_make_no_question_are_refused(options, said):
    with pytest.raises(SettingError, match=said):
        Calculator(**options)


def test_a_player_calls_as_often_as_it_is_told_and_is_right_but_for_its_slips():
    def played(**options):
        player = asking(torch.Generator().manual_seed(0), **options)
        episodes = [begun(seed) for seed in range(400)]
        for episode in episodes:
            while not episode.ended:
                episode.step(player(episode))
        return episodes

    calls = [episode.told["calls"] for episode in played(chance=0.5)]
    assert sum(calls) / 400 == pytest.approx(0.5, abs=0.08)
    assert all(episode.success for episode in played(chance=0.5))
    slipped = played(chance=0.0, slips=0.3)
    assert sum(episode.success for episode in slipped) / 400 == pytest.approx(0.7, abs=0.08)
