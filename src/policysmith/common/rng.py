"""Explicit randomness: every generator is made from a seed and a path of names, and none is global.

`derive(seed, "evaluation", 3)` is the same integer on every machine and in every process, and unrelated to
`derive(seed, "evaluation", 4)`: parts of a run draw from generators of their own, so that adding a draw to
one part does not move another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *path: str | int) -> int:
    """A seed in [0, 2^31) for the part of a run that `path` names, from the run's own `seed`.

    Below 2^31 because some simulators take no more than a signed 32-bit seed.
    """
    # As JSON, in which ("a", "b") and ("a/b",), or 2 and "2", are not the same.
    text = json.dumps([int(seed), *(part if isinstance(part, str) else int(part) for part in path)])
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little") % 2**31


def generator(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh `torch.Generator` for the part of a run that `path` names."""
    return torch.Generator(device=device).manual_seed(derive(seed, *path))


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """A fresh NumPy generator for the part of a run that `path` names."""
    return np.random.default_rng(derive(seed, *path))


def draw_seed(rng: torch.Generator) -> int:
    """Draw a seed in [0, 2^31) from `rng`, to start another generator from it."""
    return int(torch.randint(0, 2**31 - 1, (), generator=rng, device=rng.device))


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Make modules inside the block with weights that depend on `seed` alone.

    PyTorch initialises weights from its global generator, so that one is borrowed and put back as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "weights"))
        yield


@contextmanager
def global_randomness(rng: torch.Generator) -> Iterator[None]:
    """Make what draws from PyTorch's global generators, as dropout does, depend on `rng` inside the block.

    One seed is drawn from `rng`; the global generators, of every device, are put back as they were.
    """
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(draw_seed(rng))
        yield
