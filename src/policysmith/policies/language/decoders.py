"""What an engine asks of a model: take prompts in, go on by one token, let rows go.

The rows that are being written lie in slots 0 .. active - 1, each with what it remembers of its text (keys
and values of every layer). `LlamaDecoder` reads the weights of a Hugging Face module where they lie and does
the arithmetic itself: on small batches the module's own machinery costs as much as its products. What a text
leaves behind is kept once for all rows that go on from it, and read once for them in every step.
`ModuleDecoder` calls the module, and so takes every architecture.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from policysmith.common.extras import require
from policysmith.policies.language.policy import LanguagePolicy

PREFILL_TOKENS = 4096
"""At most so many tokens of prompts go through the model at once, padding included."""

FUSED_WEIGHTS = 1 << 22
"""Models with fewer weights in their layers have them copied side by side: one product does for three."""


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


# ---- the fast path -----------------------------------------------------------------------------------


class LlamaDecoder:
    """Models of the Llama family: RMS norms, rotated keys, gated MLP; adapters of LoRA on any of them."""

    can_join = True

    def __init__(self, policy: LanguagePolicy) -> None:
        self.body = policy.body
        config = self.body.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.active = 0

    @staticmethod
    def knows(policy: LanguagePolicy) -> bool:
        """Whether the architecture is of the family, its attention neither in windows nor rescaled."""
        config = policy.body.config
        rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
        return (
            config.model_type in ("llama", "qwen2", "mistral")
            and policy.can_share_prompts
            and config.hidden_act == "silu"
            and rope in ("default", "linear", "llama3", "yarn")
        )

    def open(self, slots: int, *, text: int, limit: int) -> None:
        """See `Decoder`."""
        weight = self.body.embed_tokens.weight
        device, layers = weight.device, self.body.layers
        shape = (slots, self.kv_heads, limit, self.width)
        self.own = [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in layers]
        none = weight.new_zeros(0, self.kv_heads, 0, self.width)
        self.shared = [(none, none) for _ in layers]
        self.text_length = torch.zeros(0, dtype=torch.long, device=device)
        self.text_of = torch.zeros(slots, dtype=torch.long, device=device)
        self.count = torch.zeros(slots, dtype=torch.long, device=device)
        self.active = 0
        self.places = torch.arange(text + limit, device=device)
        cos, sin = self.body.rotary_emb(weight, position_ids=self.places[None])
        half = self.width // 2
        # x rotated = x cos + roll(x) sin, with the sign of the first half in the table.
        self.cos, self.sin = cos[0], torch.cat([-sin[0][:, :half], sin[0][:, half:]], dim=1)
        fuse = sum(p.numel() for p in layers.parameters()) <= FUSED_WEIGHTS
        self.products = [_Products(layer, fuse) for layer in layers]

    def admit(self, texts: Sequence[Sequence[int]], copies: Sequence[int]) -> list[Tensor]:
        """See `Decoder`."""
        hidden: list[Tensor] = []
        for chunk in _chunks(texts):
            hidden += self._prefill(texts[chunk], copies[chunk])
        self._regroup()
        return hidden

    def _prefill(self, texts: Sequence[Sequence[int]], copies: Sequence[int]) -> list[Tensor]:
        device = self.places.device
        length = torch.tensor([len(text) for text in texts], device=device)
        time = int(length.max())
        token = torch.zeros(len(texts), time, dtype=torch.long)
        for row, text in enumerate(texts):
            token[row, : len(text)] = torch.tensor(text)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            query, key, value = (x.transpose(1, 2) for x in (query, key, value))
            keys, values = self.shared[layer]
            self.shared[layer] = (_stacked(keys, key), _stacked(values, value))
            # Padding lies behind the text, and nothing looks ahead.
            out = F.scaled_dot_product_attention(
                query, key, value, is_causal=True, enable_gqa=self.heads != self.kv_heads
            )
            return out.transpose(1, 2)

        hidden = self._run(token.to(device), self.cos[:time, None], self.sin[:time, None], attend)
        repeat = torch.arange(len(texts)).repeat_interleave(torch.tensor(copies)).to(device)
        slots = slice(self.active, self.active + len(repeat))
        self.text_of[slots] = len(self.text_length) + repeat
        self.count[slots] = 0
        self.text_length = torch.cat([self.text_length, length])
        self.active += len(repeat)
        return [states[: len(text)] for states, text in zip(hidden, texts, strict=True)]

    def step(self, token: Tensor) -> Tensor:
        """See `Decoder`."""
        active = self.active
        count, text_of = self.count[:active], self.text_of[:active]
        length = self.text_length[text_of]
        own, shared = int(count.max()) + 1, int(self.text_length.max())
        position = length + count
        limit = self.own[0][0].shape[2]
        head = torch.arange(active * self.kv_heads, device=token.device).view(active, -1)
        place = (head * limit + count[:, None]).flatten()
        hidden_from = torch.cat(
            [self.places[:shared] >= length[:, None], self.places[:own] > count[:, None]], dim=1
        )[:, None, None]
        most = self.rows_of.shape[1]
        even = int(count.min()) + 1 == own  # rows that were taken in together write in the same column

        def remember(cache: Tensor, new: Tensor) -> None:
            if even:
                cache[:active, :, own - 1] = new
            else:
                cache.view(-1, self.width).index_copy_(0, place, new.reshape(-1, self.width))

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = self.own[layer]
            remember(keys, key)
            remember(values, value)
            shared_keys, shared_values = self.shared[layer]
            query = (query * self.width**-0.5).unflatten(1, (self.kv_heads, -1))
            # The rows of a text ask its keys together: they are read once for all of them.
            asked = query[self.rows_of].transpose(1, 2).flatten(2, 3)
            of_text = (asked @ shared_keys.transpose(2, 3)).unflatten(2, (most, -1)).transpose(1, 2)
            of_own = query @ keys[:active, :, :own].transpose(2, 3)
            score = torch.cat([of_text.flatten(0, 1)[self.place_of], of_own], dim=-1)
            p = (
                score.masked_fill_(hidden_from, float("-inf"))
                .softmax(-1, dtype=torch.float32)
                .to(query.dtype)
            )
            weigh = p[self.rows_of, ..., :shared].transpose(1, 2).flatten(2, 3)
            from_text = (weigh @ shared_values).unflatten(2, (most, -1)).transpose(1, 2)
            return from_text.flatten(0, 1)[self.place_of] + p[..., shared:] @ values[:active, :, :own]

        hidden = self._run(token, self.cos[position, None], self.sin[position, None], attend)
        count += 1
        return hidden

    def move(self, source: Sequence[int], target: Sequence[int], active: int) -> None:
        """See `Decoder`."""
        for old, new in zip(source, target, strict=True):
            used = int(self.count[old])
            for cache in (part for layer in self.own for part in layer):
                cache[new, :, :used] = cache[old, :, :used]
        old_slots, new_slots = list(source), list(target)
        self.count[new_slots], self.text_of[new_slots] = self.count[old_slots], self.text_of[old_slots]
        self.active = active
        self._regroup()

    def _regroup(self) -> None:
        """Forget texts that no row goes on from, and list the rows of each that is left.

        `rows_of` [text, most] are the rows of a text, filled up with its first; `place_of` [row] is where a
        row lies in that table.
        """
        kept, index = self.text_of[: self.active].unique(return_inverse=True)
        if len(kept) < len(self.text_length):
            self.text_length = self.text_length[kept]
            longest = int(self.text_length.max()) if len(kept) else 0
            self.shared = [(k[kept, :, :longest], v[kept, :, :longest]) for k, v in self.shared]
            self.text_of[: self.active] = index
        if not len(kept):
            return
        sizes = index.bincount()
        order = index.argsort(stable=True)
        first = sizes.cumsum(0) - sizes
        within = torch.empty_like(index)
        within[order] = torch.arange(self.active, device=index.device) - first.repeat_interleave(sizes)
        most = int(sizes.max())
        self.rows_of = order[first][:, None].repeat(1, most)
        self.rows_of[index, within] = torch.arange(self.active, device=index.device)
        self.place_of = index * most + within

    def _run(self, token: Tensor, cos: Tensor, sin: Tensor, attend: Callable[..., Tensor]) -> Tensor:
        """Hidden states of tokens [...]; `attend` remembers keys and values and looks back."""
        x = F.embedding(token, self.body.embed_tokens.weight)
        rotated = self.heads + self.kv_heads
        for index, (layer, product) in enumerate(zip(self.body.layers, self.products, strict=True)):
            normed = _normed(x, layer.input_layernorm.weight, self.eps)
            projected = product.qkv(normed).unflatten(-1, (-1, self.width))
            turning = projected[..., :rotated, :]
            turned = torch.addcmul(turning * cos, turning.roll(self.width // 2, -1), sin)
            query, key = turned[..., : self.heads, :], turned[..., self.heads :, :]
            out = attend(index, query, key, projected[..., rotated:, :])
            x = x + product.out(out.reshape(*token.shape, -1))
            normed = _normed(x, layer.post_attention_layernorm.weight, self.eps)
            gate, up = product.gate_up(normed).chunk(2, -1)
            x = x + product.down(F.silu(gate).mul_(up))
        return _normed(x, self.body.norm.weight, self.eps)


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The root-mean-square norm; by way of the vector norm, which needs no tensor of squares."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return (x * (size.square() / x.shape[-1] + eps).rsqrt()).to(x.dtype).mul_(weight)


def _stacked(old: Tensor, new: Tensor) -> Tensor:
    """Keys or values [text, head, time, width] below each other, the shorter filled up at the end."""
    time = max(old.shape[2], new.shape[2])
    return torch.cat([F.pad(x, (0, 0, 0, time - x.shape[2])) for x in (old, new)])


class _Products:
    """The matrix products of one layer, with those that share an input side by side."""

    def __init__(self, layer: Any, fuse: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv = _product([attention.q_proj, attention.k_proj, attention.v_proj], fuse)
        self.out = _product([attention.o_proj], fuse)
        self.gate_up = _product([mlp.gate_proj, mlp.up_proj], fuse)
        self.down = _product([mlp.down_proj], fuse)


Product = Callable[[Tensor], Tensor]


def _product(modules: Sequence[nn.Module], fuse: bool) -> Product:
    """x -> the modules' outputs, one behind the other."""
    parts = [_linear(module) for module in modules]
    if fuse:
        weight = torch.cat([weight if low is None else weight + low[1] @ low[0] for weight, _, low in parts])
        biases = [bias for _, bias, _ in parts]
        missing = any(bias is None for bias in biases)
        bias = None if missing else torch.cat(biases)  # type: ignore[arg-type]
        return lambda x: F.linear(x, weight, bias)

    def one(x: Tensor, weight: Tensor, bias: Tensor | None, low: tuple[Tensor, Tensor] | None) -> Tensor:
        out = F.linear(x, weight, bias)
        return out if low is None else out + F.linear(F.linear(x, low[0]), low[1])

    if len(parts) == 1:
        return lambda x: one(x, *parts[0])
    return lambda x: torch.cat([one(x, *part) for part in parts], dim=-1)


def _linear(module: Any) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor] | None]:
    """Weight, bias, and what an adapter adds to the weight as (down, up), its scale within."""
    if not hasattr(module, "lora_A"):
        return module.weight, module.bias, None
    base = module.base_layer
    if module.disable_adapters or module.merged:
        return base.weight, base.bias, None
    names = [name for name in module.active_adapters if name in module.lora_A]
    down = torch.cat([module.lora_A[name].weight for name in names])
    up = torch.cat([module.lora_B[name].weight * module.scaling[name] for name in names], dim=1)
    return base.weight, base.bias, (down, up)


# ---- every other architecture ------------------------------------------------------------------------


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


def _chunks(texts: Sequence[Sequence[int]]) -> list[slice]:
    """Cut texts into runs of at most `PREFILL_TOKENS` tokens, padding included."""
    chunks, start, longest = [], 0, 0
    for index, text in enumerate(texts):
        longest = max(longest, len(text))
        if index > start and longest * (index + 1 - start) > PREFILL_TOKENS:
            chunks.append(slice(start, index))
            start, longest = index, len(text)
    return [*chunks, slice(start, len(texts))]
