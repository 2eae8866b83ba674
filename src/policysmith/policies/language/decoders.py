"""What an engine asks of a model: take prompts in, go on by one token, let rows go.

The rows that are being written lie in slots 0 .. active - 1, each with what it remembers of its text (keys
and values of every layer). `LlamaDecoder` does the arithmetic of its family itself; `ModuleDecoder` calls the
model's own module, and so takes every architecture.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.extras import require
from policysmith.policies.language.llama_decoder import LlamaDecoder
from policysmith.policies.language.policy import LanguagePolicy


class Decoder(Protocol):
    """A model in the middle of writing."""

    can_join: bool
    """Whether rows may be taken in while others are being written."""

    def open(self, slots: int, *, text: int, limit: int) -> None:
        """Forget all rows; make room for `slots` that go on by up to `limit` tokens from texts of up to
        `text`.

        The weights are those of now.
        """
        ...

    def admit(
        self, texts: Sequence[Sequence[int]], copies: Sequence[int]
    ) -> list[Float[Tensor, "time width"]]:
        """Run each text once and give it `copies` slots behind those taken; its hidden states."""
        ...

    def step(self, token: Int[Tensor, "active"]) -> Float[Tensor, "active width"]:
        """Take in the next token of every row; the hidden states after it."""
        ...

    def move(self, source: Sequence[int], target: Sequence[int], active: int) -> None:
        """Let the rows in slots `source` go over to `target`, and forget all from slot `active` on."""
        ...


def decoder(policy: LanguagePolicy) -> Decoder:
    """The fastest decoder that knows the policy's architecture."""
    return LlamaDecoder(policy) if LlamaDecoder.knows(policy) else ModuleDecoder(policy)


class ModuleDecoder:
    """Any causal model through its own module and cache: padding on the left, one column for all rows."""

    def __init__(self, policy: LanguagePolicy) -> None:
        self.body = policy.body
        self.device = policy.device
        self.pad = policy.tokenizer.pad_token_id
        # A cache of windows or of states that are not per position cannot be laid beside a longer one.
        self.can_join = policy.can_share_prompts
        parameters = inspect.signature(self.body.forward).parameters
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"

    def open(self, slots: int, *, text: int, limit: int) -> None:
        """See `Decoder`."""
        self.cache: Any = None
        self.seen = torch.zeros(0, 0, dtype=torch.long, device=self.device)

    def admit(self, texts: Sequence[Sequence[int]], copies: Sequence[int]) -> list[Tensor]:
        """See `Decoder`."""
        time = max(map(len, texts))
        token = torch.tensor([[self.pad] * (time - len(text)) + list(text) for text in texts])
        seen = torch.tensor([[0] * (time - len(text)) + [1] * len(text) for text in texts]).to(self.device)
        utilities = require("transformers.cache_utils", extra="language")
        cache = utilities.DynamicCache(config=self.body.config)
        hidden = self._call(token.to(self.device), seen, (seen.cumsum(1) - 1).clamp(min=0), cache)
        repeat = torch.arange(len(texts)).repeat_interleave(torch.tensor(copies)).to(self.device)
        cache.batch_select_indices(repeat)
        self._join(cache, seen[repeat])
        return [states[time - len(text) :] for states, text in zip(hidden, texts, strict=True)]

    def step(self, token: Tensor) -> Tensor:
        """See `Decoder`."""
        position = self.seen.sum(1, keepdim=True)
        self.seen = F.pad(self.seen, (0, 1), value=1)
        return self._call(token[:, None], self.seen, position, self.cache)[:, 0]

    def move(self, source: Sequence[int], target: Sequence[int], active: int) -> None:
        """See `Decoder`."""
        index = torch.arange(active)
        index[list(target)] = torch.tensor(list(source), dtype=torch.long)
        index = index.to(self.device)
        self.seen = self.seen[index]
        if active:
            self.cache.batch_select_indices(index)
        else:
            self.cache = None

    def _call(self, token: Tensor, seen: Tensor, position: Tensor, cache: Any) -> Tensor:
        options = {self._cache_name: cache, "use_cache": True}
        output = self.body(input_ids=token, attention_mask=seen, position_ids=position, **options)
        return output.last_hidden_state

    def _join(self, cache: Any, seen: Tensor) -> None:
        if self.cache is None:
            self.cache, self.seen = cache, seen
            return
        time = max(self.seen.shape[1], seen.shape[1])

        def both(mine: Tensor, theirs: Tensor, *, after: int) -> Tensor:
            widened = [F.pad(x, (0, 0) * after + (time - x.shape[-1 - after], 0)) for x in (mine, theirs)]
            return torch.cat(widened)

        for mine, theirs in zip(self.cache.layers, cache.layers, strict=True):
            mine.keys = both(mine.keys, theirs.keys, after=1)
            mine.values = both(mine.values, theirs.values, after=1)
        self.seen = both(self.seen, seen, after=0)
