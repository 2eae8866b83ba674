"""The on-policy loop: act for a while, estimate advantages, learn from it a few times, forget it.

    collect:  rollout of [time, env] steps -> values, log-probabilities -> `advantage`
    update:   `epochs` passes over its rows in random minibatches, each an optimiser step on `loss`

Three functions at seams make a method: `label` (before anything is estimated: learned rewards, shaping),
`advantage` (batch -> batch with `advantage` and `value_target`) and `loss` ((agent, minibatch) -> value per
row, statistics). Rewards may be vectors; values then are too, and `advantage` says how they become one.

A recurrent policy learns from whole sequences: minibatches are then sets of environments, not of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.observations import Observation
from policysmith.common.rng import generator
from policysmith.experience.interaction import Interaction
from policysmith.networks.critics import ValueNetwork
from policysmith.networks.running import RunningReturnScale
from policysmith.objectives.returns import generalised_advantage
from policysmith.policies.actors import NetworkPolicy, without_noise
from policysmith.training.learner import Learner, Loss
from policysmith.training.loop import Progress, RunState, Stateful, Update, run
from policysmith.training.optimizers import adam

Rollout = dict[str, Any]
"""Arrays [time, env, ...] of one rollout; keys as in `common.keys`."""

Label = Callable[[Rollout], Rollout]
"""A rollout -> the rollout with what comes after it asks for."""


@dataclass(frozen=True)
class OnPolicySettings:
    """What every on-policy run needs; a system's configuration says where its values are from.

    - `environment_steps`: of all environments together, in iterations of `rollout_steps` of each of
      `environments`; `processes`: worker processes that step them, 0 for none.
    - `epochs` passes over a rollout in `minibatches` parts each.
    - `learning_rate` (falling to 0 in a straight line where `anneal`), `adam_epsilon`, `max_grad_norm`.
    - `discount`, `gae_lambda`: of returns and advantages.
    - `normalise_observations`, `normalise_rewards`: by running moments, saved with the run.
    - `hidden`, `activation`: of actor and critic; `cell`, `memory_width`: a recurrent body for both.
    - `compile`: learn through `torch.compile` (see `Learner`).
    """

    environment_steps: int = 1_000_000
    environments: int = 8
    processes: int = 0
    rollout_steps: int = 2048
    epochs: int = 10
    minibatches: int = 32
    learning_rate: float = 3e-4
    anneal: bool = False
    adam_epsilon: float = 1e-5
    max_grad_norm: float = 0.5
    discount: float = 0.99
    gae_lambda: float = 0.95
    normalise_observations: bool = False
    normalise_rewards: bool = False
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    cell: str = ""
    memory_width: int = 128
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("environment_steps", "environments", "rollout_steps", "epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        for name in ("learning_rate", "adam_epsilon", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0, and finite")
        for name in ("discount", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 to 1")
        rows = self.environments if self.cell else self.environments * self.rollout_steps
        if self.minibatches > rows:
            what = "environments (a recurrent policy learns from whole sequences)" if self.cell else "steps"
            raise SettingError(
                f"{self.minibatches} minibatches of {rows} {what}", expected="at least one row in each"
            )

    @property
    def steps(self) -> int:
        """Iterations of the run."""
        return math.ceil(self.environment_steps / (self.environments * self.rollout_steps))


class ActorCritic(nn.Module):
    """A policy and what its states are worth; a `critic` that is a linear map reads the policy's features."""

    def __init__(self, policy: NetworkPolicy, critic: ValueNetwork | nn.Linear) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic
        self.shared = isinstance(critic, nn.Linear)
        self.objectives = 0
        if policy.memory_size and not self.shared:
            raise SettingError(
                "a recurrent policy with a critic of its own body",
                expected="a critic on the policy's features, which remember",
            )

    def evaluate(
        self, batch: Mapping[str, Any]
    ) -> tuple[Float[Tensor, "row"], Float[Tensor, "row"], Float[Tensor, "row *objective"]]:
        """Log-probability of the batch's actions, entropy, and value; rows are [time * env] of sequences."""
        features = self._features(batch)
        distribution = self.policy.head(features, self.policy._mask(batch["observation"]))
        action = batch["action"]
        if self.policy.memory_size:
            action = action.flatten(0, 1)
        value = self._value(features) if self.shared else self.critic(batch["observation"])
        return distribution.log_prob(action), distribution.entropy(), value

    def value(
        self, observation: Observation, memory: Tensor | None = None
    ) -> Float[Tensor, "row *objective"]:
        """What [row, ...] observations are worth, `memory` being that of the policy before them."""
        if not self.shared:
            return self.critic(observation)
        if memory is None:
            return self._value(self.policy.body(observation))
        return self._value(self.policy.body.step(observation, memory)[0])

    def observe(self, observation: Observation) -> None:
        """Take observations into the running moments of both bodies."""
        self.policy.body.observe(observation)
        if isinstance(self.critic, ValueNetwork):
            self.critic.body.observe(observation)

    def _features(self, batch: Mapping[str, Any]) -> Tensor:
        if not self.policy.memory_size:
            return self.policy.body(batch["observation"])
        features, _ = self.policy.body.sequence(batch["observation"], batch["memory"], batch["begins"])
        return features.flatten(0, 1)

    def _value(self, features: Tensor) -> Tensor:
        value = self.critic(features)
        return value.squeeze(-1) if value.shape[-1] == 1 else value


class RolloutCollector:
    """Acts with the agent as it is and remembers what recurrent policies remember between rollouts."""

    def __init__(self, agent: ActorCritic, interaction: Interaction, rng: torch.Generator) -> None:
        self.agent, self.interaction, self.rng = agent, interaction, rng
        size = agent.policy.memory_size
        self.memory = torch.zeros(interaction.rows, size) if size else None

    @torch.no_grad()
    def roll_out(self, steps: int) -> Rollout:
        """`steps` steps of every environment, with values and log-probabilities."""
        self.interaction.start()
        policy, seen, rows = self.agent.policy, [], []
        rollout: Rollout = {} if self.memory is None else {"memory": self.memory}
        memories, begins = [], []
        for _ in range(steps):
            observation = self.interaction.tensors
            begins.append(torch.from_numpy(self.interaction.begins))
            if self.memory is not None:
                self.memory = self.memory * (~begins[-1])[:, None]
            distribution, self.memory = policy.remembering(observation, self.memory)
            action = distribution.draw(self.rng)[0]
            seen.append((observation, action))
            rows.append(self.interaction.step(action.numpy()))
            memories.append(self.memory)
        rollout |= {
            "observation": torch.stack([observation for observation, _ in seen]),  # type: ignore[arg-type]
            "action": torch.stack([action for _, action in seen]),
            "begins": torch.stack(begins),
        }
        rollout |= stepped(rows)
        rollout |= self._estimates(rollout, memories)
        return rollout

    def state_dict(self) -> dict[str, Any]:
        """The memory of the episodes that go on."""
        return {} if self.memory is None else {"memory": self.memory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        if self.memory is not None:
            self.memory = state["memory"].clone()

    def _estimates(self, rollout: Rollout, memories: Sequence[Tensor | None]) -> Rollout:
        """Log-probabilities and values, all at once; next values anew only where no next step follows."""
        agent, (time, rows) = self.agent, rollout["terminated"].shape
        normalizer = agent.policy.body.normalizer
        if normalizer is not None and float(normalizer.count) == 0:
            agent.observe(rollout["observation"])
        flat = rollout if self.memory is not None else flattened(rollout)
        log_prob, _, value = (part.unflatten(0, (time, rows)) for part in agent.evaluate(flat))
        next_value = torch.cat([value[1:], value[-1:]])
        cut = rollout["truncated"] & ~rollout["terminated"]
        cut[-1] |= ~rollout["terminated"][-1]
        step, row = cut.nonzero(as_tuple=True)
        if len(step):
            after = rollout["next_observation"][step, row]
            kept = None if self.memory is None else torch.stack(memories)[step, row]  # type: ignore[arg-type]
            next_value[step, row] = agent.value(after, kept)
        return {"behaviour_log_prob": log_prob, "old_value": value, "next_value": next_value}


def stepped(rows: Sequence[Any]) -> Rollout:
    """What `Interaction.step` gave, step after step, as tensors [time, env, ...]."""
    first = rows[0].next_observation
    if isinstance(first, Mapping):
        parts = {name: _stacked([row.next_observation[name] for row in rows]) for name in first}
        after: Any = TensorDict(parts, batch_size=[len(rows), len(rows[0].reward)])
    else:
        after = _stacked([row.next_observation for row in rows])
    return {
        "next_observation": after,
        "reward": _stacked([row.reward for row in rows]),
        "terminated": _stacked([row.terminated for row in rows]),
        "truncated": _stacked([row.truncated for row in rows]),
    }


def _stacked(arrays: Sequence[Any]) -> Tensor:
    return torch.stack([torch.from_numpy(array) for array in arrays])


def flattened(rollout: Rollout) -> Rollout:
    """[time, env, ...] as rows [time * env, ...]; what belongs to sequences is left out."""
    return {key: value.flatten(0, 1) for key, value in rollout.items() if key != "memory"}


def gae(settings: OnPolicySettings) -> Label:
    """The usual `advantage`: generalised advantages, and their sum with the values as the critic's target."""

    def advantage(rollout: Rollout) -> Rollout:
        ended = rollout["terminated"] | rollout["truncated"]
        found = generalised_advantage(
            rollout["reward"],
            rollout["old_value"],
            rollout["next_value"],
            terminated=rollout["terminated"],
            ended=ended,
            discount=settings.discount,
            gae_lambda=settings.gae_lambda,
        )
        return rollout | {"advantage": found, "value_target": found + rollout["old_value"]}

    return advantage


def scaled_rewards(scale: RunningReturnScale) -> Label:
    """A `label` that divides rewards by the running deviation of their discounted sum."""

    def label(rollout: Rollout) -> Rollout:
        ended = rollout["terminated"] | rollout["truncated"]
        scale.update_all(rollout["reward"], ended)
        return rollout | {"reward": scale(rollout["reward"])}

    return label


def on_policy_run(
    agent: ActorCritic,
    interaction: Interaction,
    *,
    loss: Loss,
    settings: OnPolicySettings,
    seed: int,
    advantage: Label | None = None,
    label: Label = lambda rollout: rollout,
    stop_early: Callable[[dict[str, float]], bool] = lambda metrics: False,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn `agent` in `interaction` by `loss`; see the module's own words for the seams.

    `stop_early`, asked after every optimiser step, ends the passes over the present rollout.
    """
    learner = policy_learner(agent, loss, settings)
    collector = RolloutCollector(agent, interaction, generator(seed, "actions"))
    scale = RunningReturnScale(
        interaction.rows, settings.discount, objectives=getattr(agent, "objectives", 0)
    )
    advantage = gae(settings) if advantage is None else advantage
    scaled = scaled_rewards(scale) if settings.normalise_rewards else lambda rollout: rollout
    sources: dict[str, Stateful] = {"interaction": interaction, "rollouts": collector}
    if settings.normalise_rewards:
        sources["rewards"] = scale
    run_state = RunState(
        learners={"policy": learner},
        generators={"actions": collector.rng, "minibatches": generator(seed, "minibatches")},
        sources=sources,
    ).restored(state)
    return run(
        run_state,
        collect=lambda state: advantage(scaled(label(collector.roll_out(settings.rollout_steps)))),
        update=updating(agent, interaction, settings, stop_early),
        steps=settings.steps,
    )


def policy_learner(agent: ActorCritic, loss: Loss, settings: OnPolicySettings) -> Learner:
    """The learner of an actor-critic: Adam, its rate annealed where asked for."""
    optimizer = adam(agent, settings.learning_rate, eps=settings.adam_epsilon)
    total = settings.steps * settings.epochs * settings.minibatches
    return Learner(
        agent,
        loss,
        optimizer=optimizer,
        schedule=(lambda step: 1 - step / total) if settings.anneal else None,
        max_grad_norm=settings.max_grad_norm,
        acts=lambda agent: without_noise(agent.policy),
        compiled=settings.compile,
    )


def updating(
    agent: ActorCritic,
    interaction: Interaction,
    settings: OnPolicySettings,
    stop_early: Callable[[dict[str, float]], bool] = lambda metrics: False,
) -> Update:
    """The usual `update`: passes over the rollout in minibatches; then the moments of the observations."""

    def update(state: RunState, rollout: Rollout) -> dict[str, float]:
        totals: dict[str, float] = {}
        taken = 0
        for minibatch in minibatches(rollout, settings, state.generators["minibatches"]):
            metrics = state.learners["policy"].step(minibatch)
            taken += 1
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + value
            if stop_early(metrics):
                break
        agent.observe(rollout["observation"])
        return {name: value / taken for name, value in totals.items()} | interaction.metrics()

    return update


def minibatches(rollout: Rollout, settings: OnPolicySettings, rng: torch.Generator) -> Iterator[Rollout]:
    """`epochs` passes over the rollout in random order, `minibatches` parts each."""
    sequences = bool(settings.cell)
    rows = rollout if sequences else flattened(rollout)
    count = rollout["terminated"].shape[1] if sequences else len(rows["terminated"])
    size = math.ceil(count / settings.minibatches)
    for _ in range(settings.epochs):
        order = torch.randperm(count, generator=rng)
        if sequences:
            for start in range(0, count, size):
                chosen = order[start : start + size]
                yield {
                    key: value[chosen] if key == "memory" else value[:, chosen] for key, value in rows.items()
                }
            continue
        cut = [value[order].split(size) for value in rows.values()]
        for parts in zip(*cut, strict=True):
            yield dict(zip(rows, parts, strict=True))
