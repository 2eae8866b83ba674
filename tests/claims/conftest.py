"""The bench of reviews so small that a whole experiment takes seconds."""

from __future__ import annotations

from functools import partial

import pytest


@pytest.fixture
def small_reviews(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start and a reward model of one narrow layer that have hardly been taught."""
    from reviews_in_small import START

    from policysmith.claims.common import review_learning, review_ppo
    from policysmith.claims.common.rlhf import Proxy, Rankings
    from policysmith.training.learners.reward_models import RewardModelSettings

    taught = RewardModelSettings(steps=10, batch_size=4, learning_rate=1e-2, warmup_steps=0)
    monkeypatch.setattr(review_learning, "supervised_start", lambda: START)
    monkeypatch.setattr(review_ppo, "Rankings", partial(Rankings, size=20, answers=3))
    monkeypatch.setattr(review_ppo, "Proxy", partial(Proxy, settings=taught))
