"""Where things that can be made again are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where finished runs and recorded data are kept: $POLICYSMITH_CACHE, or the user's cache folder."""
    chosen = os.environ.get("POLICYSMITH_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(base) / "policysmith"
