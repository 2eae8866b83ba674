"""Optional packages, imported where they are used; a missing one names the extra that brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

from policysmith.common.errors import MissingExtraError


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, or say which extra of this package installs it.

    Raises `MissingExtraError` only where the package itself is absent: an import error from inside an
    installed package is passed on, because installing the extra again would not cure it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"the package '{module.split('.')[0]}' is not installed",
            cure=f"pip install 'policysmith[{extra}]'",
        ) from error
