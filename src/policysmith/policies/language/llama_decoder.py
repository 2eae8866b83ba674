"""Writing with models of the Llama family: their arithmetic done here, in as few calls as it takes.

The weights of the Hugging Face module are read where they lie: on small batches the module's own machinery
costs as much as its products. What else a step costs is the reading of keys and values, so they are read once
and in the order in which they lie:

- what a text leaves behind is kept once for all rows that go on from it, and read once for them in a step;
- what rows add of their own lies in blocks of columns that are full but for the last. All rows write in the
  same column, in turn over as many columns as the longest may need, and a row sees those that are not older
  than itself. So rows that were taken in later need no place of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.networks.products import evened, linear
from policysmith.policies.language.llama_scoring import of_the_family
from policysmith.policies.language.policy import LanguagePolicy

PREFILL_TOKENS = 4096
"""At most so many tokens of prompts go through the model at once, padding included."""

FUSED_WEIGHTS = 1 << 22
"""Models with fewer weights in their layers have them copied side by side: one product does for three."""

FIRST_BLOCK = 16
"""Columns of the first block of the rows' own keys and values; each later one doubles them all."""

READ_TOGETHER = 16
"""Columns are read in lots of so many, the last of them perhaps unwritten: PyTorch hands batches of smaller
products to a plain loop, which takes several times as long."""


class LlamaDecoder:
    """A `Decoder` for RMS norms, rotated keys and gated MLPs, with adapters of LoRA on any of its layers.

    Keys and values are [pair, column, width], a pair being a head of a row, or of a text.
    """

    can_join = True

    def __init__(self, policy: LanguagePolicy) -> None:
        self.body = policy.body
        config = self.body.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = torch.tensor(config.rms_norm_eps, device=policy.device)
        self.active = 0

    @staticmethod
    def knows(policy: LanguagePolicy) -> bool:
        """Whether the architecture is of the family, its attention neither in windows nor rescaled."""
        return of_the_family(policy.body.config) and policy.can_share_prompts

    def open(self, slots: int, *, text: int, limit: int) -> None:
        """See `Decoder`."""
        weight, layers = self.body.embed_tokens.weight, self.body.layers
        device = weight.device
        self.own = _OwnCache(
            weight, layers=len(layers), pairs=slots * self.kv_heads, limit=limit, width=self.width
        )
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
        if self.active == 0:
            self.own.columns = 0
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
        active, pairs = self.active, self.active * self.kv_heads
        count = self.count[:active]
        length = self.text_length[self.text_of[:active]]
        position = length + count
        shared = self.shared[0][0].shape[2]
        age = self.own.next_column()
        hidden_from = torch.cat([self.places[:shared] >= length[:, None], age > count[:, None]], dim=1)
        bias = torch.zeros_like(hidden_from, dtype=self.cos.dtype).masked_fill_(hidden_from, float("-inf"))
        bias = bias[:, None]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            own = self.own.remember(layer, key, value)
            shared_keys, shared_values = (x.flatten(0, 1) for x in self.shared[layer])
            query = query.reshape(pairs, -1, self.width)
            # The rows of a text ask its keys together: they are read once for all of them.
            parts = [self._of_texts(query, shared_keys.transpose(1, 2))]
            parts += [query @ keys.transpose(1, 2) for _, keys, _ in own]
            score = torch.cat(parts, dim=2).view(active, -1, bias.shape[2])
            score = torch.add(bias, score, alpha=self.width**-0.5)
            p = score.softmax(2, dtype=torch.float32).to(query.dtype).view(pairs, -1, bias.shape[2])
            out = self._of_texts(p[..., :shared], shared_values)
            for at, _, values in own:
                out.baddbmm_(p[..., shared + at.start : shared + at.stop], values)
            return out

        hidden = self._run(token, self.cos[position, None], self.sin[position, None], attend)
        count += 1
        return hidden

    def _of_texts(self, x: Tensor, of_text: Tensor) -> Tensor:
        """x [pair of a row, query, k] times what its text has, [pair of a text, k, n]."""
        together = x.index_select(0, self.pairs_of).view(len(of_text), -1, x.shape[2])
        return (together @ of_text).view(len(self.pairs_of), x.shape[1], -1).index_select(0, self.place_of)

    def move(self, source: Sequence[int], target: Sequence[int], active: int) -> None:
        """See `Decoder`."""
        device = self.places.device
        old, new = (torch.tensor(list(slots), dtype=torch.long, device=device) for slots in (source, target))
        self.own.move(old, new, self.kv_heads)
        self.count[new], self.text_of[new] = self.count[old], self.text_of[old]
        self.active = active
        self._regroup()

    def _regroup(self) -> None:
        """Forget texts that no row goes on from, and list the rows of each that is left.

        `pairs_of` [text, head, most] are the pairs that ask a pair of a text, filled up with the first of
        them; `place_of` [row, head] is where the pair of a row lies in that table.
        """
        device = self.places.device
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
        row = torch.arange(self.active, device=device)
        within = torch.empty_like(index)
        within[order] = row - first.repeat_interleave(sizes)
        most = int(sizes.max())
        rows_of = order[first][:, None].repeat(1, most)
        rows_of[index, within] = row
        head = torch.arange(self.kv_heads, device=device)
        self.pairs_of = (rows_of[:, None] * self.kv_heads + head[:, None]).flatten()
        self.place_of = ((index[:, None] * self.kv_heads + head) * most + within[:, None]).flatten()

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
            gate, up = product.gate_up(normed)
            x = x + product.down(F.silu(gate, inplace=True).mul_(up))
        return _normed(x, self.body.norm.weight, self.eps)


class _OwnCache:
    """Keys and values that rows have added to their texts: blocks [pair, column, width] of `limit` columns.

    No row adds more than `limit`, so column `columns % limit` holds nothing that is still wanted. A block is
    made when its first column is written. Of the columns in use some are not written yet: they are older than
    any row.
    """

    def __init__(self, like: Tensor, *, layers: int, pairs: int, limit: int, width: int) -> None:
        self.like, self.pairs, self.limit, self.width = like, pairs, limit, width
        self.columns = 0  # how many have been written
        self.ends: list[int] = []
        self.blocks: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(layers)]

    def next_column(self) -> Tensor:
        """Begin a column; how many columns ago each of those in use was written."""
        column, self.columns = self.columns % self.limit, self.columns + 1
        if column == (self.ends[-1] if self.ends else 0):
            self._make_block(column)
        used = min(self.columns + -self.columns % READ_TOGETHER, self.ends[-1])
        self.in_use = [slice(a, min(b, used)) for a, b in pairwise([0, *self.ends]) if a < used]
        self.block = next(index for index, at in enumerate(self.in_use) if column < at.stop)
        self.place = column - self.in_use[self.block].start
        return (column - torch.arange(used, device=self.like.device)) % self.limit

    def _make_block(self, begin: int) -> None:
        end = min(max(FIRST_BLOCK, 2 * begin), self.limit)
        shape = (self.pairs, end - begin, self.width)
        self.ends.append(end)
        for blocks in self.blocks:
            blocks.append((self.like.new_zeros(shape), self.like.new_zeros(shape)))

    def remember(self, layer: int, key: Tensor, value: Tensor) -> list[tuple[slice, Tensor, Tensor]]:
        """Write [row, head, width] into the column; which columns are in use, with their keys and values."""
        pairs = key.shape[0] * key.shape[1]
        blocks = self.blocks[layer]
        for cache, new in zip(blocks[self.block], (key, value), strict=True):
            cache[:pairs, self.place] = new.reshape(pairs, -1)
        return [
            (at, keys[:pairs, : at.stop - at.start], values[:pairs, : at.stop - at.start])
            for at, (keys, values) in zip(self.in_use, blocks, strict=False)
        ]

    def move(self, source: Tensor, target: Tensor, heads: int) -> None:
        """Copy rows of `heads` pairs."""
        for cache in (cache for blocks in self.blocks for block in blocks for cache in block):
            rows = cache.view(-1, heads * cache[0].numel())
            rows[target] = rows[source]


def _normed(x: Tensor, weight: Tensor, eps: Tensor) -> Tensor:
    """The root-mean-square norm; by way of the vector norm, which needs no tensor of squares."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = torch.addcmul(eps, size, size, value=1 / x.shape[-1]).rsqrt_()
    return (x * scale).to(x.dtype).mul_(weight)


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
        if fuse:
            both = _product([mlp.gate_proj, mlp.up_proj], fuse, even=0)
            self.gate_up = lambda x: both(x).chunk(2, -1)
        else:
            gate, up = _product([mlp.gate_proj], fuse), _product([mlp.up_proj], fuse)
            self.gate_up = lambda x: (gate(x), up(x))
        self.down = _product([mlp.down_proj], fuse, even=1)


Product = Callable[[Tensor], Tensor]


def _product(modules: Sequence[nn.Module], fuse: bool, *, even: int | None = None) -> Product:
    """x -> the modules' outputs, one behind the other.

    Where they are fused, each matrix has zeros behind it along the axis `even` (see `products.evened`).
    """
    parts = [_linear(module) for module in modules]
    if fuse:
        weights = [weight if low is None else weight + low[1] @ low[0] for weight, _, low in parts]
        weight = torch.cat(weights if even is None else [evened(each, even) for each in weights])
        biases = [bias for _, bias, _ in parts]
        missing = any(bias is None for bias in biases)
        bias = None if missing else torch.cat(biases)  # type: ignore[arg-type]
        # Input by output, as the product reads it.
        transposed = weight.t().contiguous()
        return lambda x: F.linear(x, transposed.t(), bias)

    def one(x: Tensor, weight: Tensor, bias: Tensor | None, low: tuple[Tensor, Tensor] | None) -> Tensor:
        out = linear(x, weight, bias)
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


def _chunks(texts: Sequence[Sequence[int]]) -> list[slice]:
    """Cut texts into runs of at most `PREFILL_TOKENS` tokens, padding included."""
    chunks, start, longest = [], 0, 0
    for index, text in enumerate(texts):
        longest = max(longest, len(text))
        if index > start and longest * (index + 1 - start) > PREFILL_TOKENS:
            chunks.append(slice(start, index))
            start, longest = index, len(text)
    return [*chunks, slice(start, len(texts))]
