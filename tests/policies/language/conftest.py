"""Tiny language models with random weights, large enough to have opinions."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.rng import seeded_initialisation
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.small import character_tokenizer, small_decoder

ARCHITECTURES = ["llama", "qwen2", "gpt2"]


def tiny(kind: str, *, seed: int = 0, context: int = 64) -> LanguagePolicy:
    import transformers

    tokenizer = character_tokenizer()
    known = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=context, **known)
    else:
        build = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}[kind]
        config = build(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=context,
            **known,
        )
    with seeded_initialisation(seed):
        model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            # Fresh models are nearly indifferent, and a bias of zero would not show if it were lost.
            weight.mul_(4) if weight.dim() > 1 else weight.add_(torch.linspace(-0.2, 0.2, len(weight)))
    return LanguagePolicy(model, tokenizer)


@pytest.fixture(params=ARCHITECTURES)
def any_policy(request) -> LanguagePolicy:
    return tiny(request.param)


@pytest.fixture
def policy() -> LanguagePolicy:
    return tiny("llama")


@pytest.fixture
def small() -> LanguagePolicy:
    return small_decoder(0, width=32, layers=2, heads=2, context=64)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def make_tiny():
    return tiny
