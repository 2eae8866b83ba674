"""Drawing tokens: frequencies, truncation, streams."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policysmith.common.errors import SettingError
from policysmith.policies.language import sampling as module
from policysmith.policies.language.sampling import Sampling, draw, geometric_mixture, stream

P = torch.tensor([0.5, 0.3, 0.15, 0.05])


def frequencies(sampling, logits=None, count=20_000):
    """How often each token is drawn at evenly spaced uniform numbers, which leaves no noise."""
    logits = P.log() if logits is None else logits
    uniform = (torch.arange(count) + 0.5) / count
    token, _ = draw(logits.expand(count, -1), uniform, sampling)
    return token.bincount(minlength=len(logits)) / count


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(temperature=0.5), [0.25, 0.09, 0.0225, 0.0025]),
        (Sampling(top_k=2), [0.5, 0.3, 0, 0]),
        (Sampling(top_p=0.9), [0.5, 0.3, 0.15, 0]),
        (Sampling(top_p=0.4), [1, 0, 0, 0]),
        (Sampling(top_k=3, top_p=0.6), [0.5, 0.3, 0, 0]),
        (Sampling(temperature=0), [1, 0, 0, 0]),
    ],
)
def test_tokens_are_drawn_as_often_as_they_should_be(sampling, expected):
    expected = torch.tensor(expected) / sum(expected)
    torch.testing.assert_close(frequencies(sampling), expected, atol=2e-4, rtol=0)


def test_top_p_beyond_the_likeliest_few_sorts_everything(monkeypatch):
    whole = frequencies(Sampling(top_p=0.9))
    monkeypatch.setattr(module, "_CANDIDATES", 2)
    assert torch.equal(frequencies(Sampling(top_p=0.9)), whole)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=1), Sampling(top_p=0.3)])
def test_the_log_probability_is_that_of_the_whole_distribution(sampling):
    token, log_prob = draw(P.log()[None], torch.tensor([0.1]), sampling)
    assert token == 0
    torch.testing.assert_close(log_prob, P[:1].log())


def test_temperature_is_in_the_log_probability_and_greedy_has_that_of_one():
    squared = P.square() / P.square().sum()
    _, log_prob = draw(P.log()[None], torch.tensor([0.1]), Sampling(temperature=0.5))
    torch.testing.assert_close(log_prob, squared[:1].log())
    _, log_prob = draw(P.log()[None], torch.tensor([0.1]), Sampling(temperature=0))
    torch.testing.assert_close(log_prob, P[:1].log())


@given(st.floats(0, 1))
def test_a_token_without_probability_is_never_drawn(uniform):
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]])
    assert draw(logits, torch.tensor([uniform]), Sampling())[0] in (1, 3)
    assert draw(logits, torch.tensor([uniform]), Sampling(top_p=0.99))[0] in (1, 3)


@pytest.mark.parametrize("vocabulary", [512, 1000])
def test_a_wide_vocabulary_is_drawn_from_as_a_narrow_one_is(vocabulary, monkeypatch):
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(0)) * 3
    logits[:300] = -torch.inf  # a whole block that is never drawn
    by_blocks = frequencies(Sampling(), logits, count=5_000)
    monkeypatch.setattr(module, "_SUMMED_AT_ONCE", vocabulary)
    at_once = frequencies(Sampling(), logits, count=5_000)
    # The sums are rounded differently, which may move a draw at the border of two tokens.
    torch.testing.assert_close(by_blocks, at_once, atol=2.5 / 5_000, rtol=0)
    torch.testing.assert_close(at_once, logits.softmax(0), atol=1.5 / 5_000, rtol=0)
    assert by_blocks[:300].sum() == 0


def test_the_first_and_the_last_uniform_number_draw_tokens_with_a_probability(monkeypatch):
    monkeypatch.setattr(module, "_SUMMED_AT_ONCE", 2)
    logits = torch.tensor([-torch.inf, -torch.inf, -torch.inf, 0.0, 1.0, -torch.inf, -torch.inf])
    token, log_prob = draw(logits.expand(2, -1), torch.tensor([0.0, 1.0]), Sampling())
    assert token.tolist() == [3, 4]
    torch.testing.assert_close(log_prob, logits.log_softmax(0)[[3, 4]])


def test_a_stream_is_the_same_however_much_of_it_is_taken():
    assert torch.equal(stream(5, 100)[:7], stream(5, 7))
    assert not torch.equal(stream(5, 7), stream(6, 7))


def test_mixture_of_two_models_token_by_token():
    first, second = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    mixed = geometric_mixture(0.25)([first, second]).softmax(1)
    torch.testing.assert_close(mixed, torch.tensor([[0.718440, 0.205837, 0.075723]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0},
        {"top_p": 1.1},
        {"stop": "</answer>"},
        {"stop": ("",)},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingError):
        Sampling(**wrong)


def test_a_mixture_weight_out_of_range_is_refused():
    with pytest.raises(SettingError, match="mixture weight"):
        geometric_mixture(1.5)
