"""Actors: a body that reads the observation and a head that says what to do.

    features = body(observation)        any observation that Gymnasium shows (see `networks.bodies`)
    distribution = head(features)       any action space (see `policies.heads`)

One class serves all combinations. Learners use `distribution`, `draw` and `log_prob`; whoever only runs the
policy uses `act`, where `deterministic` says whether it draws or takes what it thinks best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import torch
from jaxtyping import Bool, Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import CapabilityError, ShapeError
from policysmith.common.observations import ACTION_MASK, GOAL, STATE, Observation, has_pixels, parts_of
from policysmith.common.saving import saveable
from policysmith.common.spaces import ActionSpace, planes_of
from policysmith.networks.bodies import Body
from policysmith.policies.distributions import Distribution
from policysmith.policies.heads import CategoricalHead, DeterministicHead, GaussianHead, SquashedGaussianHead
from policysmith.policies.protocol import Policy


@saveable
class NetworkPolicy(Policy):
    """A body and a head.

    `deterministic` True acts the distribution's mode. `masked` reads the part `action_mask` of the
    observation: which choices are allowed. A body with a cell remembers within an episode; with
    `remembers_trials` also across the episodes of a trial.
    """

    def __init__(
        self,
        body: Body,
        head: nn.Module,
        *,
        deterministic: bool = False,
        masked: bool = False,
        remembers_trials: bool = False,
    ) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.deterministic, self.masked, self.remembers_trials = deterministic, masked, remembers_trials
        self.observation_size, self.goal_size = body.observation_size, body.goal_size
        self.pictures = body.pictures
        self.action_size = int(head.action_size)  # type: ignore[arg-type]
        if masked and not hasattr(head, "choices"):
            raise CapabilityError(
                f"a {type(head).__name__} has nothing to mask", expected="a head of choices (CategoricalHead)"
            )

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The shape of every part that is read."""
        choices: Any = getattr(self.head, "choices", ())
        return super().parts | ({ACTION_MASK: (sum(choices),)} if self.masked else {})

    @property
    def memory_size(self) -> int:
        """Width of the memory; 0 where there is none."""
        return self.body.memory_size

    def initial_state(self, batch: int) -> TensorDict:
        """Counts from zero, and an empty memory."""
        state = super().initial_state(batch)
        if self.memory_size:
            state["memory"] = self.body.empty_memory(batch).to(self.device)
        return state

    def new_episode(self, state: TensorDict, mask: Bool[Tensor, "batch"]) -> TensorDict:
        """Empty memories, unless they are to last for the trial."""
        return state if self.remembers_trials else self.reset(state, mask)

    def act(
        self, observation: Observation, state: TensorDict, *, rng: torch.Generator
    ) -> tuple[Float[Tensor, "batch 1 action"], TensorDict]:
        """One draw per row, or the mode; one network call."""
        self.check_batch(observation, state)
        newest = observation[:, -1]
        memory = state["memory"] if self.memory_size else None
        distribution, after = self.remembering(newest, memory)
        action = distribution.mode() if self.deterministic else distribution.draw(rng)[0]
        state = counted(state)
        if after is not None:
            state["memory"] = after
        return action[:, None], state

    def distribution(self, observation: Observation) -> Distribution:
        """Over the actions for [row, ...] observations, without a memory."""
        return self.head(self.body(observation), self._mask(observation))

    def remembering(
        self, observation: Observation, memory: Float[Tensor, "row memory"] | None
    ) -> tuple[Distribution, Tensor | None]:
        """The distribution of one step, and the memory after it."""
        if memory is None:
            return self.distribution(observation), None
        features, memory = self.body.step(observation, memory)
        return self.head(features, self._mask(observation)), memory

    def draw(self, observation: Observation, rng: torch.Generator) -> tuple[Tensor, Float[Tensor, "row"]]:
        """Actions and their log-probabilities, reparameterised where the head's are."""
        return self.distribution(observation).draw(rng)

    def log_prob(self, observation: Observation, action: Tensor) -> Float[Tensor, "row"]:
        """Log-probability of given actions."""
        return self.distribution(observation).log_prob(action)

    def entropy(self, observation: Observation) -> Float[Tensor, "row"]:
        """Entropy in nats per row."""
        return self.distribution(observation).entropy()

    def _mask(self, observation: Observation) -> Tensor | None:
        if not self.masked:
            return None
        assert isinstance(observation, TensorDict)
        return observation[ACTION_MASK] > 0


def without_noise(policy: NetworkPolicy) -> NetworkPolicy:
    """The same body and head, acting what they think best."""
    return NetworkPolicy(
        policy.body,
        policy.head,
        deterministic=True,
        masked=policy.masked,
        remembers_trials=policy.remembers_trials,
    )


def counted(state: TensorDict) -> TensorDict:
    """The state with one more network call in every row."""
    state = state.clone(recurse=False)
    state["network_calls"] = state["network_calls"] + 1
    return state


# ---- making them ---------------------------------------------------------------------------------------


def gaussian_actor(
    observation_size: int,
    action_size: int,
    *,
    hidden: Sequence[int] = (64, 64),
    initial_log_deviation: float = 0.0,
    deterministic: bool = False,
) -> NetworkPolicy:
    """A Gaussian over actions with a deviation that does not depend on the observation, tanh layers."""
    body = Body(observation_size, hidden=hidden)
    head = GaussianHead(body.width, action_size, initial_log_deviation=initial_log_deviation)
    return NetworkPolicy(body, head, deterministic=deterministic)


def actor_for(
    space: gymnasium.Space,
    action: ActionSpace,
    *,
    squashed: bool = False,
    certain: bool = False,
    gain: float = 0.0,
    initial_log_deviation: float = 0.0,
    **body: Any,
) -> NetworkPolicy:
    """The actor for an environment's spaces: categorical where it chooses, else Gaussian.

    `space` is an observation space as `worlds.registry.make` shows it. Continuous actions are those of a
    plain Gaussian, a `squashed` one, or a `certain` answer; `body` goes to `Body`.
    """
    made = body_for(space, **body)
    masked = ACTION_MASK in spaces_of(space)
    if action.discrete:
        return NetworkPolicy(made, CategoricalHead(made.width, action.choices, gain=gain), masked=masked)
    if certain:
        return NetworkPolicy(made, DeterministicHead(made.width, action.low, action.high))
    if squashed:
        return NetworkPolicy(made, SquashedGaussianHead(made.width, action.low, action.high))
    head = GaussianHead(made.width, action.size, initial_log_deviation=initial_log_deviation, gain=gain)
    return NetworkPolicy(made, head)


def body_for(space: gymnasium.Space, **settings: Any) -> Body:
    """The body that reads an observation space as `worlds.registry.make` shows it.

    A vector that holds planes, by its space or by the setting `planes`, passes convolutions first.
    """
    spaces = spaces_of(space)
    for name, part in spaces.items():
        if not isinstance(part, gymnasium.spaces.Box) or not (has_pixels(part) or len(part.shape) == 1):
            raise ShapeError(
                f"the observation{'' if name == STATE else f' part {name!r}'} is {part}",
                expected="vectors, and pictures of uint8 [height, width, 3] or stacks of them",
                cure="make the environment with policysmith.worlds.registry.make, which flattens the rest",
            )
    sizes = {name: part.shape[0] for name, part in spaces.items() if name in (STATE, GOAL)}
    planes = settings.pop("planes", ()) or planes_of(spaces.get(STATE))
    pictures = {name: part.shape[:-1] for name, part in spaces.items() if has_pixels(part)}
    return Body(
        sizes.get(STATE, 0),
        goal_size=sizes.get(GOAL, 0),
        planes=planes,
        cameras=tuple(pictures),
        sizes=tuple(pictures.values()),
        **settings,
    )


def spaces_of(space: gymnasium.Space) -> dict[str, Any]:
    """The spaces of an observation's parts."""
    return parts_of(space.spaces if isinstance(space, gymnasium.spaces.Dict) else space)
