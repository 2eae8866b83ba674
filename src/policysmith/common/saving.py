"""Saving and loading: safetensors for numbers, JSON for the rest, nothing that could run code.

Files are written beside their place and renamed, so that a reader sees the old file or the new one and never
half of either. Three things are saved:

- a *tree* (nested dicts and lists of tensors and plain values: a run's state) as one safetensors file whose
  header carries the structure as JSON;
- a *module* decorated with `saveable`, as a folder of `config.json` (the class and its arguments) and
  `model.safetensors`, in the manner of Hugging Face;
- plain JSON.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from policysmith.common.errors import FileError

FORMAT = 1
"""Version of what is written here; a file with another number is refused."""


# ---- writing beside, then renaming -------------------------------------------------------------------


@contextmanager
def write_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder that takes the place of `path` when the block succeeds.

    The temporary path may become a file or a folder; a folder at `path` is replaced as a whole. Where the
    block raises, `path` is as it was and the temporary one is gone. A full disk, a folder that may not be
    written to and the like are a `FileError`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir():
            _replace_folder(temporary, path)
        else:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except FileError:
        raise
    except (OSError, SafetensorError) as error:
        raise FileError(f"it could not be written: {error}", where=str(path)) from error
    finally:
        _remove(temporary)


def _replace_folder(temporary: Path, path: Path) -> None:
    # A folder cannot be renamed over one that has contents, so the old one steps aside first.
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    if path.exists():
        os.replace(path, aside)
    try:
        os.replace(temporary, path)
    except OSError:
        if aside.exists():
            os.replace(aside, path)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def save_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON; floats that are not finite are refused (JSON has none)."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with write_beside(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def load_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON, with a `FileError` naming the file where it is missing or cut short."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileError(f"there is no file {path.name}", where=str(path.parent)) from error
    except OSError as error:
        raise FileError(f"it cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise FileError(f"not a complete JSON file: {error}", where=str(path)) from error


# ---- trees -------------------------------------------------------------------------------------------

Tree = Any
"""Nested dicts (string or integer keys) and lists of tensors, numbers, strings, booleans and None."""


def save_tree(path: str | os.PathLike[str], tree: Tree) -> None:
    """Write a tree as one safetensors file; the structure goes into its header as JSON."""
    tensors: dict[str, Tensor] = {}
    structure = _detach(tree, tensors)
    header = {"format": str(FORMAT), "tree": json.dumps(structure, allow_nan=False)}
    with write_beside(path) as temporary:
        safetensors.torch.save_file(tensors, str(temporary), metadata=header)


def load_tree(path: str | os.PathLike[str]) -> Tree:
    """Read what `save_tree` wrote; `FileError` where the file is missing, cut short or of another format."""
    path = Path(path)
    if not path.is_file():
        raise FileError(f"there is no file {path.name}", where=str(path.parent))
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            # Copies, because safetensors maps the file: a later checkpoint may delete it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FileError(f"the file is cut short or damaged: {error}", where=str(path)) from error
    if header.get("format") != str(FORMAT) or "tree" not in header:
        found, expected = header.get("format", "unknown"), f"format {FORMAT}, as this version writes it"
        raise FileError(f"the file has format {found}", where=str(path), expected=expected)
    try:
        return _attach(json.loads(header["tree"]), tensors)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError("the file is damaged: its header describes no tree", where=str(path)) from error


def _detach(tree: Tree, tensors: dict[str, Tensor]) -> Any:
    """The JSON structure of a tree, its tensors moved into `tensors` under running names."""
    if isinstance(tree, Tensor):
        name = str(len(tensors))
        # A clone, because safetensors refuses tensors that share memory.
        tensors[name] = tree.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(tree, Mapping):
        if wrong := [key for key, _ in tree.items() if not isinstance(key, str | int)]:
            raise TypeError(f"the keys of a tree are strings and integers, not {wrong[0]!r}")
        # Pairs keep integer keys (an optimiser numbers its parameters) apart from strings.
        return {"dict": [[key, _detach(value, tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        return {"list": [_detach(value, tensors) for value in tree]}
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"float": str(float(tree))}  # JSON has no infinity, a run's best score so far may be one
    if tree is None or isinstance(tree, bool | int | float | str):
        return {"value": tree}
    raise TypeError(f"a tree holds tensors, dicts, lists and plain values, not {type(tree).__name__}")


def _attach(structure: Any, tensors: Mapping[str, Tensor]) -> Tree:
    ((kind, content),) = structure.items()
    if kind == "dict":
        return {key: _attach(value, tensors) for key, value in content}
    if kind == "list":
        return [_attach(value, tensors) for value in content]
    return {"tensor": tensors.__getitem__, "float": float, "value": lambda value: value}[kind](content)


# ---- modules by name ---------------------------------------------------------------------------------

Module = TypeVar("Module", bound=nn.Module)

_CLASSES: dict[str, type[nn.Module]] = {}


def saveable(cls: type[Module]) -> type[Module]:
    """Class decorator: remember the constructor's arguments, so that a module can be rebuilt from JSON.

    Arguments must be plain values, lists or tuples of them, or saveable modules. Numbers fitted to data
    belong in buffers, which are saved with the weights.
    """
    initialise = cls.__init__
    signature = inspect.signature(initialise)

    @functools.wraps(initialise)
    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        initialise(self, *args, **kwargs)
        arguments = dict(bound.arguments)
        arguments.pop("self", None)
        # Not through nn.Module's own attribute, which would register the argument modules twice.
        object.__setattr__(self, "saved_arguments", arguments)

    cls.__init__ = remember
    _CLASSES[_name(cls)] = cls
    return cls


def save_pretrained(module: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Write a saveable module as a folder of `config.json` and `model.safetensors`."""
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    config = {"format": FORMAT, **_describe(module)}
    with write_beside(folder) as temporary:
        temporary.mkdir()
        save_json(temporary / "config.json", config)
        safetensors.torch.save_file(weights, str(temporary / "model.safetensors"))


def from_pretrained(folder: str | os.PathLike[str], *, expected: type[Module] = nn.Module) -> Module:
    """Rebuild the module that `save_pretrained` wrote into `folder`.

    Only classes decorated with `saveable` are built, from this package or already imported from another:
    a config file cannot make the program import or call anything else. Raises `FileError` for a folder that
    is not one of these, an unknown class, a class that is not `expected`, and weights that do not fit.
    """
    folder = Path(folder)
    config = load_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise FileError(
            "the configuration is of another format",
            where=str(folder / "config.json"),
            expected=f'"format": {FORMAT}',
        )
    with torch.random.fork_rng(devices=[]):  # weights are drawn only to be overwritten
        module = _build(config, folder)
    if not isinstance(module, expected):
        raise FileError(
            f"the folder holds a {type(module).__name__}",
            where=str(folder),
            expected=f"a {expected.__name__}",
        )
    try:
        weights = safetensors.torch.load_file(str(folder / "model.safetensors"))
    except (SafetensorError, OSError) as error:
        raise FileError(
            f"the weights are missing or cut short: {error}", where=str(folder / "model.safetensors")
        ) from error
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise FileError(f"the weights do not fit the configuration: {error}", where=str(folder)) from error
    return module


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _describe(value: Any) -> Any:
    if isinstance(value, nn.Module):
        if _name(type(value)) not in _CLASSES:
            raise TypeError(f"{type(value).__name__} is not decorated with `saveable`")
        arguments = {key: _describe(argument) for key, argument in value.saved_arguments.items()}  # type: ignore[union-attr]
        return {"class": _name(type(value)), "arguments": arguments}
    if isinstance(value, list | tuple):
        return [_describe(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"an argument of a saveable module must be plain, not {type(value).__name__}")


def _build(description: Any, folder: Path) -> Any:
    if isinstance(description, dict):
        cls = _find_class(str(description.get("class", "")), folder)
        try:
            return cls(**{key: _build(value, folder) for key, value in description["arguments"].items()})
        except FileError:
            raise
        except Exception as error:  # whatever a constructor says to arguments that are not its own
            what = f"a {cls.__name__} cannot be built from its saved arguments: {error}"
            raise FileError(what, where=str(folder / "config.json")) from error
    if isinstance(description, list):
        return tuple(_build(item, folder) for item in description)
    return description


def _find_class(name: str, folder: Path) -> type[nn.Module]:
    module = name.rpartition(".")[0]
    if name not in _CLASSES and module.startswith("policysmith."):
        # What cannot be imported is reported below, as a class that this version does not have.
        with suppress(ImportError, ValueError):
            importlib.import_module(module)
    if name not in _CLASSES:
        raise FileError(
            f"nothing here is called '{name}'",
            where=str(folder / "config.json"),
            expected="a class of this version of the library, or one you have imported before loading",
        )
    return _CLASSES[name]
