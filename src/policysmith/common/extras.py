"""Optional packages, imported where they are used; a missing one names the extra that brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

from policysmith.common.errors import MissingExtraError


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, or say which extra of this package installs it.

    Raises `MissingExtraError` only where `module` itself or a package above it is absent: an import error
    from inside it is passed on, because installing the extra again would not cure it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise MissingExtraError(
            f"the package '{error.name}' is not installed",
            cure=f"pip install 'policysmith[{extra}]'",
        ) from error
