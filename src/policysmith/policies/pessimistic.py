"""Acting in a world that is one of several: the most pessimistic of those who know it acts (IWOCS).

For each world that was trained in there is an actor, a critic of what that actor can expect there, and a
prediction of what happens next. In state s the critics j that are valid judge their own actors' actions, and

    j* = argmin_{valid j} Q_j(s, pi_j(s)),    a = pi_{j*}(s)

A critic is valid where its world predicted the last transition to within its threshold,
|T_j(s_{t-1}, a_{t-1}) - s_t|_1 <= rho_j; nothing has happened yet in the first step, and all are. Where none
is valid the default policy acts.

Source: Zouitine, Bertoin, Clavier, Geist and Rachelson 2024 (2410.06212), section 5.2 and algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.saving import saveable
from policysmith.objectives.worst_case import NONE_VALID, most_pessimistic, valid_models
from policysmith.policies.actors import counted
from policysmith.policies.protocol import Policy


@saveable
class WorldExpertise(nn.Module):
    """What was learnt in one world, where the uncertain parameters were `point`.

    `actor` has `distribution(observation).mode()`; `critic(observation, action)` gives [member, row], of
    which the lowest counts, and holds no entropy: critics of several worlds are compared. `predictor` gives
    the next observation. `threshold` (a buffer) is rho; infinite means valid everywhere.
    """

    threshold: Float[Tensor, ""]

    def __init__(
        self, actor: nn.Module, critic: nn.Module, predictor: nn.Module, *, point: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.actor, self.critic, self.predictor = actor, critic, predictor
        self.point = tuple(point)
        self.register_buffer("threshold", torch.tensor(torch.inf))

    def judged(self, observation: Float[Tensor, "row observation"]) -> tuple[Tensor, Float[Tensor, "row"]]:
        """The actor's action [row, action], and what the critic says of it."""
        action: Any = self.actor.distribution(observation).mode()  # type: ignore[operator]
        return action, self.critic(observation, action).amin(0)


@saveable
class PessimisticPolicy(Policy):
    """The acting rule over the worlds in `experts`, with `default` where none of them is valid.

    `parameters` names the numbers of each expert's `point`. Without experts the default acts; without a
    default, a step in which no expert is valid is a `CapabilityError`. The state keeps what every expert
    predicted for the next step; `network_calls` counts three calls (actor, critic, predictor) per expert, and
    one of the default where it is asked.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        experts: Sequence[WorldExpertise] = (),
        default: nn.Module | None = None,
        parameters: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if not experts and default is None:
            raise SettingError(
                "a pessimistic policy without experts and without a default", expected="either, at least"
            )
        self.observation_size, self.action_size = observation_size, action_size
        self.experts = nn.ModuleList(experts)
        self.default = default
        self.parameter_names = tuple(parameters)

    def initial_state(self, batch: int) -> TensorDict:
        """Nothing predicted, nothing that has happened."""
        state = super().initial_state(batch)
        state["predicted"] = torch.zeros(batch, len(self.experts), self.observation_size, device=self.device)
        state["has_begun"] = torch.zeros(batch, dtype=torch.bool, device=self.device)
        return state

    def act(
        self, observation: Float[Tensor, "batch 1 observation"], state: TensorDict, *, rng: torch.Generator
    ) -> tuple[Float[Tensor, "batch 1 action"], TensorDict]:
        """The action of the most pessimistic valid expert, or of the default; nothing is drawn."""
        self.check_batch(observation, state)
        newest = observation[:, -1]
        if not self.experts:
            return self._by_default(newest)[:, None], counted(state)
        proposed, value = zip(*[expert.judged(newest) for expert in self.experts], strict=True)  # type: ignore[operator]
        chosen = most_pessimistic(torch.stack(value), self._valid(newest, state))
        lost = chosen == NONE_VALID
        rows = torch.arange(len(newest), device=newest.device)
        action = torch.stack(proposed)[chosen.clamp(min=0), rows]
        if lost.any():
            action = torch.where(lost[:, None], self._by_default(newest), action)
        after = state.clone(recurse=False)
        after["network_calls"] = state["network_calls"] + 3 * len(self.experts) + lost.long()
        after["predicted"] = torch.stack([expert.predictor(newest, action) for expert in self.experts], dim=1)  # type: ignore[operator]
        after["has_begun"] = torch.ones_like(state["has_begun"])
        return action[:, None], after

    def _valid(self, newest: Tensor, state: TensorDict) -> Tensor:
        """[expert, row]: whose prediction of the last step came true; all before anything has happened."""
        error = (state["predicted"] - newest[:, None]).abs().sum(-1).T
        threshold = torch.stack([expert.threshold for expert in self.experts])  # type: ignore[misc]
        return valid_models(error, threshold) | ~state["has_begun"]

    def _by_default(self, newest: Tensor) -> Tensor:
        if self.default is None:
            raise CapabilityError(
                "no expert is valid here, and there is no default policy",
                where="a step in which every expert's prediction of the last one was off by more than its "
                "threshold",
                cure="give a default policy, or wider thresholds",
            )
        return self.default.distribution(newest).mode()  # type: ignore[operator]
