"""Small decoders: over characters, and over words."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.small import SPECIAL, small_decoder, word_tokenizer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs the extra 'language'"
)
WORDS = ("the", "cat", "sleeps", ".", "<", "a,b")
SIZES = {"width": 16, "layers": 1, "heads": 2, "context": 16}


def test_a_word_is_a_token_and_any_other_word_is_unknown():
    tokenizer = word_tokenizer(WORDS)
    assert tokenizer.tokenize("the cat\n sleeps  .") == ["the", "cat", "sleeps", "."]
    assert tokenizer("the the . cat").input_ids == [3, 3, 6, 4]
    assert tokenizer("the dog sleeps.").input_ids == [3, 2, 2]
    assert len(tokenizer) == len(SPECIAL) + len(WORDS)


def test_words_are_decoded_with_blanks_between_them_and_without_special_tokens():
    policy = small_decoder(0, **SIZES, words=WORDS)
    text = "the cat a,b < sleeps ."
    assert policy.decode([*policy.encode(text), *policy.end_tokens]) == text
    assert policy.encode(policy.decode(policy.encode(text))) == policy.encode(text)
    assert policy.decode([]) == ""


def test_a_decoder_over_words_comes_back_from_its_folder(tmp_path):
    policy = small_decoder(0, **SIZES, words=WORDS)
    policy.save_pretrained(tmp_path)
    loaded = LanguagePolicy.from_pretrained(tmp_path)
    assert loaded.encode("the cat dog .") == policy.encode("the cat dog .")
    assert loaded.decode([4, 6]) == "cat ."
    assert torch.equal(loaded.head, policy.head)
    assert loaded.head.shape == (len(SPECIAL) + len(WORDS), 16)


def test_a_decoder_over_characters_is_what_it_was_before_there_were_words():
    policy = small_decoder(0, **SIZES)
    assert policy.head.shape[0] == len(SPECIAL) + 96
    assert policy.decode(policy.encode("1 + 1\n=2")) == "1 + 1\n=2"


@pytest.mark.parametrize("words", [(), "the cat", ("a", "b", "a"), ("a b",), ("",), ("<eos>",)])
def test_what_cannot_be_a_list_of_words_is_refused(words):
    with pytest.raises(SettingError):
        word_tokenizer(words)
