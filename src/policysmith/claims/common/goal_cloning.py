"""Goal-conditioned cloning, what score policies are compared with: the same transformer, without denoising.

The transformer is shown states and goal, and zeros where a score model has noisy actions; what comes out at
each position is read by a head. `MeanHead` is regression: the mean of what was done (GC-BC). `BinsHead`
chooses one of k centres of the actions and adds an offset that was learnt for it (in the manner of C-BeT, Cui
et al. 2022): several ways of acting stay apart, at the price of cutting the actions up beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.observations import GOAL, Observation, parts_of, state_of
from policysmith.common.rng import generator
from policysmith.common.saving import saveable
from policysmith.experience.episodes import Episodes
from policysmith.networks.normalizers import Normalizer
from policysmith.networks.transformer import TransformerDenoiser
from policysmith.policies.goals import GoalCondition, own_dimensions, rows_by_length
from policysmith.policies.protocol import Policy
from policysmith.training.learners.goals import GoalSettings, goal_condition, goal_run, goal_transformer
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(GoalSettings):
    """`bins` is the number of centres of `BinsHead`; 0 for `MeanHead`."""

    bins: int = 0


@saveable
class MeanHead(nn.Module):
    """Reads the output as the scaled action."""

    def __init__(self, action_size: int) -> None:
        super().__init__()
        self.action_size, self.size = action_size, action_size
        self.normalizer = Normalizer(action_size)

    def error(self, output: Tensor, action: Float[Tensor, "row time action"]) -> Float[Tensor, "row"]:
        """Squared error, the mean over each row."""
        return (output - self.normalizer(action)).square().flatten(1).mean(1)

    def choose(self, output: Float[Tensor, "row action"], rng: torch.Generator) -> Tensor:
        """The action."""
        return self.normalizer.inverse(output)


@saveable
class BinsHead(nn.Module):
    """Reads the output as a score per bin and an offset per bin, from the bin's centre to the scaled action.

    The loss is the focal loss of the nearest bin (gamma 2) and the squared error of that bin's offset.
    """

    centres: Tensor

    def __init__(self, action_size: int, bins: int) -> None:
        super().__init__()
        self.action_size, self.bins, self.size = action_size, bins, bins * (1 + action_size)
        self.normalizer = Normalizer(action_size)
        self.register_buffer("centres", torch.zeros(bins, action_size))

    def fit(self, action: Float[Tensor, "row action"], *, seed: int) -> BinsHead:
        """Put the centres where k-means has them on the scaled actions; returns itself."""
        self.centres.copy_(k_means(self.normalizer(action), self.bins, rng=generator(seed, "bins")))
        return self

    def error(self, output: Tensor, action: Float[Tensor, "row time action"]) -> Float[Tensor, "row"]:
        """Focal loss and offset error, the mean over each row."""
        scaled = self.normalizer(action)
        bin_ = (scaled[..., None, :] - self.centres).square().sum(-1).argmin(-1)
        scores, offsets = self._split(output)
        log_prob = scores.log_softmax(-1).gather(-1, bin_[..., None])[..., 0]
        focal = -(1 - log_prob.exp()).square() * log_prob
        offset = _at(offsets, bin_) - (scaled - self.centres[bin_])
        return focal.mean(1) + offset.square().flatten(1).mean(1)

    def choose(self, output: Float[Tensor, "row size"], rng: torch.Generator) -> Tensor:
        """A bin drawn by its probability, and the action that its offset makes of its centre."""
        scores, offsets = self._split(output)
        bin_ = torch.multinomial(scores.softmax(-1), 1, generator=rng)[:, 0]
        return self.normalizer.inverse(self.centres[bin_] + _at(offsets, bin_))

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor]:
        scores, offsets = output.split([self.bins, self.bins * self.action_size], dim=-1)
        return scores, offsets.unflatten(-1, (self.bins, self.action_size))


@saveable
class GoalCloningPolicy(Policy):
    """Acts what `head` reads at the newest position of `network`, which is told states and goal."""

    def __init__(
        self, network: TransformerDenoiser, condition: GoalCondition, head: MeanHead | BinsHead
    ) -> None:
        super().__init__()
        self.network, self.condition, self.head = network, condition, head
        self.observation_size, self.goal_size = condition.observation_size, condition.goal_size
        self.action_size, self.observation_steps = head.action_size, network.horizon

    def initial_state(self, batch: int) -> TensorDict:
        """Nothing seen."""
        state = super().initial_state(batch)
        state["seen"] = torch.zeros(batch, dtype=torch.long, device=self.device)
        return state

    def output(
        self, states: Float[Tensor, "batch time state"], scaled_goal: Tensor
    ) -> Float[Tensor, "batch time size"]:
        """What the head reads."""
        blank = states.new_zeros(*states.shape[:2], self.head.size)
        return self.network(blank, blank.new_zeros(len(blank)), self.condition(states, scaled_goal))

    @torch.inference_mode()
    def act(
        self, observation: Observation, state: TensorDict, *, rng: torch.Generator
    ) -> tuple[Float[Tensor, "batch 1 action"], TensorDict]:
        """One action per row; one network call."""
        self.check_batch(observation, state)
        states, goal = state_of(observation), self.condition.held(parts_of(observation)[GOAL][:, -1])
        state = state.clone(recurse=False)
        state["seen"] = (state["seen"] + 1).clamp(max=self.observation_steps)
        action = torch.empty(len(states), self.action_size, device=self.device)
        for length, rows in rows_by_length(state["seen"]):
            action[rows] = self.head.choose(self.output(states[rows, -length:], goal[rows])[:, -1], rng)
        state["network_calls"] = state["network_calls"] + 1
        return action[:, None], state


def cloning_loss(policy: GoalCloningPolicy, batch: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
    """The head's error per row."""
    goal = policy.condition.scale_goal(own_dimensions(batch["goal"], policy.condition), batch["goal_mask"])
    return policy.head.error(policy.output(state_of(batch["observation"]), goal), batch["action"]), {}


def train(
    episodes: Episodes,
    *,
    config: Config,
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Clone play towards hindsight goals."""
    action = episodes.steps["action"]
    size = episodes.action_size
    head = BinsHead(size, config.bins) if config.bins else MeanHead(size)
    if config.standardise:
        head.normalizer.fit_moments(action)
    if isinstance(head, BinsHead):
        head.fit(action, seed=seed)
    condition = goal_condition(episodes, config)
    network = goal_transformer(condition, head.size, settings=config, seed=seed)
    policy = GoalCloningPolicy(network, condition, head)
    return goal_run(policy, cloning_loss, episodes, settings=config, seed=seed, state=state)


def k_means(
    points: Float[Tensor, "point width"], count: int, *, rng: torch.Generator, rounds: int = 20
) -> Float[Tensor, "centre width"]:
    """Centres of `count` clusters: Lloyd's rounds from centres drawn far apart (k-means++)."""
    centres = points[torch.randint(len(points), (1,), generator=rng)]
    while len(centres) < count:
        far = torch.cdist(points, centres).amin(1).square()
        centres = torch.cat([centres, points[torch.multinomial(far + 1e-12, 1, generator=rng)]])
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        size = nearest.bincount(minlength=count)[:, None]
        centres = torch.where(size > 0, sums / size.clamp(min=1), centres)
    return centres


def _at(offsets: Float[Tensor, "*batch bin action"], bin_: Tensor) -> Float[Tensor, "*batch action"]:
    """The offset of the chosen bin of each row."""
    index = bin_[..., None, None].expand(*bin_.shape, 1, offsets.shape[-1])
    return offsets.gather(-2, index).squeeze(-2)
