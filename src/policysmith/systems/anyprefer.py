"""Anyprefer: preference pairs from a model's own answers, judged by another that has tools.

A model that judges itself learns its own errors. Here the roles are apart: the target writes `group_size`
answers, a judge with tools ranks them, and a reward of the pair says whether best over worst is worth
learning; where it is not, its critique leads to other instructions for target and judge, which are kept where
a few probe prompts do not fare worse.

    generate     the pairs, with where each is from, as a file that every preference system reads
    synthesise   the same as a run that can be driven, saved and gone on with
    train        rounds: pairs of the policy as it is, then DPO on them, the round's start as the reference

The game is `synthesis.preferences`, its players `synthesis.players`. `online-dpo` has no tools, no judgement
of pairs and no feedback.

Reference: Zhou et al. 2025, Anyprefer: an agentic framework for preference data synthesis (2504.19276).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import generator
from policysmith.common.stages import Stage
from policysmith.evaluation.findings import Findings, Table
from policysmith.experience.outcomes import preference_rows
from policysmith.experience.preferences import Preferences
from policysmith.experience.prompts import Prompt, Prompts, PromptSampler
from policysmith.experience.rollouts import Groups, Sampler
from policysmith.objectives.preferences import check_beta, dpo_loss
from policysmith.policies.language.models import open_policy
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.synthesis.game_settings import GameSettings
from policysmith.synthesis.judging import Writing
from policysmith.synthesis.players import Players
from policysmith.synthesis.preferences import PreferenceGame
from policysmith.training import processes
from policysmith.training.learners.preference import on_pairs
from policysmith.training.learners.preference_rounds import preference_rounds
from policysmith.training.loop import Progress, RunState, run


@dataclass(frozen=True)
class Config(GameSettings):
    """Five candidates, best over worst and three rounds are the paper's; the reward of pairs and its
    threshold are this library's, for the paper states none (see `GameSettings`); DPO at its usual beta.

    - `prompts`: how many are played, in each round of `train`.
    - `beta`: weight of the divergence from the round's start. `round_steps`, `batch_size`: of a round's DPO.
    - `seed`: of `generate`.
    """

    steps: int = 3000
    prompts: int = 20_000
    answer_limit: int = 512
    learning_rate: float = 5e-7
    beta: float = 0.1
    round_steps: int = 1000
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta(self.beta)
        if self.round_steps < 1 or self.batch_size < 1:
            raise SettingError(
                f"rounds of {self.round_steps} steps on {self.batch_size} pairs", expected="1 or more each"
            )


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=1000, answer_limit=48, at_a_time=32, steps=400, round_steps=200, batch_size=32,
        learning_rate=1e-4,
    ),
    "tiny": Config(
        prompts=6, group_size=3, answer_limit=4, at_a_time=2, probe=2, max_feedback=1, finished_only=False,
        margin=0, floor=0, steps=6, round_steps=2, batch_size=2, learning_rate=1e-3,
    ),
}  # fmt: skip
"""The paper's, a laptop's for a small model, and a test's."""


def generate(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    players: Players,
    *,
    config: Config = PRESETS["paper"],
) -> Generator[Stage, None, Findings]:
    """Make pairs of the policy's answers to `config.prompts` of the prompts; they are `findings.pairs`.

    Raises `DataError` where no pair was kept, and what `PreferenceGame` raises.
    """
    last = None
    for last in synthesise(policy, prompts, players, config=config, seed=config.seed):
        yield Stage("play", last.step, last.total)
    assert last is not None
    game: Any = last.state.sources["game"]
    return found(game, pairs_of(game, prompts))


def synthesise(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    players: Players,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Play the game on each of `config.prompts` prompts once, at most all; a step plays `config.at_a_time`.

    The pairs so far are those of `progress.state.sources["game"]` (`pairs_of`). A run that was saved and goes
    on makes the same pairs, as far as judge and tools say the same. Warns where the judge is the target.
    """
    policy = policy if isinstance(policy, LanguagePolicy) else open_policy(policy)
    warn_of_one_model(policy, players)
    game = game_of(policy, prompts, players, config, seed=seed)
    source = PromptSampler(prompts, rng=generator(seed, "prompts"))
    total = min(config.prompts, len(prompts))

    def collect(state: RunState) -> list[Prompt]:
        return list(source.sample(min(config.at_a_time, total - state.step * config.at_a_time)))

    def update(state: RunState, batch: list[Prompt]) -> dict[str, float]:
        made = game.play(batch)
        state.shown = [{"prompt": str(one.prompt.text), "answer": one.answers[0]} for one in made[:4]]
        return game.metrics()

    run_state = RunState(
        learners={}, generators={"prompts": source.rng}, sources={"prompts": source, "game": game}
    ).restored(state)
    return run(run_state, collect=collect, update=update, steps=-(-total // config.at_a_time))


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    players: Players,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model in rounds: pairs of its answers to `config.prompts` prompts, then `config.round_steps` of
    DPO on them, against the model at the round's start. All pairs are those of `sources["game"]`.

    It learns to answer as the pairs do behind `config.system`, whatever instruction they were written behind.
    Raises `SettingError` in several processes: revisions of one would not be those of the others.
    """
    if processes.count() > 1:
        raise SettingError("the game is played in one process", cure="start it without torchrun")
    policy = policy if isinstance(policy, LanguagePolicy) else open_policy(policy)
    warn_of_one_model(policy, players)
    game = game_of(policy, prompts, players, config, seed=seed)

    def build(samples: Samples) -> TensorDict:
        fresh = game.pairs[len(game.pairs) - int(samples.batch["log", "pairs"][0]) :]
        if not fresh:
            return TensorDict({}, batch_size=[0])
        rows = preference_rows(policy, fresh, system=config.system)
        rows["group_id"] = torch.arange(len(rows))
        return rows

    return preference_rounds(
        policy,
        prompts,
        None,
        settings=config,
        build=build,
        loss=on_pairs(partial(dpo_loss, beta=config.beta)),
        round_steps=config.round_steps,
        batch_size=config.batch_size,
        take_every=config.round_steps,
        wrap=lambda sampler, trained: playing(game, writing(trained, config), config),
        sources={"game": game},
        seed=seed,
        state=state,
    )


def playing(game: PreferenceGame, target: Writing, config: Config) -> Sampler:
    """The game as a sampler: the prompts are played, and the last candidates come back for the log."""

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        game.propose = target
        game.begin_round()
        asked = list(groups.values())
        made = 0
        for start in range(0, len(asked), config.at_a_time):
            made += len(game.play(asked[start : start + config.at_a_time]))
        assert target.last is not None
        target.last.log("pairs", made)
        return target.last

    return sample


def writing(policy: LanguagePolicy, config: Config) -> Writing:
    """The policy as the target of the game."""
    return Writing(policy, config.sampling, copies=config.group_size, finished_only=config.finished_only)


def game_of(
    policy: LanguagePolicy, prompts: Prompts, players: Players, config: Config, *, seed: int
) -> PreferenceGame:
    """The game that the policy plays with `players`, its probe drawn from the prompts by the seed."""
    order = torch.randperm(len(prompts), generator=generator(seed, "probe prompts")).tolist()
    probe = [prompts[place] for place in order[: config.probe]]
    return PreferenceGame(writing(policy, config), players, config, probe=probe, seed=seed)


def pairs_of(game: PreferenceGame, prompts: Prompts | None = None) -> Preferences:
    """The pairs that a game has made, to be saved or learnt from.

    Raises `DataError` where there are none, saying why, or where too many prompts gave nothing.
    """
    game.check_shares()
    if not game.pairs:
        said = {name: int(number) for name, number in game.metrics().items() if number and number >= 1}
        raise DataError(
            "no pair was kept",
            where=", ".join(f"{name}: {number}" for name, number in said.items()),
            cure="raise the temperature, lower threshold, margin or floor, or play more prompts",
        )
    provenance: dict[str, Any] = {
        "system": "anyprefer",
        "counts": dict(game.counts),
        "instructions": game.instructions.plain(),
        "tools": sorted(game.players.tools),
    }
    if prompts is not None:
        provenance["prompts"] = prompts.fingerprint
    return Preferences(game.pairs, provenance=provenance)


def found(game: PreferenceGame, pairs: Preferences) -> Findings:
    """What a game came to, for people and for programs."""
    metrics = game.metrics()
    per_pair = metrics["tool_calls"] / len(pairs)
    rows = [
        [str(one.prompt.text)[:60], one.answers[0][:60], one.answers[1][:60], one.data["reward"]]
        for one in pairs[:10]
    ]
    notices = []
    if pairs[0].data["told_the_truth"]:
        notices.append("Right answers were told (a verifier, or labels): these pairs are supervised.")
    if metrics["tool_failures"]:
        notices.append(f"{metrics['tool_failures']:.0f} calls of tools failed; the judge was told so.")
    return Findings(
        "Preference pairs",
        {
            "pairs": len(pairs),
            "prompts": int(metrics["prompts"]),
            "pairs per prompt": metrics["kept"],
            "mean reward of a pair, first try": metrics["reward"],
            "tool calls per pair": per_pair,
            "revisions kept, of proposed": f"{metrics['revised']:.0f} of {metrics['proposed']:.0f}",
        },
        tables=[Table("The first pairs", ["prompt", "better", "worse", "reward"], rows)],
        notices=notices,
        data={"counts": metrics, "instructions": game.instructions.plain(), "fingerprint": pairs.fingerprint},
        pairs=pairs,
    )


def warn_of_one_model(policy: LanguagePolicy, players: Players) -> None:
    """Warn where the judge is the very model that writes."""
    if getattr(players.judge, "policy", players.judge) is policy:
        warnings.warn(
            "judge and target are one model: this is self-rewarding, and its errors are learnt",
            stacklevel=3,
        )
