"""Running a prompt once for all the answers to it, forward and backward.

The rows of a group differ in their answers alone. Here a batch is laid out as one long line of tokens: every
prompt that differs, once, and behind them every answer, without padding. All that acts on tokens one by one
(projections, normalisation, embeddings) runs over that line, so the prompt costs its tokens once; attention
is the one place where tokens meet. For it prompts and answers are spread over rows again, and it is told who
sees whom: a prompt sees its own past, an answer its prompt and its own past. Numbers and gradients are those
of the rows run whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from policysmith.common.extras import require

ATTENTION = "policysmith_shared_prompts"
WORTH = 0.95
"""A layout is made where its line has at most this share of the tokens that the rows have run whole."""


@dataclass(frozen=True)
class Layout:
    """Rows [row, time] as prompts [prompt, start] and answers [row, rest], the first `start` tokens shared.

    The line is the tokens of prompts, then those of answers, without padding. What says where on the line
    something lies says any place for padding.

    - `token` [1, line] and `position` [1, line]: what is run.
    - `prompt` [prompt, start] and `answer` [row, rest]: where on the line their tokens lie.
    - `seen` [row, start + rest]: likewise, of what answers may see: their prompt and themselves.
    - `visible` [row, 1, rest, start + rest] bool: which of that each of their tokens does see.
    - `packed` [line]: for each token of the line, where it lies in prompts and answers, flattened.
    - `source` [row, time - 1]: where on the line lies the token at that place of the row.
    """

    token: Int[Tensor, "1 line"]
    position: Int[Tensor, "1 line"]
    prompt: Int[Tensor, "prompt start"]
    answer: Int[Tensor, "row rest"]
    seen: Int[Tensor, "row all"]
    visible: Bool[Tensor, "row 1 rest all"]
    packed: Int[Tensor, "line"]
    source: Int[Tensor, "row before"]


def share_prompts(token: Int[Tensor, "row time"], mask: Bool[Tensor, "row time"]) -> Layout | None:
    """Lay out rows that begin alike, without padding; None where that would save next to nothing.

    What comes before a row's first token in `mask` is its prompt, less its last token, which is run with the
    answer so that every answer has at least one. Rows share it where it is equal, whatever their group. What
    comes behind the last token in `mask` is not run, nor is that one, which predicts nothing.
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
    rest = max(1, int((last - length).max()))
    # Answers move to the left until they begin in the same column.
    column = length[:, None] + torch.arange(rest, device=token.device)
    there = torch.cat([(prompt >= 0).flatten(), (column < last[:, None]).flatten()])
    packed = there.nonzero()[:, 0]
    if len(packed) > WORTH * rows * (time - 1):
        return None
    answer = token.gather(1, column.clamp(max=time - 1))
    position = torch.cat([place.expand(len(prompt), start).flatten(), column.flatten()])
    on_line = (there.cumsum(0) - 1).clamp(min=0)
    of_prompt = on_line[: prompt.numel()].view(prompt.shape)
    of_answer = on_line[prompt.numel() :].view(answer.shape)
    seen = torch.cat([of_prompt[prompt_of], of_answer], dim=1)
    everywhere = torch.arange(time - 1, device=token.device)
    behind = start + (everywhere - length[:, None]).clamp(0, rest - 1)
    sees_prompt = (place < length[:, None])[:, None].expand(rows, rest, start)
    sees_answer = (
        torch.ones(rest, rest, dtype=torch.bool, device=token.device).tril().expand(rows, rest, rest)
    )
    return Layout(
        token=torch.cat([prompt.flatten(), answer.flatten()])[packed][None],
        position=position[packed][None],
        prompt=of_prompt,
        answer=of_answer,
        seen=seen,
        visible=torch.cat([sees_prompt, sees_answer], dim=2)[:, None],
        packed=packed,
        source=seen.gather(1, torch.where(everywhere < length[:, None], everywhere, behind)),
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
    if layout is None:
        out = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
        )
        return out.transpose(1, 2)
    parts = attend_apart(query, key, value, layout, scale=scale)
    return packed(parts, layout.packed)[None].unflatten(2, query.shape[1:2] + query.shape[3:])


def attend_apart(
    query: Float[Tensor, "1 head line width"],
    key: Float[Tensor, "1 kv line width"],
    value: Float[Tensor, "1 kv line width"],
    layout: Layout,
    *,
    scale: float | None = None,
) -> tuple[Float[Tensor, "prompt start all"], Float[Tensor, "row rest all"]]:
    """What the tokens of prompts and of answers attend to, each spread over its rows, heads side by side."""
    grouped = query.shape[1] != key.shape[1]

    def at(x: Tensor, place: Tensor) -> Tensor:
        line = x[0].transpose(0, 1)
        return line.index_select(0, place.flatten()).unflatten(0, place.shape).transpose(1, 2)

    prompt = F.scaled_dot_product_attention(
        at(query, layout.prompt),
        at(key, layout.prompt),
        at(value, layout.prompt),
        is_causal=True,
        scale=scale,
        enable_gqa=grouped,
    )
    answer = F.scaled_dot_product_attention(
        at(query, layout.answer),
        at(key, layout.seen),
        at(value, layout.seen),
        attn_mask=layout.visible,
        scale=scale,
        enable_gqa=grouped,
    )
    return prompt.transpose(1, 2).flatten(2), answer.transpose(1, 2).flatten(2)


def packed(parts: Sequence[Float[Tensor, "row time width"]], place: Int[Tensor, "line"]) -> Tensor:
    """The line [line, width] of what lies in prompts and answers."""
    return torch.cat([part.flatten(0, 1) for part in parts]).index_select(0, place)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, *, layout: Layout, **options: Any
) -> tuple[Tensor, None]:
    """`attend` as transformers calls it."""
    return attend(query, key, value, layout, scale=options.get("scaling")), None
