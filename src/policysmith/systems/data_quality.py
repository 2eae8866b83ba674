"""Data Quality: grade demonstrations before anything is trained on them, and drop the worst.

Cloning works when the learner visits the states that the expert visited. What data can say of that is how
consistently like states are answered, how alike the states are, and how long the demonstrations take:

    action variance = sum_d w_d mean_i (a_id - mean of the actions in the ball around s_i)_d^2

None of the three suffices: the paper's worst operators are the most consistent ones, and slow. Numbers of two
sets can be compared only with states scaled alike (`reference`) and sets of the same size (state similarity
falls with more of them).

The recipe for curation is ours, the paper analyses and prescribes no filter: every episode is scored by its
action variance against the *other* episodes and by its length, and the worst share is dropped (`curated`).

Reference: Belkhale, Cui, Sadigh 2023, Data Quality in Imitation Learning (2306.02437).
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.common.observations import Observation, state_of
from policysmith.common.rng import generator
from policysmith.common.stages import Stage, result_of
from policysmith.evaluation.findings import Findings
from policysmith.evaluation.grading import Grade, grade_findings, listed, unsuccessful
from policysmith.experience.episodes import Episodes
from policysmith.experience.store import load_episodes
from policysmith.objectives.data_quality import (
    CHUNK,
    Neighbourhood,
    ball_neighbourhood,
    default_radius,
    group_weights,
    nearest_neighbourhood,
    standard_scale,
    transition_spread,
)


@dataclass(frozen=True)
class Config:
    """The paper's metrics; what it leaves to the data set is chosen from the data.

    - `radius`: of a neighbourhood, in standard deviations of the state. The paper takes 0.2 for the pose of
      a hand and an object, 0.05 for the pose alone; None takes the 5th percentile of pairwise distances.
    - `neighbours`: take so many nearest samples instead of a ball.
    - `state`: the dimensions of the observation (or of its part `state`) that are compared; empty means all.
    - `action_weights`: one per dimension; or `action_groups`: sizes of groups of adjacent dimensions, whose
      weight is one over the largest variance in the group ((3, 3, 1) in the authors' script for a robot
      arm: position, rotation, gripper). Both empty: 1.
    - `reference`: folder of the data set whose mean and deviation scale the states; empty means the data
      themselves. Two sets are comparable under the same reference only.
    - `keep`: "success" refuses data with unsuccessful episodes, as the paper's collection does.
    - `drop`: the share of episodes that curation drops.
    - `transitions`: also the spread of transitions from like states and actions (ours).
    - `samples`: at most so many samples, drawn at random, are compared with all others.
    """

    radius: float | None = None
    neighbours: int | None = None
    state: tuple[int, ...] = ()
    action_weights: tuple[float, ...] = ()
    action_groups: tuple[int, ...] = ()
    reference: str = ""
    keep: Literal["all", "success"] = "all"
    drop: float = 0.1
    transitions: bool = False
    samples: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.radius is not None and self.neighbours is not None:
            raise SettingError("a radius and a number of neighbours", expected="one of the two")
        if self.radius is not None and not math.isfinite(self.radius):
            raise SettingError(f"radius is {self.radius}", expected="a finite number")
        if self.neighbours is not None and self.neighbours < 2:
            raise SettingError(f"neighbours is {self.neighbours}", expected="at least 2, itself included")
        if not 0 <= self.drop < 1:
            raise SettingError(f"drop is {self.drop}", expected="0 to less than 1")
        if self.samples < 1:
            raise SettingError(f"samples is {self.samples}", expected="at least 1")
        if self.action_weights and self.action_groups:
            raise SettingError("both action_weights and action_groups", expected="one of the two")


PRESETS = {
    "paper": Config(),
    "pose-and-object": Config(radius=0.2),
    "pose": Config(radius=0.05),
    "tiny": Config(samples=100),
}
"""A radius chosen from the data, the paper's two, and a test's size."""


def measure(
    episodes: Episodes, *, config: Config = PRESETS["paper"], reference: Episodes | None = None
) -> Generator[Stage, None, Findings]:
    """Grade `episodes`; states are scaled by the mean and deviation of `reference`, or of the configured one.

    The findings' `data` holds the metrics, per action dimension and per episode, and `kept`, the numbers of
    the episodes that curation keeps. Raises `DataError` for episodes of one step, for unsuccessful ones
    where only successes are to be there, and where all states are equal; `SettingError` for dimensions or
    weights that the data do not have.
    """
    yield Stage("check", 0, 1)
    _check(episodes, config)
    if reference is None:
        reference = load_episodes(config.reference) if config.reference else episodes
    samples = _Samples(episodes, config, reference)
    radius = config.radius
    if radius is None and config.neighbours is None:
        radius = default_radius(samples.state, rng=generator(config.seed, "radius"))
    yield Stage("check", 1, 1)
    parts: list[tuple[Neighbourhood, Neighbourhood]] = []
    blocks = samples.rows.split(CHUNK)
    for number, rows in enumerate(blocks):
        parts.append((samples.near(rows, radius, config), samples.near_in_others(rows, radius, config)))
        yield Stage("compare states", number + 1, len(blocks))
    around, others = (
        Neighbourhood(*map(torch.cat, zip(*side, strict=True))) for side in zip(*parts, strict=True)
    )
    spread = None
    if config.transitions and radius is not None:
        yield Stage("compare transitions", 0, 1)
        spread = transition_spread(samples.state, samples.action, samples.next_state, radius=radius)
        yield Stage("compare transitions", 1, 1)
    return grade_findings(
        Grade(
            episodes,
            samples.action[samples.rows],
            samples.episode[samples.rows],
            samples.weight,
            around,
            others,
            radius,
            config.neighbours,
            config.drop,
            spread,
        )
    )


def curated(
    episodes: Episodes, *, config: Config = PRESETS["paper"], reference: Episodes | None = None
) -> list[int]:
    """The numbers of the episodes to keep, in order: `episodes.select(curated(episodes))`.

    The worst share `config.drop` is left out; see `objectives.data_quality.curation_score`.
    """
    return result_of(measure(episodes, config=config, reference=reference)).data["kept"]


class _Samples:
    """The steps of all episodes as samples, their states scaled; `rows` are those that are looked at."""

    def __init__(self, episodes: Episodes, config: Config, reference: Episodes) -> None:
        columns = list(config.state)
        size = episodes.observation_size
        if columns and not all(-size <= column < size for column in columns):
            raise SettingError(
                f"state is {columns}", expected=f"dimensions of the observation, which has {size}"
            )
        if reference.observation_size != size:
            raise DataError(
                f"the reference has observations of width {reference.observation_size}",
                expected=f"{size}, as the data that are graded",
            )

        def chosen(observation: Observation) -> Tensor:
            state = state_of(observation)
            return state[:, columns] if columns else state

        observation = state_of(episodes.steps["observation"])
        mean, deviation = standard_scale(chosen(reference.steps["observation"]))
        self.state = (chosen(observation).double() - mean) / deviation
        following = torch.cat([observation[1:], observation[-1:]])
        following[episodes.starts + episodes.lengths - 1] = state_of(episodes.final_observation)
        self.next_state = (chosen(following).double() - mean) / deviation
        self.action = episodes.steps["action"].double()
        self.episode = torch.repeat_interleave(torch.arange(len(episodes)), episodes.lengths)
        order = torch.randperm(len(self.state), generator=generator(config.seed, "samples"))
        self.rows = order[: config.samples].sort().values
        self.weight = _weights(self.action, config)

    def near(self, rows: Tensor, radius: float | None, config: Config) -> Neighbourhood:
        """The neighbourhoods of `rows` among all samples."""
        if radius is None:
            assert config.neighbours is not None
            return nearest_neighbourhood(self.state, self.action, count=config.neighbours, rows=rows)
        return ball_neighbourhood(self.state, self.action, radius=radius, rows=rows)

    def near_in_others(self, rows: Tensor, radius: float | None, config: Config) -> Neighbourhood:
        """The neighbourhoods of `rows` among the samples of other episodes."""
        if radius is None:
            assert config.neighbours is not None
            count = config.neighbours
            return nearest_neighbourhood(
                self.state, self.action, count=count, rows=rows, group_id=self.episode
            )
        return ball_neighbourhood(self.state, self.action, radius=radius, rows=rows, group_id=self.episode)


def _check(episodes: Episodes, config: Config) -> None:
    if episodes.observation_size == 0:
        raise DataError("the observations have no state to compare", expected="a vector, or a part 'state'")
    if len(short := (episodes.lengths < 2).nonzero()[:, 0].tolist()):
        raise DataError(
            f"{len(short)} of {len(episodes)} episodes have a single step",
            where=f"episodes {listed(short)}",
            expected="two steps or more",
            cure="drop them, or check how the recording is cut into episodes",
        )
    if config.keep == "success" and len(failed := unsuccessful(episodes)):
        raise DataError(
            f"{len(failed)} of {len(episodes)} episodes did not succeed",
            where=f"episodes {listed(failed)}",
            expected="successful demonstrations alone (keep is 'success')",
            cure="episodes.select(episodes.succeeded), or keep='all' where success is not recorded",
        )


def _weights(action: Tensor, config: Config) -> Tensor:
    if config.action_groups:
        return group_weights(action, config.action_groups)
    weights = config.action_weights or (1.0,) * action.shape[1]
    if len(weights) != action.shape[1] or min(weights) < 0:
        raise SettingError(
            f"action_weights are {list(weights)}",
            expected=f"{action.shape[1]}, one per dimension of the action, 0 or more",
        )
    return torch.tensor(weights, dtype=torch.double)
