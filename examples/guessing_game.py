"""A policy that learns by talking: numbers are found by guesses that are answered "higher" or "lower".

A small decoder first imitates a careless player, who never contradicts a reply but guesses anything that is
left, and finds two numbers of three. Playing itself, with nothing but won or lost at the end, it then learns
where to guess: in the middle, by which every number is found. It is the worked example of
docs/guides/text-environments.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from policysmith.common.rng import generator
from policysmith.experience.conversations import demonstrated, played
from policysmith.experience.prompts import PromptSampler
from policysmith.experience.world_prompts import from_world
from policysmith.objectives.averaging import token_mean_weight
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.policies.language.small import small_decoder
from policysmith.training.learner import Learner, cosine_schedule
from policysmith.training.learners.group_relative import centred, clipped
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_settings import LanguageSettings
from policysmith.training.learners.supervised import supervised_loss
from policysmith.training.loop import Progress
from policysmith.worlds.guessing import careless

GAME = {"high": 7, "guesses": 3}
"""Three guesses find any of seven numbers, for who halves what is left."""
SETTINGS = LanguageSettings(
    steps=150,
    prompts=32,
    group_size=8,
    answer_limit=4,
    optimizer_steps=4,
    learning_rate=1e-3,
    warmup_steps=10,
)
"""Eight games for each of 32 episodes a step; an answer has at most four tokens, here four characters."""


def warm_up(policy: LanguagePolicy, *, steps: int = 250, seed: int = 0) -> None:
    """Teach the policy how the game is played, by the games of a careless player."""
    games = PromptSampler(
        from_world("guessing-game", size=1000, seed=seed, **GAME), rng=generator(seed, "games")
    )
    teacher = demonstrated(policy, careless(generator(seed, "teacher")))
    learner = Learner(
        policy,
        supervised_loss,
        optimizer=torch.optim.AdamW(policy.parameters(), lr=2e-3),
        schedule=cosine_schedule(warmup=20, total=steps),
        max_grad_norm=1.0,
    )
    for _ in range(steps):
        batch = teacher(dict(enumerate(games.sample(64))), rng=games.rng).batch.exclude("log")
        learner.step(batch.set("weight", token_mean_weight(batch["mask"])))


def learn(
    policy: LanguagePolicy, *, settings: LanguageSettings = SETTINGS, seed: int = 0, state: Any = None
) -> Iterator[Progress]:
    """Let the policy play, several games for each number, and push what won more than the others did."""
    return language_run(
        policy,
        from_world("guessing-game", size=1000, seed=seed, **GAME),
        None,  # the game itself pays
        settings=settings,
        label=centred(),
        loss=clipped(),
        wrap=lambda _, policy: played(
            policy, LocalEngine(policy), settings.sampling, copies=settings.group_size
        ),
        seed=seed,
        state=state,
    )


def measure(policy: LanguagePolicy, *, games: int = 500) -> Samples:
    """Play further episodes, one game of each; the numbers are the same seven, what is drawn is not."""
    sampler = played(policy, LocalEngine(policy), SETTINGS.sampling, copies=1)
    episodes = from_world("guessing-game", size=games, seed=12345, **GAME)
    return sampler(dict(enumerate(episodes)), rng=generator(0, "measure"))


def report(policy: LanguagePolicy, what: str) -> None:
    """Print how often the policy wins, and a game of it."""
    samples = measure(policy)
    print(f"{what}: {float(samples.batch['log', 'success'].mean()):.3f} of the games are won")
    print(samples.about[0].data["episode"].transcript)


if __name__ == "__main__":
    policy = small_decoder(0, width=64, layers=2, context=128)
    warm_up(policy)
    report(policy, "after imitation")
    for now in learn(policy):
        if now.step % 10 == 0:
            print(f"step {now.step}: {now.metrics['success']:.3f}", flush=True)
    report(policy, "after playing")
