"""Configurations: frozen dataclasses, to JSON and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from policysmith.common.errors import SettingError

Config = TypeVar("Config")


def config_to_json(config: Any) -> dict[str, Any]:
    """A configuration as plain data; tuples become lists, nested configurations mappings."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    return plain(config)


def config_from_json(cls: type[Config], data: Mapping[str, Any]) -> Config:
    """A configuration of class `cls` from what `config_to_json` returned.

    Raises `SettingError` for settings that this version does not have and for values that do not fit;
    missing ones take their defaults.
    """
    hints = typing.get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(data) - known):
        raise SettingError(
            f"unknown settings {unknown}",
            where=f"the saved configuration of {cls.__module__}",
            expected=f"among {sorted(known)}",
            cure="use the version of the library that wrote it",
        )
    try:
        return cls(**{name: _typed(hints[name], value) for name, value in data.items()})
    except TypeError as error:
        raise SettingError(
            f"the settings do not fit: {error}", where=f"the saved configuration of {cls.__module__}"
        ) from error


def _typed(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        choices = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        return None if value is None else _typed(choices[0], value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return config_from_json(hint, value)
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return tuple(_typed(inner, item) for item in value)
    return value
