"""Episodes as prompts: what tells them apart, how they are cut into parts, and who refuses to play them."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from policysmith.common.errors import CapabilityError, DataError, SettingError
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.experience.world_prompts import Table, WorldPrompts, check_answered, from_world, table_of
from policysmith.policies.language.small import small_decoder


def episodes(**changes):
    options = changes.pop("options", {"high": 7})
    return WorldPrompts("guessing-game", options, **{"size": 10, "seed": 0, **changes})


def test_a_part_is_of_the_same_world_at_the_same_table():
    whole = episodes(table=Table(turns=2))
    part = whole[2:5]
    assert [one.data["seed"] for one in part] == [one.data["seed"] for one in whole][2:5]
    assert table_of(part) is whole.table
    assert len(whole) == 10
    with pytest.raises(DataError, match="no prompts"):
        whole[10:]


def test_the_first_episodes_are_the_same_whatever_the_number():
    assert [one.text for one in episodes(size=3)] == [one.text for one in episodes()][:3]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"size": 9},
        {"options": {"high": 8}},
        {"table": Table(turns=3)},
        {"table": Table(tokens=9)},
    ],
)
def test_other_episodes_options_or_limits_have_another_fingerprint(changes):
    assert episodes().fingerprint == episodes().fingerprint
    assert episodes(**changes).fingerprint != episodes().fingerprint


def test_an_option_may_be_called_as_one_likes():
    prompts = WorldPrompts("my_world:World", {"size": 3, "name": "x", "seed": 2}, size=2, seed=0)
    assert prompts[0].data["options"] == {"size": 3, "name": "x", "seed": 2}


def test_prompts_that_are_answered_have_no_table_and_are_not_refused():
    prompts = Prompts([Prompt("1+1=", "2")])
    assert table_of(prompts) is None
    check_answered(prompts, "never said")
    with pytest.raises(CapabilityError, match="because it asks once"):
        check_answered(from_world("guessing-game", size=1, seed=0), "because it asks once")


def test_a_message_opens_the_conversation_unless_its_form_is_chosen():
    policy = small_decoder(0, width=32, layers=1, heads=2, context=64)
    told = Table(turns=3).opened_by(policy, "Be brief. ")
    assert told.form is not None
    assert policy.decode(told.form.opening("Guess.")) == "Be brief. Guess.\n"
    assert told.turns == 3
    assert told.opened_by(policy, "Be long. ") is told
    assert Table().opened_by(policy, "") == Table()


def test_a_table_without_turns_is_refused():
    with pytest.raises(SettingError, match="0 tokens"):
        Table(tokens=0)
