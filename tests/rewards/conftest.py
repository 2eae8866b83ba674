"""A tiny language model, and a reward model whose scores tell texts apart."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def make_policy():
    pytest.importorskip("transformers")
    from policysmith.policies.language.small import small_decoder

    def make(seed=0, **sizes):
        return small_decoder(seed, **{"width": 32, "layers": 2, "heads": 2, "context": 64} | sizes)

    return make


@pytest.fixture
def policy(make_policy):
    return make_policy()


@pytest.fixture
def reward_model(make_policy):
    from policysmith.rewards.reward_model import RewardModel

    return with_opinions(RewardModel(make_policy(1)))


def with_opinions(model):
    """The model with a head that is not zero."""
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(3))
    torch.nn.init.constant_(model.head.bias, 0.25)
    return model


@pytest.fixture
def opinionated():
    return with_opinions
