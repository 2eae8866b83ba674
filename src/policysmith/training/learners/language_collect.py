"""The `collect` of a language run: prompts, answers with rewards, the filter, the label, the reference.

What costs time is shared among the processes (`training.processes`), and all of them get all answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.keys import require_keys
from policysmith.common.rng import draw_seed
from policysmith.experience.conversations import played
from policysmith.experience.prompts import Prompt, PromptSampler
from policysmith.experience.rollouts import Groups, Sampler, sampled
from policysmith.experience.world_prompts import Table
from policysmith.objectives.advantages import agreeing
from policysmith.policies.language.engine import Engine, LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Request, Samples, in_order, join
from policysmith.policies.language.sampling import Sampling
from policysmith.rewards.scored import scored
from policysmith.rewards.scoring import Scoring
from policysmith.training import processes
from policysmith.training.learners.language_settings import (
    Label,
    LanguageSettings,
    Reward,
)
from policysmith.training.loop import Collect, RunState
from policysmith.worlds.text import Episode

PATIENCE = 10
"""Steps in a row without anything to learn before a warning says so."""


def usual_sampler(
    policy: LanguagePolicy,
    reward: Reward | None,
    settings: LanguageSettings,
    *,
    wrap: Callable[[Sampler, LanguagePolicy], Sampler] = lambda sampler, policy: sampler,
    engine: Engine | None = None,
    table: Table | None = None,
) -> Sampler:
    """Answers of the policy with their rewards, as a method wraps them, shared among the processes.

    With a `table`, the prompts are episodes of worlds and the answers conversations, which come with rewards
    of their own.
    """
    engine, copies = engine or LocalEngine(policy), settings.group_size
    if table is None:
        plain = sampled(policy, engine, settings.sampling, copies=copies, system=settings.system)
    else:
        table = table.opened_by(policy, settings.system)
        plain = played(policy, engine, settings.sampling, copies=copies, table=table)
    usual = plain if reward is None else scored(plain, as_scoring(reward))
    return spread(wrap(usual, policy))


def as_scoring(reward: Reward) -> Scoring:
    """A reward in any of its forms as a `Scoring`."""
    if isinstance(reward, Scoring):
        return reward
    return Scoring(reward if isinstance(reward, Mapping) else {"reward": reward})


def spread(sampler: Sampler) -> Sampler:
    """Each process answers its part of the prompts, and all of them get all answers."""

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        # A generator of their own for the calls inside, whose number depends on the prompts.
        inside = torch.Generator().manual_seed(draw_seed(rng))
        mine = {group: groups[group] for group in processes.share(sorted(groups))}
        part = sampler(mine, rng=inside, version=version, copies=copies) if mine else None
        parts = [one for one in processes.gather(part) if one is not None]
        return parts[0] if len(parts) == 1 else in_order(join(parts))

    return sample


class SpreadEngine:
    """An engine whose requests are shared among the processes; all of them get all answers."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def sample(
        self, requests: Sequence[Request], sampling: Sampling, *, rng: torch.Generator, version: int = 0
    ) -> Samples:
        """See `Engine`. A row's draws depend on its group and copy, and so not on who writes it."""
        inside = torch.Generator().manual_seed(draw_seed(rng))  # drawn also by a process without a part
        mine = processes.share(requests)
        part = self.engine.sample(mine, sampling, rng=inside, version=version) if mine else None
        parts = [one for one in processes.gather(part) if one is not None]
        order = [row for first in range(len(parts)) for row in range(first, len(requests), processes.count())]
        found = join(parts).select(torch.tensor(order).argsort().tolist())
        found.steps = max(one.steps for one in parts)  # made side by side
        return found


def collecting(
    source: PromptSampler,
    sampler: Sampler,
    label: Label,
    settings: LanguageSettings,
    *,
    rng: torch.Generator,
    reference: Callable[[TensorDict], Tensor] | None = None,
) -> Collect:
    """The usual `collect`: prompts, answers with rewards, the filter, the reference, the label."""
    idle = 0

    def collect(state: RunState) -> TensorDict:
        nonlocal idle
        samples = gathered(source, sampler, settings, rng=rng, version=state.step)
        state.shown = shown(samples)
        agree = agreement(samples.batch, settings)
        samples.log("agreeing", agree)
        idle = idle + 1 if bool((agree == 1).all()) else 0
        if idle == PATIENCE:
            warnings.warn(
                f"for {PATIENCE} steps the answers that are compared have had equal rewards "
                f"(the last mean is {float(samples.batch['reward'].mean()):.3g}), so that nothing was better "
                "or worse: take prompts that are neither too hard nor too easy, or raise the temperature",
                stacklevel=2,
            )
        if reference is not None:
            samples.batch["reference_log_prob"] = reference(samples.batch)
        return label(samples).batch

    return collect


def agreement(batch: TensorDict, settings: LanguageSettings) -> Float[Tensor, "row"]:
    """1 where all rewards that a row is compared with agree, else 0; NaN for imitated rows: with none."""
    group = compared(batch["group_id"], settings)
    if "imitation" not in batch.keys():  # noqa: SIM118
        return agreeing(batch["reward"], group).float()
    usual = ~(batch["imitation"] > 0)
    agree = torch.full((len(batch),), torch.nan, device=batch["reward"].device)
    agree[usual] = agreeing(batch["reward"][usual], group[usual]).float()
    return agree


def compared(group_id: Int[Tensor, "row"], settings: LanguageSettings) -> Int[Tensor, "row"]:
    """Whose rewards tell better from worse: those of a group, or of all where each prompt has one answer."""
    return group_id if settings.group_size > 1 else torch.zeros_like(group_id)


def gathered(
    source: PromptSampler,
    sampler: Sampler,
    settings: LanguageSettings,
    *,
    rng: torch.Generator,
    version: int,
) -> Samples:
    """Answers to `settings.prompts` prompts; where groups that agree are dropped, to more until enough stay.

    After `rounds` rounds the run goes on with what there is; where nothing is left, with the last round as it
    was.
    """
    kept: list[Samples] = []
    groups = asked = 0
    last = None
    for _ in range(settings.rounds if settings.filter_agreeing else 1):
        wanted = settings.prompts - groups
        last = sampler(dict(enumerate(source.sample(wanted), start=asked)), rng=rng, version=version)
        require_keys(last.batch, ["reward"], reader="learning from answers")
        asked += wanted
        if not settings.filter_agreeing:
            return last
        keep = ~agreeing(last.batch["reward"], last.batch["group_id"])
        kept.append(last.select(keep.nonzero()[:, 0].tolist()))
        groups += len(kept[-1].batch["group_id"].unique())
        if groups == settings.prompts:
            break
    assert last is not None
    if not groups:
        warnings.warn(
            f"of {asked} prompts none was left whose answers differ in reward, the last being "
            f"{_text(last.about[-1])[:80]!r}: nothing is learnt from this rollout",
            stacklevel=2,
        )
    samples = join(kept) if groups else last
    samples.log("prompts_asked", asked)
    return samples


def shown(samples: Samples, *, most: int = 4) -> list[dict[str, Any]]:
    """A few answers, of different prompts, as plain data."""
    if not len(samples):
        return []
    _, first = torch.unique(samples.batch["group_id"], return_inverse=True)
    rows = [int((first == group).nonzero()[0]) for group in range(min(most, int(first.max()) + 1))]
    return [
        {
            "prompt": _text(samples.about[row]),
            **_written(samples, row),
            **({"reward": float(samples.batch["reward"][row])} if "reward" in samples.batch.keys() else {}),  # noqa: SIM118
        }
        for row in rows
    ]


def _written(samples: Samples, row: int) -> dict[str, Any]:
    """An answer; of an episode what both sides said, and how it ended."""
    episode = samples.about[row].data.get("episode")
    if not isinstance(episode, Episode):
        return {"answer": samples.texts[row]}
    return {"conversation": [list(one) for one in episode.said], "ended": episode.ended}


def _text(prompt: Prompt) -> str:
    return prompt.text if isinstance(prompt.text, str) else "\n".join(turn["content"] for turn in prompt.text)
