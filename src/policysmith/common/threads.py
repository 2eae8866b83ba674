"""How many threads PyTorch computes on, for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from policysmith.common.errors import SettingError


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let PyTorch compute on `count` threads inside the block; None leaves the number as it is."""
    if count is None:
        yield
        return
    if count < 1:
        raise SettingError(f"{count} threads were asked for", expected="at least 1")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
