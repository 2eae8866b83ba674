"""A linear map whose matrix is much taller than the batch: the last layer of a language model.

    y = x W' + b,  W [many outputs, width]

On a processor such a product is a matter of reading W once, and a library that cuts the work as it does for
square matrices reads it in an order that costs up to twice the time. Cut into blocks of a few hundred
outputs, each a product of its own within one call, it runs at the speed of the memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

BLOCK = 256
"""Outputs of one block."""

TALL = 2048
"""Matrices with fewer outputs are left whole."""

EVEN = 8
"""Floats that a processor takes at once: rows of a product that are a multiple of it begin where it likes."""


def evened(weight: Float[Tensor, "output width"], axis: int) -> Float[Tensor, "more wider"]:
    """`weight` with zeros behind it along `axis`, up to the next multiple of `EVEN`; itself where it is one.

    On a processor a product whose rows are 341 wide takes nearly twice the time of one with 344.
    """
    rest = -weight.shape[axis] % EVEN
    if rest == 0:
        return weight
    return F.pad(weight, (0, 0, 0, rest) if axis == 0 else (0, rest))


def linear(
    x: Float[Tensor, "*batch width"],
    weight: Float[Tensor, "output width"],
    bias: Float[Tensor, "output"] | None = None,
) -> Float[Tensor, "*batch output"]:
    """What `torch.nn.functional.linear` gives, sooner for tall matrices on a processor.

    Tall matrices are cut where no gradients are asked for; elsewhere the call is passed on.
    """
    outputs = len(weight)
    if outputs < TALL or x.device.type != "cpu" or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    blocks = outputs // BLOCK
    whole = blocks * BLOCK
    y = rows.new_empty(len(rows), outputs)
    torch.bmm(
        rows.expand(blocks, *rows.shape),
        weight[:whole].view(blocks, BLOCK, -1).transpose(1, 2),
        out=y[:, :whole].unflatten(1, (blocks, BLOCK)).transpose(0, 1),
    )
    if whole < outputs:
        torch.mm(rows, weight[whole:].t(), out=y[:, whole:])
    if bias is not None:
        y += bias
    return y.view(*x.shape[:-1], outputs)
