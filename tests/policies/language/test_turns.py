"""Turns as tokens: what the template says, and never a second look at what is written."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from policysmith.common.errors import CapabilityError
from policysmith.policies.language.turns import ChatTurns, PlainTurns, turns_of

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
WORDS = ["What is it?", "A thing.", "Larger?", "No."]


@pytest.fixture
def chatting(policy):
    policy.tokenizer.chat_template = TEMPLATE
    return policy


def conversation(policy, turns, *, end):
    """Two answers and the turns around them, appended one to the other."""
    token = turns.opening(WORDS[0])
    for answer, said in zip(WORDS[1::2], [WORDS[2], "Well?"], strict=True):
        token += policy.encode(answer) + end
        token += turns.reply(said, token[-1])
    return token


def messages(system=None):
    said = [{"role": "system", "content": system}] if system else []
    for role, content in zip(["user", "assistant"] * 2, WORDS, strict=True):
        said.append({"role": role, "content": content})
    return [*said, {"role": "user", "content": "Well?"}]


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_turns_put_together_are_what_the_template_makes_of_the_whole(chatting, system):
    turns = turns_of(chatting, system=system)
    assert isinstance(turns, ChatTurns)
    written = conversation(chatting, turns, end=[chatting.tokenizer.eos_token_id])
    assert written == chatting.encode_conversation(messages(system))


def test_an_answer_that_was_cut_is_closed_by_the_reply(chatting):
    written = conversation(chatting, turns_of(chatting), end=[])
    assert written == chatting.encode_conversation(messages())


def test_a_template_that_rewrites_answers_is_refused(policy):
    policy.tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(CapabilityError, match="does not write an answer as it is"):
        turns_of(policy)


def test_without_a_template_turns_are_plain_text(policy):
    turns = turns_of(policy, system="Play. ")
    assert isinstance(turns, PlainTurns)
    assert policy.decode(turns.opening("Guess.")) == "Play. Guess.\n"
    assert policy.decode(turns.reply("higher", 5)) == "\nhigher\n"
    assert policy.decode(PlainTurns(policy, before="[", after="]").reply("higher", 5)) == "[higher]"


def test_plain_text_begins_as_the_tokenizer_wants_it_and_only_there(policy):
    policy.tokenizer.bos_token = "<pad>"
    turns = PlainTurns(policy)
    assert turns.opening("a")[0] == policy.tokenizer.bos_token_id
    assert policy.tokenizer.bos_token_id not in turns.reply("a", 5)
