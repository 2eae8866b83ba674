"""Rewards of actions: the same one, near enough, and nothing that is run to find out."""

import pytest

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt
from policysmith.rewards.actions import click_near, read_action, same_action


def click(x: float, y: float, name: str = "click") -> str:
    return f"<think>there</think><action>{{'action': '{name}', 'position': [{x}, {y}]}}</action>"


GOAL = Prompt("open the settings", {"action": "click", "position": [0.50, 0.50]})


def test_a_click_counts_up_to_the_tolerance():
    near = click_near()
    assert near(click(0.60, 0.59), GOAL) == 1.0  # 0.134536 away
    assert near(click(0.60, 0.60), GOAL) == 0.0  # 0.141421 away
    assert click_near(0.15)(click(0.60, 0.60), GOAL) == 1.0


def test_the_name_counts_whatever_its_case():
    assert same_action()(click(0.9, 0.9, name="CLICK"), GOAL) == 1.0
    assert same_action()(click(0.5, 0.5, name="scroll"), GOAL) == 0.0


def test_only_clicks_have_a_place():
    typing = Prompt("type it", {"action": "type", "value": "hello"})
    text = "<action>{'action': 'type', 'value': 'hello'}</action>"
    assert same_action()(text, typing) == 1.0
    assert click_near()(text, typing) == 0.0
    assert click_near()(text, GOAL) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<action></action>",
        "<action>click</action>",
        "<action>['click']</action>",
        "<action>{'position': [0.5, 0.5]}</action>",
        "<action>{'action': 3}</action>",
        "{'action': 'click', 'position': [0.5, 0.5]}",
        "<action>__import__('os').getcwd()</action>",
        "<action>" + "[" * 5000 + "</action>",
    ],
)
def test_what_is_no_action_gets_nothing(text):
    assert same_action()(text, GOAL) == 0.0
    assert click_near()(text, GOAL) == 0.0


@pytest.mark.parametrize("place", ["[540, 960]", "[0.5]", "'here'", "None", "[0.5, -0.1]", "['0', '0']"])
def test_a_click_that_is_nowhere_gets_nothing(place):
    assert click_near()(f"<action>{{'action': 'click', 'position': {place}}}</action>", GOAL) == 0.0


def test_a_place_may_be_written_as_text():
    assert click_near()("<action>{'action': 'click', 'position': '[0.5, 0.45]'}</action>", GOAL) == 1.0


def test_the_reference_may_be_text():
    for answer in ("{'action': 'click', 'position': [0.5, 0.5]}", click(0.5, 0.5)):
        assert click_near()(click(0.5, 0.5), Prompt("?", answer)) == 1.0


def test_a_reference_in_pixels_is_an_error():
    with pytest.raises(DataError, match="540"):
        click_near()(click(0.5, 0.5), Prompt("?", {"action": "click", "position": [540, 960]}))


@pytest.mark.parametrize("answer", [None, "click", {"position": [0.5, 0.5]}])
def test_a_reference_that_is_no_action_is_an_error(answer):
    with pytest.raises(DataError, match="no action"):
        same_action()(click(0.5, 0.5), Prompt("?", answer))


def test_a_tolerance_has_to_be_above_nothing():
    with pytest.raises(SettingError):
        click_near(0.0)


def test_actions_are_read_as_literals():
    assert read_action(" {'action': 'home'} ") == {"action": "home"}
    assert read_action(None) is None
