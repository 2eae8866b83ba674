"""How much memory a training step will need, said before it begins.

    weights + gradients + optimiser + activations of one micro-batch

Activations are counted for a gated transformer: what a layer keeps per token for the way back. Logits do not
appear, because they are never held.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from policysmith.common.errors import SettingError
from policysmith.policies.language.policy import LanguagePolicy


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimiser": self.optimizer,
            "activations": self.activations,
        }
        return ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in parts.items())


def training_memory(
    policy: LanguagePolicy, *, micro_batch: int, length: int, optimizer_states: int = 2
) -> MemoryEstimate:
    """An estimate for steps on micro-batches of `micro_batch` rows of `length` tokens.

    `optimizer_states` is how many numbers the optimiser keeps per weight (Adam: 2). Prompts that rows share
    make the activations smaller than this. A frozen reference or a critic is a model more: count it too.
    """
    weights = sum(p.numel() * p.element_size() for p in policy.parameters())
    trained = sum(p.numel() * p.element_size() for p in policy.parameters() if p.requires_grad)
    activations = micro_batch * length * _kept_per_token(policy)
    return MemoryEstimate(weights, trained, optimizer_states * trained, activations)


def check_memory(estimate: MemoryEstimate, device: torch.device, *, held: int = 0) -> None:
    """Raise `SettingError` where the estimate, less what is `held` already, is more than is free."""
    free = free_memory(device)
    wanted = estimate.total - held
    if free is not None and wanted > free:
        raise SettingError(
            f"training needs about {wanted / 1e9:.1f} GB and {free / 1e9:.1f} GB are free",
            where=str(estimate),
            cure="lower the micro-batch or the length limits, train adapters (LoRA), or take a smaller model",
        )


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on `device`; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    if not table.is_file():
        return None
    available = [line for line in table.read_text().splitlines() if line.startswith("MemAvailable:")]
    return int(available[0].split()[1]) * 1024 if available else None


def _kept_per_token(policy: LanguagePolicy) -> int:
    config = policy.causal.config
    width, heads = config.hidden_size, config.num_attention_heads
    kept_heads = (getattr(config, "num_key_value_heads", None) or heads) * width // heads
    inner = getattr(config, "intermediate_size", None) or 4 * width
    if policy.is_plain_llama:
        # What comes in, queries, attention's result as it is and in rows, what the MLP sees; keys and values;
        # the two halves of the gated part.
        of_layer = 5 * width + 2 * kept_heads + 2 * inner
    else:
        # Two norms with input, normalised and scaled; queries and attention's result; keys and values; four
        # of the MLP's inner width (gate, its activation, up, their product).
        of_layer = 8 * width + 2 * kept_heads + 4 * inner
    numbers = config.num_hidden_layers * of_layer + 3 * width
    return numbers * policy.head.element_size()
