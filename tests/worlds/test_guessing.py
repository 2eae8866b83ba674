"""The guessing game: replies worked by hand, and players whose chances are known."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.worlds.guessing import GuessingGame, careless, halving, remaining
from policysmith.worlds.text import Episode


def hiding(number, **options):
    """An episode that hides `number`."""
    game = GuessingGame(**options)
    return Episode(game, next(seed for seed in range(1000) if game.reset(seed) and game.number == number))


def play(episode, player):
    while not episode.ended:
        episode.step(player(episode))
    return episode


def test_guesses_are_answered_as_worked_by_hand():
    episode = hiding(5)
    assert episode.steps[0].observation == "Guess from 1 to 15."
    assert [episode.step(text).observation for text in ("8", "I say 3!", "?", "5")] == [
        "lower",
        "higher",
        "no number",
        "right",
    ]
    assert [step.reward for step in episode.steps] == [0, 0, 0, 0, 1]
    assert episode.success


def test_the_game_is_lost_after_its_guesses_and_tells_the_number():
    episode = hiding(5, guesses=2)
    episode.step("4")
    last = episode.step("6")
    assert (last.observation, last.reward, last.done) == ("it was 5", 0.0, True)
    assert episode.success is False


def test_the_number_is_the_seeds():
    numbers = []
    for seed in range(200):
        game = GuessingGame()
        game.reset(seed)
        numbers.append(game.number)
        game.reset(seed)
        assert game.number == numbers[-1]
    assert set(numbers) == set(range(1, 16))


def test_what_remains_is_what_no_reply_excludes():
    episode = hiding(5)
    for text, left in (("8", range(1, 8)), ("x", range(1, 8)), ("2", range(3, 8)), ("1", range(3, 8))):
        episode.step(text)
        assert remaining(episode) == left


def test_halving_finds_every_number_and_one_guess_less_does_not_do():
    assert all(play(hiding(number), halving).success for number in range(1, 16))
    found = [play(hiding(number, guesses=3), halving).success for number in range(1, 16)]
    assert sum(found) == 2**3 - 1


@cache
def chance(size, guesses):
    """That guessing anything that is left finds a number of `size` within `guesses`, over all numbers."""
    if guesses == 0 or size == 0:
        return 0.0
    # Guessing place i leaves i numbers below and size - 1 - i above.
    below_or_above = sum(
        i * chance(i, guesses - 1) + (size - 1 - i) * chance(size - 1 - i, guesses - 1) for i in range(size)
    )
    return 1 / size + below_or_above / size**2


def test_a_careless_player_finds_it_as_often_as_chance_says():
    player = careless(torch.Generator().manual_seed(0))
    found = [play(Episode(GuessingGame(), seed), player).success for seed in range(2000)]
    assert sum(found) / 2000 == pytest.approx(chance(15, 4), abs=0.03)


def test_games_that_cannot_be_played_are_refused():
    with pytest.raises(SettingError, match="from 3 to 2"):
        GuessingGame(low=3, high=2)
    with pytest.raises(SettingError, match="0 guesses"):
        GuessingGame(guesses=0)
