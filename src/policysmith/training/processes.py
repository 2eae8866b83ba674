"""Several processes on one run, started by `torchrun` or `accelerate launch`.

Every process holds the whole batch and makes the same decisions from it; what costs time is shared out: each
answers a part of the prompts and takes a part of each optimiser batch. Answers are gathered and gradients are
summed, so that the run is that of one process but for rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor

Item = TypeVar("Item")


def start() -> None:
    """Join the processes that a launcher started, as its environment variables say; nothing for one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def count() -> int:
    """How many processes work on the run."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def number() -> int:
    """Which of them this one is; number 0 writes files and talks."""
    return distributed.get_rank() if count() > 1 else 0


def share(items: Sequence[Item]) -> list[Item]:
    """The items that fall to this process, every `count()`-th one."""
    return list(items[number() :: count()])


def gather(item: Item) -> list[Item]:
    """What every process has, in their order, on all of them."""
    if count() == 1:
        return [item]
    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, item)
    return found


def wait() -> None:
    """Go on when all processes have come here."""
    if count() > 1:
        distributed.barrier()


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its sum over the processes; one that is missing counts as zero."""
    if count() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)


def sum_numbers(numbers: dict[str, float]) -> dict[str, float]:
    """Each number, summed over the processes that have it."""
    if count() == 1:
        return numbers
    total: dict[str, float] = {}
    for part in gather(numbers):
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total
