"""A small language model to learn from scratch: a decoder over characters, or over words.

Width 128 and four layers make about 0.8 million weights. Its vocabulary is printable ASCII and the line
break, one token a character, so that arithmetic with a written scratchpad is within its reach in minutes; or
it is a list of words, one token a word, so that what is written can be told from what it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policysmith.common.errors import SettingError
from policysmith.common.extras import require
from policysmith.common.rng import seeded_initialisation
from policysmith.policies.language.loading import EXTRA
from policysmith.policies.language.policy import LanguagePolicy

SPECIAL = ("<pad>", "<eos>", "<unk>")
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))


def character_tokenizer() -> Any:
    """A fast tokenizer with one token per printable ASCII character; any other character is `<unk>`."""
    tokenizers = require("tokenizers", extra=EXTRA)
    tokenizer = _tokenizer_of(CHARACTERS)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = tokenizers.decoders.Fuse()
    return _fast(tokenizer)


def word_tokenizer(words: Sequence[str]) -> Any:
    """A fast tokenizer with one token per word, in their order; any other word is `<unk>`.

    Text is cut where there is white space and nowhere else, so that a point between blanks is a word too;
    what is decoded has one blank between words. Raises `SettingError` for no words, for a word twice, and for
    one that is empty, holds white space or is a special token.
    """
    if isinstance(words, str) or not words:
        raise SettingError(f"words are {words!r}", expected="a sequence of words, at least one")
    wrong = [word for word in words if word in SPECIAL or word.split() != [word]]
    twice = sorted({word for word in words if list(words).count(word) > 1})
    if wrong or twice:
        raise SettingError(
            f"words that cannot be tokens: {[*wrong, *twice][:5]}",
            expected=f"each once, without white space, and none of {', '.join(SPECIAL)}",
        )
    tokenizers = require("tokenizers", extra=EXTRA)
    tokenizer = _tokenizer_of(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return _fast(tokenizer)


def small_decoder(
    seed: int,
    *,
    width: int = 128,
    layers: int = 4,
    heads: int = 4,
    context: int = 512,
    words: Sequence[str] = (),
    spread: float = 0.02,
) -> LanguagePolicy:
    """A Llama-style decoder whose weights depend on `seed` and the sizes alone.

    It reads characters, or `words` where they are given (`word_tokenizer`). `spread` is the standard
    deviation of its weights: near 1 / sqrt(width) it learns sooner to copy from what it reads than with 0.02.
    """
    if not 0 < spread < 1:
        raise SettingError(f"weights with a spread of {spread}", expected="between 0 and 1")
    if width % (2 * heads) or min(width, layers, heads, context) < 1:
        raise SettingError(
            f"width {width}, {layers} layers, {heads} heads, context {context}",
            expected="1 or more of each, and heads of an even width",
        )
    transformers = require("transformers", extra=EXTRA)
    tokenizer = word_tokenizer(words) if words else character_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        # Three matrices of 8/3 widths weigh as much as two of four.
        intermediate_size=8 * width // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        initializer_range=spread,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with seeded_initialisation(seed):
        model = transformers.LlamaForCausalLM(config)
    return LanguagePolicy(model, tokenizer)


def _tokenizer_of(pieces: Sequence[str]) -> Any:
    """A tokenizer that knows these pieces behind the special tokens, and not yet where to cut a text."""
    tokenizers = require("tokenizers", extra=EXTRA)
    vocabulary = {piece: index for index, piece in enumerate((*SPECIAL, *pieces))}
    return tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))


def _fast(tokenizer: Any) -> Any:
    transformers = require("transformers", extra=EXTRA)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
