"""What a name such as `my_package.module:name` stands for: users bring their own code by it."""

from __future__ import annotations

import importlib
from typing import Any

from policysmith.common.errors import UnknownNameError


def load_named(name: str, *, what: str) -> Any:
    """The object at `package.module:name`, imported; `UnknownNameError` saying that `what` is not there."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownNameError(
            f"no {what} is found at '{name}': {error}",
            expected="package.module:name, importable from here",
        ) from error
