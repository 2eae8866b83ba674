"""Running a prompt once for all the answers to it, forward and backward.

The rows of a group differ in their answers alone. Here a batch is laid out as one long line of tokens: every
prompt that differs, once, and behind them every answer. All that acts on tokens one by one (projections,
normalisation, embeddings) runs over that line, so the prompt costs its tokens once; attention is the one
place where tokens meet, and it is told who sees whom: a prompt sees its own past, an answer its prompt and
its own past. Numbers and gradients are those of the rows run whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from policysmith.common.extras import require

ATTENTION = "policysmith_shared_prompts"


@dataclass(frozen=True)
class Layout:
    """Rows [row, time] as prompts [prompt, start] and answers [row, rest], the first `start` tokens shared.

    - `token` [1, line] and `position` [1, line]: prompts flattened, then answers flattened.
    - `prompt_of` [row]: which prompt a row answers; `prompts`, `start`, `rows`, `rest`: the sizes.
    - `source` [row, time - 1]: where on the line lies the token at that place of the row.
    - `visible` [row, 1, rest, start + rest] bool: what an answer's token may see.
    """

    token: Int[Tensor, "1 line"]
    position: Int[Tensor, "1 line"]
    prompt_of: Int[Tensor, "row"]
    prompts: int
    start: int
    source: Int[Tensor, "row before"]
    visible: Bool[Tensor, "row 1 rest all"]

    @property
    def line(self) -> int:
        """How many tokens are run, padding included."""
        return self.token.shape[1]


def share_prompts(token: Int[Tensor, "row time"], mask: Bool[Tensor, "row time"]) -> Layout | None:
    """Lay out rows that begin alike; None where that would not save tokens.

    What comes before a row's first token in `mask` is its prompt, less its last token, which is run with the
    answer so that every answer has at least one. Rows share it where it is equal, whatever their group.
    """
    rows, time = token.shape
    length = (mask.int().argmax(1) - 1).clamp(min=0)  # of the shared part
    start = int(length.max())
    if start == 0:
        return None
    place = torch.arange(start, device=token.device)
    key = token[:, :start].masked_fill(place >= length[:, None], -1)
    prompt, prompt_of = key.unique(dim=0, return_inverse=True)
    last = torch.where(mask, torch.arange(time, device=token.device), 0).amax(1)
    rest = max(1, int((last - length).max()))  # the last token of a row predicts nothing
    if len(prompt) * start + rows * rest >= rows * (time - 1):
        return None
    # Answers move to the left until they begin in the same column.
    column = length[:, None] + torch.arange(rest, device=token.device)
    answer = token.gather(1, column.clamp(max=time - 1))
    positions = torch.cat([place.expand(len(prompt), start).flatten(), column.flatten()])
    everywhere = torch.arange(time - 1, device=token.device)
    in_prompt = prompt_of[:, None] * start + everywhere.clamp(max=start - 1)
    first = len(prompt) * start + torch.arange(rows, device=token.device)[:, None] * rest
    in_answer = first + (everywhere - length[:, None]).clamp(0, rest - 1)
    source = torch.where(everywhere < length[:, None], in_prompt, in_answer)
    sees_prompt = (place < length[:, None])[:, None].expand(rows, rest, start)
    sees_answer = (
        torch.ones(rest, rest, dtype=torch.bool, device=token.device).tril().expand(rows, rest, rest)
    )
    return Layout(
        torch.cat([prompt.clamp(min=0).flatten(), answer.flatten()])[None],
        positions.clamp(max=time - 1)[None],
        prompt_of,
        len(prompt),
        start,
        source,
        torch.cat([sees_prompt, sees_answer], dim=2)[:, None],
    )


@contextmanager
def attending_by_layout(config: Any) -> Iterator[None]:
    """Inside the block the model of this configuration attends as the `layout` given to its call says."""
    attentions = require("transformers.modeling_utils", extra="language").ALL_ATTENTION_FUNCTIONS
    if ATTENTION not in attentions:
        attentions.register(ATTENTION, _attention)
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def attend(
    query: Float[Tensor, "row head time width"],
    key: Float[Tensor, "row kv time width"],
    value: Float[Tensor, "row kv time width"],
    layout: Layout | None = None,
    *,
    scale: float | None = None,
) -> Float[Tensor, "row time head width"]:
    """Causal attention; with a layout, of the one row of tokens that it lays out."""
    grouped = query.shape[1] != key.shape[1]
    if layout is None:
        out = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=grouped
        )
        return out.transpose(1, 2)
    cut = layout.prompts * layout.start

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        heads, width = x.shape[1], x.shape[3]
        line = x[0].transpose(0, 1)
        prompt = line[:cut].view(layout.prompts, layout.start, heads, width).transpose(1, 2)
        return prompt, line[cut:].view(len(layout.prompt_of), -1, heads, width).transpose(1, 2)

    (query_p, query_a), (key_p, key_a), (value_p, value_a) = parts(query), parts(key), parts(value)
    prompt = F.scaled_dot_product_attention(
        query_p, key_p, value_p, is_causal=True, scale=scale, enable_gqa=grouped
    )
    answer = F.scaled_dot_product_attention(
        query_a,
        torch.cat([key_p[layout.prompt_of], key_a], dim=2),
        torch.cat([value_p[layout.prompt_of], value_a], dim=2),
        attn_mask=layout.visible,
        scale=scale,
        enable_gqa=grouped,
    )
    line = [part.transpose(1, 2).reshape(-1, *query.shape[1::2]) for part in (prompt, answer)]
    return torch.cat(line)[None]


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, *, layout: Layout, **options: Any
) -> tuple[Tensor, None]:
    """`attend` as transformers calls it."""
    return attend(query, key, value, layout, scale=options.get("scaling")), None
