"""Locks: what opens them, who is shown what, and what the start knows of them."""

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.claims.common import locks
from policysmith.claims.common.locks import SYMBOLS, WORDS, Lock, asking, blind_start, chance, opened
from policysmith.policies.language.small import small_decoder


def test_every_symbol_stands_for_a_word_of_its_own_and_never_for_the_plain_one():
    maps = {tuple(Lock(seed).turned) for seed in range(60)}
    for one in maps:
        assert sorted(one) == [0, 1, 2, 3]
        assert all(word != symbol for symbol, word in enumerate(one))
    assert len(maps) == 9, "all maps that move every symbol"


def test_a_lock_opens_for_its_answer_alone():
    lock = Lock(3, length=4)
    first, second, *_ = lock.turned
    assert lock.open([0, 1, 1, 0]) == " ".join(WORDS[i] for i in (first, second, second, first))
    prompt = lock.prompts(1)[0]
    assert opened(prompt.answer, prompt) == 1.0
    assert opened(prompt.answer[:-2], prompt) == 0.0
    assert opened(prompt.answer + " a", prompt) == 0.0


def test_prompts_differ_are_the_same_again_and_none_is_held_out_too():
    lock = Lock(0, length=4)
    shown, held_out = lock.prompts(60), lock.prompts(60, held_out=True)
    texts = [{prompt.text for prompt in part} for part in (shown, held_out)]
    assert [len(one) for one in texts] == [60, 60]
    assert not texts[0] & texts[1]
    assert lock.prompts(60).fingerprint == shown.fingerprint
    for prompt in shown:
        symbols = [SYMBOLS.index(word) for word in prompt.text.split()[:-1]]
        assert prompt.text == asking(symbols)
        assert prompt.answer == prompt.data["chosen"] == lock.open(symbols)


def test_the_chance_of_a_right_answer_is_that_of_its_words_and_its_end():
    policy = small_decoder(0, width=16, layers=1, heads=2, context=12, words=(*SYMBOLS, *WORDS, ":"))
    with torch.no_grad():
        policy.head.zero_()
    assert chance(policy, Lock(0, length=3).prompts(5)) == pytest.approx(policy.head.shape[0] ** -4)


def test_the_start_is_taught_the_plain_map_and_then_words_that_were_drawn():
    guessing = blind_start(12)
    assert guessing.first is not None
    for example in list(guessing.first.examples)[:50]:
        symbols = [SYMBOLS.index(word) for word in example.prompt.split()[:-1]]
        assert example.answer.split() == [WORDS[symbol] for symbol in symbols]
    said = [example.answer.split() for example in guessing.examples]
    asked = [example.prompt.split()[:-1] for example in guessing.examples]
    agreeing = [
        WORDS[SYMBOLS.index(symbol)] == word
        for pair in zip(asked, said, strict=True)
        for symbol, word in zip(*pair, strict=True)
    ]
    assert sum(agreeing) / len(agreeing) == pytest.approx(0.25, abs=0.01)
    assert locks.blind_start(12).examples.fingerprint == guessing.examples.fingerprint
