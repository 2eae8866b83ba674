"""Where a result comes from: the commit of the library that made it."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path


@functools.cache
def commit() -> str:
    """The commit of the library's checkout, with `+changes` where it is not clean; empty if installed."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        revision = git("rev-parse", "HEAD")
        tracked = bool(revision) and bool(git("ls-files", "--", str(Path(__file__))))
        if not tracked:
            return ""  # an installed copy that happens to lie inside somebody's checkout
        return revision + ("+changes" if git("status", "--porcelain", "--", str(folder.parent)) else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""
