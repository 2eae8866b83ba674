"""A small language model to learn from scratch: a decoder over characters.

Width 128 and four layers make about 0.8 million weights. Its vocabulary is printable ASCII and the line
break, one token a character, so that arithmetic with a written scratchpad is within its reach in minutes.
"""

from __future__ import annotations

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
    transformers = require("transformers", extra=EXTRA)
    vocabulary = {piece: index for index, piece in enumerate((*SPECIAL, *CHARACTERS))}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def small_decoder(
    seed: int, *, width: int = 128, layers: int = 4, heads: int = 4, context: int = 512
) -> LanguagePolicy:
    """A Llama-style decoder over characters whose weights depend on `seed` and the sizes alone."""
    if width % (2 * heads) or min(width, layers, heads, context) < 1:
        raise SettingError(
            f"width {width}, {layers} layers, {heads} heads, context {context}",
            expected="1 or more of each, and heads of an even width",
        )
    transformers = require("transformers", extra=EXTRA)
    tokenizer = character_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        # Three matrices of 8/3 widths weigh as much as two of four.
        intermediate_size=8 * width // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with seeded_initialisation(seed):
        model = transformers.LlamaForCausalLM(config)
    return LanguagePolicy(model, tokenizer)
