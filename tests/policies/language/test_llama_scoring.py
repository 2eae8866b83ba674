"""Llama's arithmetic done here: numbers and gradients are those of transformers' module, and less is kept."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.policies.language import policy as module
from policysmith.policies.language.llama_scoring import (
    _GatedMlp,
    _Norm,
    _NormedProducts,
    _PackedProduct,
    hidden_states,
)

PROMPTS = ([10, 11, 12, 13], [20, 21])


def batch():
    """Two answers to each of two prompts, of unequal length."""
    rows = [[*prompt, *answer] for prompt in PROMPTS for answer in ([30, 31, 32], [40, 41, 42, 43, 44])]
    time = max(map(len, rows))
    token = torch.tensor([[*row, *[0] * (time - len(row))] for row in rows])
    attended = torch.tensor([[place < len(row) for place in range(time)] for row in rows])
    begin = torch.tensor([len(prompt) for prompt in PROMPTS for _ in range(2)])
    return token, attended, attended & (torch.arange(time) >= begin[:, None])


def gradients(policy, token, attended, mask):
    policy.zero_grad()
    log_prob, entropy = policy.log_prob(token, attended, mask=mask)
    ((log_prob + 0.3 * entropy) * torch.linspace(-1, 1, token.shape[1])).sum().backward()
    return log_prob.detach(), {name: weight.grad.clone() for name, weight in policy.named_parameters()}


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("shared", [True, False])
def test_numbers_and_gradients_are_those_of_the_module(make_tiny, monkeypatch, kind, shared):
    policy = make_tiny(kind)
    token, attended, mask = batch()
    if not shared:
        monkeypatch.setattr(module, "share_prompts", lambda token, mask: None)
    ours, ours_gradients = gradients(policy, token, attended, mask)
    monkeypatch.setattr(module, "of_the_family", lambda config: False)
    theirs, their_gradients = gradients(policy, token, attended, mask)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for name, gradient in their_gradients.items():
        torch.testing.assert_close(ours_gradients[name], gradient, atol=2e-4, rtol=2e-4, msg=name)


def test_gradients_are_those_of_small_differences():
    rng = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()

    x, scale = draw(2, 3, 4), draw(4)
    parts = (draw(5, 4), draw(2, 4), draw(5), None)
    assert torch.autograd.gradcheck(lambda *p: _NormedProducts.apply(x, scale, 1e-2, *p), parts)
    assert torch.autograd.gradcheck(
        lambda x, scale: _NormedProducts.apply(x, scale, 1e-2, *parts), (x, scale)
    )
    assert torch.autograd.gradcheck(lambda x, scale: _Norm.apply(x, scale, 1e-2), (x, scale))
    place = torch.tensor([4, 0, 1, 6])  # of the seven tokens of both parts
    weights = (draw(3, 4), draw(3), draw(1, 3, 4), draw(2, 2, 4))
    assert torch.autograd.gradcheck(lambda *given: _PackedProduct.apply(place, *given), weights)
    matrices = (draw(6, 4), draw(6, 4), draw(4, 6))
    assert torch.autograd.gradcheck(
        lambda x, scale, *m: _GatedMlp.apply(x, scale, 1e-2, *m), (x, scale, *matrices)
    )


def test_half_of_what_the_module_keeps_for_the_way_back_is_kept(make_tiny, monkeypatch):
    policy = make_tiny("llama")
    token, attended, mask = batch()
    parameters = {weight.data_ptr() for weight in policy.parameters()}

    def kept():
        sizes = {}

        def note(tensor):
            if tensor.untyped_storage().data_ptr() not in parameters:
                sizes[tensor.untyped_storage().data_ptr(), tensor._version] = (
                    tensor.untyped_storage().nbytes()
                )
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            policy.log_prob(token, attended, mask=mask)
        return sum(sizes.values())

    ours = kept()
    monkeypatch.setattr(module, "of_the_family", lambda config: False)
    assert ours < 0.65 * kept()


def test_adapters_are_run_by_the_module(make_tiny):
    pytest.importorskip("peft")
    policy = make_tiny("llama").with_lora(4)
    token, attended, mask = batch()
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.add_(0.1)
        adapted, _ = policy.log_prob(token, attended, mask=mask)
        logits = policy.model(input_ids=token, attention_mask=attended.long()).logits
    expected = logits[:, :-1].log_softmax(2).gather(2, token[:, 1:, None])[..., 0]
    torch.testing.assert_close(adapted[:, 1:][mask[:, 1:]], expected[mask[:, 1:]], atol=1e-4, rtol=0)


def test_hidden_states_are_the_last_after_the_norm(make_tiny):
    policy = make_tiny("qwen2")
    token = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        mine = hidden_states(policy.body, token, torch.arange(3)[None], None)
        theirs = policy.body(input_ids=token).last_hidden_state
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
