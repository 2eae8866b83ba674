"""Measuring a language policy in a text world: how fresh episodes of it go.

    found = converse(policy, episodes, sampling=Sampling(limit=64), seed=0)
    found.success, found.reward         [episode] each

Every policy that is measured with the same episodes and seed draws with the same random numbers, so that they
can be compared episode by episode.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from policysmith.common.rng import generator
from policysmith.experience.conversations import played
from policysmith.experience.world_prompts import WorldPrompts
from policysmith.policies.language.engine import Engine, LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.sampling import Sampling
from policysmith.worlds.text import Episode


@dataclass(frozen=True)
class Conversations:
    """One conversation of each episode.

    - `reward`: their sum over a conversation; `success`: as the world says, None where it says nothing of it.
    - `turns`: answers of the policy; `tokens`: that it wrote; `finished`: the world ended it, and no limit.
    - `told`: what the world counts, by name: the numbers of its last `info`.
    """

    reward: Float[np.ndarray, "episode"]
    success: Bool[np.ndarray, "episode"] | None
    turns: Float[np.ndarray, "episode"]
    tokens: Float[np.ndarray, "episode"]
    finished: Bool[np.ndarray, "episode"]
    told: dict[str, Float[np.ndarray, "episode"]]
    episodes: list[Episode] = field(repr=False)


def converse(
    policy: LanguagePolicy,
    prompts: WorldPrompts,
    *,
    sampling: Sampling,
    seed: int = 0,
    system: str = "",
    engine: Engine | None = None,
) -> Conversations:
    """Let the policy play every episode once; `sampling.limit` is that of one answer."""
    sampler = played(
        policy,
        engine or LocalEngine(policy),
        sampling,
        copies=1,
        table=prompts.table.opened_by(policy, system),
    )
    samples = sampler(dict(enumerate(prompts)), rng=generator(seed, "conversations"))
    episodes = [prompt.data["episode"] for prompt in samples.about]
    success = [episode.success for episode in episodes]
    names = sorted(set.intersection(*(set(episode.told) for episode in episodes)))
    return Conversations(
        reward=samples.batch["reward"].numpy().astype(float),
        success=None if None in success else np.array(success, dtype=bool),
        turns=np.array([len(episode.texts) for episode in episodes], dtype=float),
        tokens=samples.batch["mask"].sum(1).numpy().astype(float),
        finished=samples.batch["finished"].numpy(),
        told={name: np.array([episode.told[name] for episode in episodes]) for name in names},
        episodes=episodes,
    )
