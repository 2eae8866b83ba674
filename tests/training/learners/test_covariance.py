"""Choosing tokens over an optimiser batch: by the covariance under the weights of now, as many as asked."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.experience.prompts import from_rows
from policysmith.experience.rollouts import sampled
from policysmith.objectives.entropy_covariance import token_covariance
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder
from policysmith.training.learners.covariance import choose_dropped, choose_held
from policysmith.training.learners.language_update import rescore

torch.set_num_threads(1)


def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def policy():
    return small_decoder(0, width=32, layers=2, heads=2, context=64)


@pytest.fixture
def batch(policy):
    prompts = from_rows({"prompt": f"{a}+1=", "answer": a + 1} for a in range(4))
    sampler = sampled(policy, LocalEngine(policy), Sampling(limit=10), copies=4)
    batch = sampler(dict(enumerate(prompts)), rng=rng()).batch.exclude("log")
    batch["old_log_prob"] = batch["behaviour_log_prob"]
    batch["advantage"] = torch.randn(16, 1, generator=rng())
    return batch


def covariance_now(policy, batch):
    return token_covariance(rescore(policy, batch, 1.0), batch["advantage"], batch["mask"])


def moved(policy):
    """The policy after its weights have moved."""
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=rng()))
    return policy


def test_the_held_are_those_of_largest_covariance_under_the_weights_of_now(policy, batch):
    before = covariance_now(policy, batch)
    now = covariance_now(moved(policy), batch)
    held = choose_held(fraction=0.1, temperature=1.0)(policy, batch, rng())["marked"]
    assert int(held.sum()) == int(0.1 * int(batch["mask"].sum()))
    assert float(now[held].min()) >= float(now[batch["mask"] & ~held].max())
    assert not torch.equal(before.topk(3).indices, now.topk(3).indices)


def test_no_gradient_goes_through_the_choice(policy, batch):
    held = choose_held(fraction=0.1, temperature=1.0)(policy, batch, rng())
    assert not any(value.requires_grad for value in held.values())


def test_a_band_by_quantile_draws_from_the_top(policy, batch):
    choose = choose_dropped(fraction=0.05, low=1.0, high=5.0, clip=1.0, temperature=1.0, low_quantile=0.9)
    chosen = choose(policy, batch, rng())
    mask, covariance = batch["mask"], covariance_now(policy, batch)
    assert int(chosen["marked"].sum()) == int(0.05 * int(mask.sum()))
    assert float(covariance[chosen["marked"]].min()) > float(covariance[mask].quantile(0.9))
    assert int(chosen["eligible"].sum()) == pytest.approx(0.1 * int(mask.sum()), abs=1)


def test_a_band_that_nothing_reaches_drops_nothing_and_shows_it(policy, batch):
    choose = choose_dropped(fraction=0.05, low=50.0, high=60.0, clip=1.0, temperature=1.0)
    chosen = choose(policy, batch, rng())
    assert not chosen["marked"].any()
    assert not chosen["eligible"].any()
    assert float(chosen["largest_covariance"].max()) < 50


def test_tokens_that_the_clip_has_stopped_already_are_not_drawn(policy, batch):
    batch["old_log_prob"] = batch["old_log_prob"] - 2.0  # all ratios are e^2, past 1 + clip
    choose = choose_dropped(fraction=1.0, low=1.0, high=5.0, clip=1.0, temperature=1.0, low_quantile=0.0)
    marked = choose(policy, batch, rng())["marked"]
    gaining = (batch["advantage"] > 0).expand_as(marked)
    assert not (marked & gaining).any()
    assert (marked & ~gaining).any()
