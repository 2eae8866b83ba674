"""A policy that learns when to use a tool: sums of one to four digits, and a calculator that has a price.

    python examples/calculator.py start        writes a small model that knows how to call, but not when

It imitates a player who asks the calculator every other time, whatever the sum, and answers the rest by
heart. Playing itself it learns more, from the command line, as docs/guides/text-environments.md shows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch

from policysmith.common.rng import generator
from policysmith.experience.conversations import demonstrated
from policysmith.experience.prompts import PromptSampler
from policysmith.experience.world_prompts import from_world
from policysmith.objectives.averaging import token_mean_weight
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.small import small_decoder
from policysmith.training.learner import Learner, cosine_schedule
from policysmith.training.learners.supervised import supervised_loss
from policysmith.worlds.calculator import asking

WORLD: Mapping[str, Any] = {"digits": 4}
"""Sums and differences of two numbers of one to four digits."""


def warm_up(
    policy: LanguagePolicy, *, steps: int = 1500, seed: int = 0, world: Mapping[str, Any] = WORLD
) -> None:
    """Teach the policy both forms, by transcripts of a player who calls every other time."""
    episodes = PromptSampler(
        from_world("calculator", size=20_000, seed=seed, **world), rng=generator(seed, "episodes")
    )
    teacher = demonstrated(policy, asking(generator(seed, "teacher")))
    learner = Learner(
        policy,
        supervised_loss,
        optimizer=torch.optim.AdamW(policy.parameters(), lr=3e-3),
        schedule=cosine_schedule(warmup=min(100, steps // 2), total=steps),
        max_grad_norm=1.0,
    )
    for step in range(1, steps + 1):
        batch = teacher(dict(enumerate(episodes.sample(64))), rng=episodes.rng).batch.exclude("log")
        metrics = learner.step(batch.set("weight", token_mean_weight(batch["mask"])))
        if step % 100 == 0:
            print(f"step {step}: loss {metrics['loss']:.3f}", flush=True)


if __name__ == "__main__":
    policy = small_decoder(0, width=96, layers=3, context=96, spread=0.1)
    warm_up(policy)
    policy.save_pretrained(sys.argv[1] if len(sys.argv) > 1 else "start")
