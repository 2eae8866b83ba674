"""Bringing a causal language model and its tokenizer from a folder, a name or a GGUF file.

Weights are read from safetensors or GGUF and never unpickled, and no code that comes with a model is run.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from policysmith.common.errors import CapabilityError, FileError
from policysmith.common.extras import require

EXTRA = "language"
"""The extra of this package that brings what language models need."""


def load_model(
    source: str | os.PathLike[str],
    *,
    gguf_file: str | None = None,
    dtype: torch.dtype = torch.float32,
    local_files_only: bool = False,
) -> tuple[Any, Any]:
    """The causal model and the tokenizer at `source`: a folder, a name on the Hub, or a `.gguf` file.

    `gguf_file` names one inside a folder or a repository. `local_files_only` looks in the cache and reaches
    for no network. Raises `FileError` where nothing can be had from there, saying why.
    """
    path = Path(source)
    if path.suffix == ".gguf":
        source, gguf_file = path.parent, path.name
        if not path.is_file():
            raise FileError(f"there is no file {path.name}", where=str(path.parent))
    if gguf_file is not None:
        require("gguf", extra=EXTRA)
    options = {"gguf_file": gguf_file, "local_files_only": local_files_only}
    try:
        with _without_collecting_garbage(), without_bars():
            transformers = require("transformers", extra=EXTRA)
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(source), **options)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(source), dtype=dtype, use_safetensors=None if gguf_file else True, **options
            )
    except (OSError, ValueError) as error:
        raise _cannot_be_had(source, error) from error
    if gguf_file is not None:
        _forget_quantisation(model)
    return model.eval(), tokenizer


@contextmanager
def without_bars() -> Iterator[None]:
    """Inside the block transformers draws no progress bars of its own; ours say what is being done."""
    logging = require("transformers.utils.logging", extra=EXTRA)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _without_collecting_garbage() -> Iterator[None]:
    """Importing transformers makes a million objects that stay; searching them again and again for garbage
    takes a fifth of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def complete_tokenizer(tokenizer: Any, vocabulary: int) -> str:
    """Give the tokenizer a padding token where it has none; returns what was done, or nothing.

    The end token serves: padding is never attended to and never learnt from. Raises `CapabilityError` where
    there is no end token either, and where the tokenizer knows more tokens than the model.
    """
    if len(tokenizer) > vocabulary:
        raise CapabilityError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {vocabulary}",
            cure="load the tokenizer that the model was trained with, or resize the model's embeddings",
        )
    if tokenizer.pad_token_id is not None:
        return ""
    if tokenizer.eos_token_id is None:
        raise CapabilityError(
            "the tokenizer has neither a padding token nor an end token",
            cure="name one of its tokens: tokenizer.eos_token = '...'",
        )
    tokenizer.pad_token = tokenizer.eos_token
    return f"the tokenizer has no padding token; its end token {tokenizer.eos_token!r} stands in"


def _forget_quantisation(model: Any) -> None:
    """A GGUF file is read into plain weights; the model must not go on taking itself for a quantised one."""
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _cannot_be_had(source: str | os.PathLike[str], error: Exception) -> FileError:
    where = str(source)
    folder = Path(where)
    if folder.is_dir():
        files = sorted(file.name for file in folder.iterdir())
        unsafe = [name for name in files if name.endswith((".bin", ".pt", ".pth"))]
        cure = (
            "convert the weights to safetensors: a pickle is not opened, because it can run code"
            if unsafe and not any(name.endswith(".safetensors") for name in files)
            else "see what the folder lacks; `policysmith models list` shows models that can be brought"
        )
        return FileError(f"no language model can be loaded from there: {error}", where=where, cure=cure)
    first = str(error).strip().split("\n", 1)[0]
    return FileError(
        f"there is no such folder, and no model of that name can be reached: {first}",
        where=where,
        expected="a folder with a Hugging Face model, a .gguf file, or a name on the Hub",
        cure="check the spelling and the network, or bring a model: `policysmith models get smollm2-135m`",
    )
