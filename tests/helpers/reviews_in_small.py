"""The bench of reviews so small that what is made of it takes seconds."""

from __future__ import annotations

from policysmith.claims.common.review_language import WORDS
from policysmith.claims.common.reviews import demonstrations, prompts
from policysmith.claims.common.warm_start import WarmStart
from policysmith.training.learners.supervised import SupervisedSettings

START = WarmStart(
    demonstrations(prompts(200, 3), 0),
    SupervisedSettings(steps=20, batch_size=8, learning_rate=1e-2, warmup_steps=0),
    width=32,
    layers=1,
    heads=2,
    context=64,
    words=WORDS,
    spread=0.1,
)
"""A start of one narrow layer that has hardly been taught."""
