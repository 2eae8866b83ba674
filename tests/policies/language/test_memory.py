"""The estimate of memory is near what autograd keeps, and what does not fit is said before it is tried."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import SettingError
from policysmith.policies.language import memory
from policysmith.policies.language.memory import MemoryEstimate, check_memory, training_memory
from policysmith.policies.language.policy import LanguagePolicy


@pytest.mark.parametrize("plain", [True, False])
def test_activations_are_near_what_autograd_keeps(small, monkeypatch, plain):
    monkeypatch.setattr(LanguagePolicy, "is_plain_llama", plain)
    token = torch.randint(3, 90, (4, 50), generator=torch.Generator().manual_seed(0))
    weights = {weight.untyped_storage().data_ptr() for weight in small.parameters()}
    kept: dict[int, int] = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = small.log_prob(token, torch.ones_like(token, dtype=torch.bool))[0].sum()
    estimate = training_memory(small, micro_batch=4, length=50)
    assert loss.requires_grad
    assert 0.75 < estimate.activations / sum(kept.values()) < 1.5


def test_weights_gradients_and_adam_are_four_times_the_weights(small):
    estimate = training_memory(small, micro_batch=1, length=1)
    size = 4 * sum(weight.numel() for weight in small.parameters())
    assert (estimate.weights, estimate.gradients, estimate.optimizer) == (size, size, 2 * size)
    frozen = training_memory(small.frozen_copy(), micro_batch=1, length=1)
    assert (frozen.weights, frozen.gradients, frozen.optimizer) == (size, 0, 0)


def test_what_does_not_fit_is_said_with_the_estimate(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 3_000_000_000)
    estimate = MemoryEstimate(10**9, 10**9, 2 * 10**9, 5 * 10**8)
    with pytest.raises(SettingError, match=r"about 4\.5 GB and 3\.0 GB are free") as caught:
        check_memory(estimate, torch.device("cpu"))
    assert "optimiser 2.00 GB" in caught.value.where
    check_memory(estimate, torch.device("cpu"), held=2 * 10**9)
