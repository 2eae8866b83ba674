"""C-MORL: a set of policies along the Pareto front, grown where it is emptiest.

Several rewards pull in different directions, and how much each counts is not known before somebody asks. A
first stage learns a few policies, each for fixed weights w of the objectives,

    A = w . A_i        (one PPO run each),

and keeps what they pass through. A second stage picks the kept policies with the most room around them and
pushes each along one objective l at a time, while a log barrier holds the others at what the policy had when
it was picked, less a share 1 - beta:

    loss = PPO_clip(A_l) - (1/t) mean_{i != l} log(clip(ratio) G_i - bound_i), bound_i = G_i - (1 - beta)|G_i|

Every policy on the way is evaluated, and kept where no other is as good in everything. The run's policy is
the archive of these: `prefer(w)` lets the member act that is worth most under w. No network is conditioned on
preferences, and the cost grows in a straight line with the number of objectives.

Reference: Liu et al. 2024 (2410.02236). Where the authors' code departs from the paper's constraints this
follows the paper; `row_dropping`, `moving_bounds` and `decayed_rate` do what the code does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.rng import derive, generator
from policysmith.evaluation.vector_returns import VectorReturns
from policysmith.experience.environments import Maker
from policysmith.experience.interaction import Interaction
from policysmith.experience.makers import makers_of
from policysmith.networks.running import RunningReturnScale
from policysmith.objectives import pareto
from policysmith.objectives.constraints import barrier_loss, row_dropping_barrier_loss
from policysmith.objectives.policy_gradient import clipped_policy_loss
from policysmith.training.learner import Loss
from policysmith.training.learners.copies import (
    AgentCopy,
    ArchiveRun,
    CopyArchive,
    Select,
    at_random,
    with_most_room,
)
from policysmith.training.learners.course import Course, Schedule
from policysmith.training.learners.on_policy import (
    Rollout,
    RolloutCollector,
    gae,
    policy_learner,
    scaled_rewards,
    updating,
)
from policysmith.training.learners.ppo import PpoSettings, actor_critic, statistics, value_error
from policysmith.training.loop import Progress, RunState, run
from policysmith.worlds.vector_rewards import require_objectives

SELECT: dict[str, Select] = {"room": with_most_room, "random": at_random}
"""How the policies are picked from which the front is extended."""
MOST_OBJECTIVES = 4
"""With more, the hypervolume takes too long to be told after every update; it is 0 in the metrics then."""


@dataclass(frozen=True)
class Config(PpoSettings):
    """Defaults for Hopper with two objectives, as in the authors' script; PPO's as in their settings.

    - `environment_steps`, of which `initial_steps` are the first stage's, shared by its weights: all weights
      from `lowest_weight` to `highest_weight` by `weight_step`, the last objective getting the rest. As many
      as `environment_steps` leave no second stage.
    - `selected` policies are extended in every round, each `extension_updates` updates per objective;
      `selection`: "room" (largest crowding distance) or "random".
    - `beta`, `sharpness`: the share that constrained objectives keep, and 1 over the barrier's weight (t).
    - `return_shift`: added to the objectives' returns before the barrier, which needs them above 0; one
      number for each, or none.
    - `reference`: what a policy has to reach in every objective to be kept; the hypervolume is above it.
    - `archive_size`: most policies kept between rounds.
    - `episodes` per evaluation, the same ones for every policy, discounted by `evaluation_discount`; in the
      first stage after every `evaluate_every` updates. `episode_limit`: longest episode, 0 for none of ours.
    - `moving_bounds`: bounds of the minibatch's own mean returns instead of the picked policy's;
      `row_dropping`: the barrier leaves out row l of the minibatch instead of objective l; `decayed_rate`:
      extensions go on at the learning rate of the copy, instead of the full one. All three as in the authors'
      code.
    """

    environment_steps: int = 1_500_000
    initial_steps: int = 1_000_000
    lowest_weight: float = 0.0
    highest_weight: float = 1.0
    weight_step: float = 0.2
    selected: int = 5
    extension_updates: int = 20
    selection: str = "room"
    beta: float = 0.9
    sharpness: float = 20.0
    return_shift: tuple[float, ...] = ()
    reference: tuple[float, ...] = (-100.0, -100.0)
    archive_size: int = 200
    episodes: int = 5
    evaluation_discount: float = 0.99
    evaluate_every: int = 10
    utility_parts: int = 100
    episode_limit: int = 500
    moving_bounds: bool = False
    row_dropping: bool = False
    decayed_rate: bool = False
    # PPO
    environments: int = 8
    rollout_steps: int = 512
    discount: float = 0.995
    value_clip: float | None = 0.2
    normalise_observations: bool = True
    normalise_rewards: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("initial_steps", "selected", "extension_updates", "archive_size", "episodes",
                     "evaluate_every", "utility_parts"):  # fmt: skip
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        if not 0 < self.beta <= 1:
            raise SettingError(f"beta is {self.beta}", expected="above 0 and at most 1")
        if not self.sharpness > 0:
            raise SettingError(f"sharpness is {self.sharpness}", expected="above 0")
        if self.selection not in SELECT:
            raise SettingError(f"selection is '{self.selection}'", expected=" or ".join(SELECT))
        if self.cell or not self.normalise_rewards:
            raise SettingError(
                f"cell '{self.cell}', normalise_rewards {self.normalise_rewards}",
                expected="policies without a memory, and rewards in units of their own spread, which make "
                "objectives comparable",
            )
        pareto.weight_grid(max(2, len(self.reference)), **self.weights)

    @property
    def weights(self) -> dict[str, float]:
        """The first stage's grid, as `weight_grid` takes it."""
        return {"low": self.lowest_weight, "high": self.highest_weight, "step": self.weight_step}


PRESETS = {
    "paper": Config(),
    "deep-sea-treasure": Config(
        environment_steps=200_000,
        initial_steps=80_000,
        environments=4,
        minibatches=8,
        weight_step=0.5,
        selected=3,
        extension_updates=5,
        entropy_weight=0.01,
        return_shift=(0.0, 100.0),
        reference=(0.0, -25.0),
        episodes=1,
        evaluate_every=1,
        episode_limit=100,
    ),
    "hopper": Config(
        environment_steps=150_000, initial_steps=100_000, environments=4, weight_step=0.5, extension_updates=5
    ),
    "tiny": Config(
        environment_steps=160, initial_steps=48, environments=2, rollout_steps=8, epochs=1, minibatches=2,
        hidden=(8,), weight_step=0.5, selected=1, extension_updates=1, episodes=1, episode_limit=10,
    ),
}  # fmt: skip
"""The paper's, a laptop's for two worlds of MO-Gymnasium, and a test's."""


def train(
    environment: str | Maker | gymnasium.Env,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Find policies along the Pareto front of `environment`, whose reward is a vector.

    The run's policy, `progress.state.policy()`, is a `ParetoArchive`. Raises `CapabilityError` for a reward
    that is no vector, `SettingError` for a reference or shift of another length, and `DataError` with the
    best value of each objective where no policy of the first stage reaches the reference.
    """
    make = makers_of(environment, config.environments + config.episodes)[0]
    if config.episode_limit:
        make = partial(_cut, make, config.episode_limit)
    player = VectorReturns(
        make,
        seeds=[derive(seed, "archive", number) for number in range(config.episodes)],
        discount=config.evaluation_discount,
    )
    objectives = require_objectives(player.environments[0], by="C-MORL")
    _check_lengths(config, objectives)
    interaction = Interaction.of(make, config.environments, seed=seed, processes=config.processes)
    agent = actor_critic(interaction, config, seed=seed, objectives=objectives)
    scale = RunningReturnScale(interaction.rows, config.discount, objectives=objectives)
    archive = CopyArchive(config.reference, limit=config.archive_size)
    course = Course(
        schedule(config, objectives),
        fresh=lambda number: actor_critic(
            interaction, config, seed=derive(seed, "weights", number), objectives=objectives
        ),
    )
    learner = policy_learner(agent, constrained_loss(config, course, scale), config)
    learner.schedule = course.rate
    collector = RolloutCollector(agent, interaction, generator(seed, "actions"))
    selecting = generator(seed, "selection")
    run_state = ArchiveRun(
        learners={"policy": learner},
        generators={
            "actions": collector.rng,
            "minibatches": generator(seed, "minibatches"),
            "selection": selecting,
        },
        sources={
            "interaction": interaction, "rollouts": collector, "rewards": scale,
            "archive": archive, "course": course,
        },
    ).restored(state)  # fmt: skip
    estimate, scaled = gae(config), scaled_rewards(scale)
    learn = updating(agent, interaction, config)

    def collect(state: RunState) -> Rollout:
        course.go_on(
            state.step,
            learner,
            scale,
            pick=lambda: archive.select(config.selected, by=SELECT[config.selection], rng=selecting),
        )
        rollout = estimate(scaled(collector.roll_out(config.rollout_steps)))
        course.bound(rollout["value_target"], scale.deviation)
        advantage = weighted_advantage(rollout["advantage"], scale.deviation, course.weights)
        return rollout | {"advantage": advantage}

    def update(state: RunState, rollout: Rollout) -> dict[str, float]:
        metrics = learn(state, rollout)
        last = course.ends_weights(state.step)
        if course.extends or last or (state.step + 1) % config.evaluate_every == 0:
            before = player.steps
            policy: Any = learner.acting()
            returns = player(policy).mean(0).tolist()
            course.evaluation_steps += player.steps - before
            archive.add(AgentCopy.of(learner, scale, returns=returns, rate=course.rate(learner.steps)))
        return metrics | _told(archive, course, config)

    return run(run_state, collect=collect, update=update, steps=config.steps)


def weighted_advantage(
    advantage: Float[Tensor, "*batch objective"],
    deviation: Float[Tensor, "objective"],
    weights: Float[Tensor, "objective"],
) -> Float[Tensor, "*batch"]:
    """w . A in the rewards' own units, standardised over the batch; rewards were divided by `deviation`."""
    together = (advantage * deviation) @ weights.to(advantage.dtype)
    return (together - together.mean()) / (together.std() + 1e-5)


def constrained_loss(config: Config, course: Course, scale: RunningReturnScale) -> Loss:
    """PPO's loss per row and, in extensions, the barrier before the bounds of the other objectives."""
    barrier = row_dropping_barrier_loss if config.row_dropping else barrier_loss

    def loss(agent: Any, batch: Rollout) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        old, advantage = batch["behaviour_log_prob"], batch["advantage"]
        log_prob, entropy, value = agent.evaluate(batch)
        values = clipped_policy_loss(log_prob, old, advantage, low=config.clip, high=config.clip)
        error = value_error(value, batch, config)
        values = values + config.value_weight * error - config.entropy_weight * entropy
        told = statistics(log_prob, old, advantage, entropy, error, config)
        told["barrier"] = torch.zeros_like(old)
        if course.extends:
            mean, bounds = course.mean_and_bounds(batch["value_target"], scale.deviation)
            held = barrier(
                (log_prob - old).exp(),
                mean,
                bounds,
                objective=course.objective,
                clip=config.clip,
                sharpness=config.sharpness,
            )
            values, told["barrier"] = values + held, held.detach()
        return values, told

    return loss


def schedule(config: Config, objectives: int) -> Schedule:
    """How the updates are shared out; a first stage of all steps has all updates."""
    weights = pareto.weight_grid(objectives, **config.weights)
    updates = config.steps
    share = config.initial_steps // (config.environments * config.rollout_steps)
    alone = config.initial_steps >= config.environment_steps
    initial = updates if alone else max(share, len(weights))
    if initial > updates or initial < len(weights):
        raise SettingError(
            f"{updates} updates for {len(weights)} weight vectors",
            expected="at least one update for each",
            cure="more environment_steps, or a larger weight_step",
        )
    return Schedule(
        weights=weights,
        initial=initial,
        extension=config.extension_updates,
        optimizer_steps=config.epochs * config.minibatches,
        decayed_rate=config.decayed_rate,
        beta=config.beta,
        shift=torch.tensor(config.return_shift or (0.0,) * objectives),
        moving=config.moving_bounds,
    )


def _cut(make: Maker, steps: int) -> gymnasium.Env:
    return gymnasium.wrappers.TimeLimit(make(), steps)


def _told(archive: CopyArchive, course: Course, config: Config) -> dict[str, float]:
    """How good the front is so far, and where the run is."""
    points = archive.points
    found = {
        "stage": 2.0 if course.extends else 1.0,
        "members": float(len(points)),
        "evaluation_steps": float(course.evaluation_steps),
        "hypervolume": 0.0,
        "expected_utility": 0.0,
        "sparsity": 0.0,
    }
    if len(points) == 0:
        return found
    grid = pareto.preference_grid(points.shape[1], config.utility_parts)
    found["expected_utility"] = float(pareto.expected_utility(points, grid))
    found["sparsity"] = float(pareto.sparsity(points))
    if points.shape[1] <= MOST_OBJECTIVES:
        found["hypervolume"] = float(pareto.hypervolume(points, reference=archive.reference))
    return found


def _check_lengths(config: Config, objectives: int) -> None:
    for name, values in (("reference", config.reference), ("return_shift", config.return_shift)):
        if len(values) != objectives and (values or name == "reference"):
            raise SettingError(
                f"{name} is {list(values)}",
                expected=f"{objectives} numbers, one for each objective of the environment",
            )
