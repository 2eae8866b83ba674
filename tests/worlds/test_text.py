"""Worlds that are talked to: found by name, played, and held to what they promise."""

from __future__ import annotations

import sys
import types

import pytest

from policysmith.common.errors import (
    CapabilityError,
    DataError,
    MissingExtraError,
    SettingError,
    UnknownNameError,
)
from policysmith.worlds.guessing import GuessingGame
from policysmith.worlds.text import Episode, TextStep, make


class Scripted:
    """Answers with what it was made of, in turn; an exception among it is raised."""

    def __init__(self, *script, first=None):
        self.script, self.first, self.closed = list(script), first or TextStep("go"), 0

    def reset(self, seed):
        return self.first

    def step(self, text):
        said = self.script.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    def close(self):
        self.closed += 1


def test_worlds_are_made_by_name_with_options(monkeypatch):
    game = make("guessing-game", high=3)
    assert isinstance(game, GuessingGame)
    assert game.high == 3
    module = types.ModuleType("my_talk")
    module.Mine = Scripted
    monkeypatch.setitem(sys.modules, "my_talk", module)
    assert isinstance(make("my_talk:Mine"), Scripted)


def test_names_that_lead_nowhere_say_what_is_near():
    with pytest.raises(UnknownNameError, match="no text world is called 'guesing-game'") as caught:
        make("guesing-game")
    assert caught.value.expected == "guessing-game"
    with pytest.raises(MissingExtraError, match="cannot be imported"):
        make("no_such_package.worlds:Game")
    with pytest.raises(UnknownNameError, match="has no 'GuesingGame'") as caught:
        make("policysmith.worlds.guessing:GuesingGame")
    assert "GuessingGame" in caught.value.expected


def test_options_and_objects_that_do_not_fit_are_refused():
    with pytest.raises(SettingError, match="'guessing-game' does not know an option") as caught:
        make("guessing-game", hihg=3)
    assert "hihg" in caught.value.where
    with pytest.raises(CapabilityError, match="makes a Random, which is no text world"):
        make("random:Random")


def test_an_episode_remembers_what_was_said_and_ends_where_the_world_does():
    world = Scripted(TextStep("warm", 0.5, info={"success": False}), TextStep("hot", 1.0, True))
    episode = Episode(world, 7)
    assert (episode.ended, world.closed) == ("", 0)
    episode.step("a")
    assert episode.step("b").reward == 1.0
    assert episode.texts == ["a", "b"]
    assert [step.observation for step in episode.steps] == ["go", "warm", "hot"]
    assert (episode.ended, world.closed) == ("done", 1)
    assert episode.transcript == "go\n> a\nwarm\n> b\nhot\n(done)"
    spoken = [("world", "go"), ("policy", "a"), ("world", "warm"), ("policy", "b"), ("world", "hot")]
    assert episode.said == spoken
    episode.close("again")
    assert (episode.ended, world.closed) == ("done", 1)


def test_numbers_in_the_last_info_are_what_the_world_counts():
    info = {"success": True, "calls": 2, "solved": False, "name": "x", "far": float("inf")}
    episode = Episode(
        Scripted(TextStep("on", info={"calls": 1, "old": 3}), TextStep("end", 1.0, True, info)), 0
    )
    episode.step("a")
    episode.step("b")
    assert episode.told == {"calls": 2.0, "solved": 0.0}


def test_a_world_that_cannot_be_made_is_told_with_its_options():
    with pytest.raises(SettingError, match="cannot be made with its options") as refused:
        make("guessing-game", high="many")
    assert "many" in refused.value.expected


def test_success_is_what_the_world_says_of_it():
    silent, lost, won = (
        Episode(Scripted(TextStep("", done=True, info=info)), 0)
        for info in ({}, {"success": False}, {"success": True})
    )
    for episode in (silent, lost, won):
        episode.step("x")
    assert (silent.success, lost.success, won.success) == (None, False, True)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (RuntimeError("no light"), "raised RuntimeError: no light"),
        (TextStep("x", float("nan")), "returned the reward nan"),
        (TextStep("x", "1"), "returned the reward '1'"),
        (("x", 1.0, False), r"returned \('x', 1.0, False\)"),
        (TextStep(3), "returned TextStep"),
    ],
)
def test_a_world_that_fails_is_named_with_episode_and_turn(said, problem):
    episode = Episode(Scripted(TextStep("on"), said), 7, name="mine")
    episode.step("first")
    with pytest.raises(DataError, match=f"the world 'mine' {problem}") as caught:
        episode.step("second")
    assert caught.value.where == "episode of seed 7, turn 2, told 'second'"
    assert episode.texts == ["first"]


def test_nobody_speaks_after_the_end():
    episode = Episode(Scripted(TextStep("over", done=True)), 7)
    episode.step("x")
    with pytest.raises(DataError, match=r"told more after its end \(done\)") as caught:
        episode.step("y")
    assert caught.value.where == "episode of seed 7, turn 2, told 'y'"


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        (TextStep("go", done=True), "was over when it began"),
        (TextStep("go", 1.0), "began with the reward 1.0"),
        (TextStep("go", float("inf")), "returned the reward inf"),
    ],
)
def test_an_episode_begins_without_reward_or_end(first, problem):
    with pytest.raises(DataError, match=problem) as caught:
        Episode(Scripted(first=first), 3)
    assert caught.value.where == "episode of seed 3, reset"
