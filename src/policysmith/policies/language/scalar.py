"""A language model that says one number about a text: its body, and a linear head at the last token.

    z(text) = w . h[last token of the text] + b

Reward models and preference models are this. They are saved as a folder: `body` (the language model with its
tokenizer), `head.safetensors`, and `scalar.json`, which says what the number means.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import safetensors.torch
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn

from policysmith.common.errors import DataError, FileError
from policysmith.common.saving import load_json, save_json, write_beside
from policysmith.policies.language.policy import LanguagePolicy

_SETTINGS, _HEAD, _BODY = "scalar.json", "head.safetensors", "body"
_FORMAT = 1

Scalar = TypeVar("Scalar", bound="ScalarModel")

Row = tuple[Sequence[int], Sequence[int]]
"""A prompt's tokens and an answer's."""


def scalar_head(policy: LanguagePolicy) -> nn.Linear:
    """One number from a hidden state of `policy`, zero for all of them: an untrained head says nothing."""
    weight = policy.head
    head = nn.Linear(weight.shape[1], 1, device=weight.device, dtype=weight.dtype)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


class ScalarModel(nn.Module):
    """A language model with one number for a head; `settings` are plain values that are saved with it.

    `policy` is taken over and trained with the head: give a copy (`deepcopy`) where the policy acts too.
    """

    kind: ClassVar[str] = ""
    """What the number means, as the saved folder says it."""

    def __init__(self, policy: LanguagePolicy, **settings: str) -> None:
        super().__init__()
        self.policy = policy
        self.head = scalar_head(policy)
        self.settings = settings

    def at_end(
        self,
        token: Int[Tensor, "row time"],
        attended: Bool[Tensor, "row time"],
        *,
        mask: Bool[Tensor, "row time"],
    ) -> Float[Tensor, "row"]:
        """The number of each row, read at its last attended token; differentiable.

        `mask` marks the answers; see `LanguagePolicy.hidden_at_end`.
        """
        return self.head(self.policy.hidden_at_end(token, attended, mask=mask))[:, 0]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model as a folder."""
        weights = {name: value.detach().cpu().contiguous() for name, value in self.head.state_dict().items()}
        with write_beside(folder) as temporary:
            temporary.mkdir()
            self.policy.save_pretrained(temporary / _BODY)
            safetensors.torch.save_file(weights, str(temporary / _HEAD))
            save_json(
                temporary / _SETTINGS, {"format": _FORMAT, "kind": self.kind, "settings": self.settings}
            )

    @classmethod
    def from_pretrained(cls: type[Scalar], folder: str | os.PathLike[str], **options: Any) -> Scalar:
        """The model that `save_pretrained` wrote into `folder`, or a run into its `policy` folder.

        `options` are those of `LanguagePolicy.load`. Raises `FileError` for another folder, and for one that
        holds a model of another kind.
        """
        place = scalar_folder(folder) or Path(folder)
        settings = load_json(place / _SETTINGS)
        if not isinstance(settings, dict) or settings.get("format") != _FORMAT:
            raise FileError("not a model of this version", where=str(place / _SETTINGS))
        if settings.get("kind") != cls.kind:
            raise FileError(
                f"the folder holds a {settings.get('kind')}", where=str(place), expected=f"a {cls.kind}"
            )
        model = cls(LanguagePolicy.from_pretrained(place / _BODY, **options), **settings["settings"])
        try:
            model.head.load_state_dict(safetensors.torch.load_file(str(place / _HEAD)))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise FileError(f"the head's weights are missing or wrong: {error}", where=str(place)) from error
        return model.eval()


def scalar_folder(folder: str | os.PathLike[str], *, kind: str = "") -> Path | None:
    """Where in `folder` a saved `ScalarModel` lies: itself, or a run's `policy`; None for any other folder.

    With a `kind`, only a model of that one counts.
    """
    for place in (Path(folder), Path(folder) / "policy"):
        if (place / _SETTINGS).is_file():
            found = load_json(place / _SETTINGS)
            if not kind or (isinstance(found, dict) and found.get("kind") == kind):
                return place
    return None


def laid_out(
    policy: LanguagePolicy, rows: Sequence[Row]
) -> tuple[Int[Tensor, "row time"], Bool[Tensor, "row time"], Bool[Tensor, "row time"]]:
    """Prompts and answers as `token`, `attended` and `mask` (the answer), padded at the end.

    Raises `DataError` naming the row that is longer than the context.
    """
    lengths = [len(prompt) + len(answer) for prompt, answer in rows]
    for number, length in enumerate(lengths):
        if length > policy.context:
            raise DataError(
                f"a prompt and an answer of {length} tokens are longer than the model's context",
                where=f"row {number}: {policy.decode(list(rows[number][0]))[:80]!r}",
                expected=f"at most {policy.context} tokens together",
                cure="shorten or drop it, or take a model with a longer context",
            )
    shape = (len(rows), max(lengths))
    token = torch.full(shape, policy.tokenizer.pad_token_id)
    attended, mask = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(rows):
        token[row, : lengths[row]] = torch.tensor([*prompt, *answer])
        attended[row, : lengths[row]] = True
        mask[row, len(prompt) : lengths[row]] = True
    device = policy.device
    return token.to(device), attended.to(device), mask.to(device)
