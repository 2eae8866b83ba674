"""Experiments of several parts, each with arms and comparisons of its own, that make one record together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policysmith.common.stages import Stage
from policysmith.evaluation import claim


@dataclass(frozen=True)
class Part:
    """What a part came to: arms, what is said of them, its settings, and the seconds it took."""

    arms: Sequence[claim.Arm]
    comparisons: Sequence[claim.Comparison]
    settings: Mapping[str, Any]
    seconds: float


RunPart = Callable[[Sequence[int], Path, int, bool], Generator[Stage, None, Part]]
"""(seeds, cache folder, held-out prompts, whether with ablations) -> the part."""
