"""Log-probabilities in chunks: those of a softmax over everything, value and gradient."""

import pytest
import torch

from policysmith.common.errors import SettingError, ShapeError
from policysmith.networks import token_log_prob as module
from policysmith.networks.token_log_prob import token_log_prob


def example():
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    return hidden, weight, torch.randint(11, (7,), generator=rng)


def whole(hidden, weight, target, temperature):
    log_p = (hidden @ weight.t() / temperature).log_softmax(-1)
    return log_p.gather(1, target[:, None])[:, 0], -(log_p.exp() * log_p).sum(1)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("at_a_time", [1, 30, 1 << 22])
def test_values_and_gradients_are_those_of_the_whole_softmax(monkeypatch, temperature, at_a_time):
    monkeypatch.setattr(module, "LOGITS_AT_A_TIME", at_a_time)
    hidden, weight, target = example()
    scale = torch.linspace(-1, 2, 7, dtype=torch.float64)
    results = []
    for function in (token_log_prob, whole):
        given = {"temperature": temperature} if function is token_log_prob else {}
        args = (hidden, weight, target) if given else (hidden, weight, target, temperature)
        log_prob, entropy = function(*args, **given)
        loss = (scale * log_prob).sum() + (scale.flip(0) * entropy).sum()
        results.append((log_prob, entropy, *torch.autograd.grad(loss, (hidden, weight))))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_entropy_may_be_left_alone():
    hidden, weight, target = example()
    mine = torch.autograd.grad(token_log_prob(hidden, weight, target)[0].sum(), hidden)
    theirs = torch.autograd.grad(whole(hidden, weight, target, 1.0)[0].sum(), hidden)
    torch.testing.assert_close(mine, theirs)


def test_a_frozen_last_layer_gets_no_gradient():
    hidden, weight, target = example()
    token_log_prob(hidden, weight.detach(), target)[0].sum().backward()
    assert weight.grad is None
    assert hidden.grad is not None


def test_no_more_logits_exist_at_once_than_allowed(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "LOGITS_AT_A_TIME", 22)
    product = module._logits
    monkeypatch.setattr(module, "_logits", lambda *args: seen.append(args[0].shape[0]) or product(*args))
    token_log_prob(*example())[0].sum().backward()
    assert max(seen) == 2
    assert sum(seen) == 14  # each token once on the way there and once on the way back


def test_what_does_not_fit_is_refused():
    hidden, weight, target = example()
    with pytest.raises(ShapeError, match="vocabulary"):
        token_log_prob(hidden, weight[:, :4], target)
    with pytest.raises(SettingError, match="above 0"):
        token_log_prob(hidden, weight, target, temperature=0)
