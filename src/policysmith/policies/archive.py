"""Several policies along a Pareto front, of which the one that suits a preference acts.

    assign(w) = argmax over members of w . returns(member)

What each member achieves is stored with it, so that a preference is answered by a look at a short table, and
a new one needs no training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.observations import Observation
from policysmith.common.saving import saveable
from policysmith.objectives import pareto
from policysmith.policies.protocol import Policy


@saveable
class ParetoArchive(Policy):
    """`members` with `returns` [member, objective]; the one that suits `preference` acts.

    The returns are a buffer, zero until they are `set_returns`. The preference is one too, at first the same
    weight for every objective; `prefer` changes it.
    """

    returns: Tensor
    preference: Tensor

    def __init__(self, members: Sequence[Policy], *, objectives: int) -> None:
        super().__init__()
        if not members or objectives < 1:
            raise SettingError(
                f"an archive of {len(members)} policies for {objectives} objectives",
                expected="at least one of each",
            )
        self.members = nn.ModuleList(members)
        first = members[0]
        self.observation_size, self.action_size = first.observation_size, first.action_size
        self.goal_size, self.pictures = first.goal_size, first.pictures
        self.observation_steps, self.action_steps = first.observation_steps, first.action_steps
        self.register_buffer("returns", torch.zeros(len(members), objectives, dtype=torch.double))
        weight = torch.full((objectives,), 1 / objectives, dtype=torch.double)
        self.register_buffer("preference", weight)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """What the members read."""
        return self.acting.parts

    # ---- preferences ---------------------------------------------------------------------------------

    def set_returns(self, returns: Float[Tensor, "member objective"]) -> ParetoArchive:
        """Say what each member achieves; returns the archive itself."""
        if returns.shape != self.returns.shape:
            raise ShapeError(
                f"returns of shape {list(returns.shape)}",
                expected=f"{list(self.returns.shape)}, a row per member",
            )
        self.returns.copy_(returns)
        return self

    def assign(self, preference: Sequence[float] | Float[Tensor, "objective"]) -> int:
        """The number of the member whose returns are worth most under `preference`.

        Weights per objective, 0 or more and not all zero; they are scaled to sum to one. Raises
        `SettingError` for others.
        """
        return int((self.returns @ self._weights(preference)).argmax())

    def prefer(self, preference: Sequence[float] | Float[Tensor, "objective"]) -> ParetoArchive:
        """Let the member that suits `preference` act from now on; returns the archive itself."""
        self.preference.copy_(self._weights(preference))
        return self

    @property
    def acting(self) -> Policy:
        """The member that acts."""
        member: Any = self.members[self.assign(self.preference)]
        return member

    # ---- how good the front is -----------------------------------------------------------------------

    def hypervolume(self, reference: Sequence[float] | Float[Tensor, "objective"]) -> float:
        """The volume that the members' returns dominate above `reference`."""
        return float(pareto.hypervolume(self.returns, reference=torch.as_tensor(reference)))

    def expected_utility(self, parts: int = 100) -> float:
        """Mean over all preferences of whole `parts` of what the assigned member is worth under them."""
        grid = pareto.preference_grid(self.returns.shape[1], parts)
        return float(pareto.expected_utility(self.returns, grid))

    def sparsity(self) -> float:
        """Mean squared gap along the front; lower is more even."""
        return float(pareto.sparsity(self.returns))

    # ---- acting --------------------------------------------------------------------------------------

    def initial_state(self, batch: int) -> TensorDict:
        """That of the member that acts."""
        return self.acting.initial_state(batch)

    def reset(self, state: TensorDict, mask: Bool[Tensor, "batch"]) -> TensorDict:
        """As the member that acts does."""
        return self.acting.reset(state, mask)

    def new_episode(self, state: TensorDict, mask: Bool[Tensor, "batch"]) -> TensorDict:
        """As the member that acts does."""
        return self.acting.new_episode(state, mask)

    def act(
        self, observation: Observation, state: TensorDict, *, rng: torch.Generator
    ) -> tuple[Float[Tensor, "batch step action"], TensorDict]:
        """The action of the member that suits the preference."""
        return self.acting.act(observation, state, rng=rng)

    def _weights(self, preference: Sequence[float] | Tensor) -> Float[Tensor, "objective"]:
        weights = torch.as_tensor(preference, dtype=torch.double)
        wrong = weights.shape != self.preference.shape or not bool(weights.isfinite().all())
        if wrong or bool((weights < 0).any()) or not float(weights.sum()) > 0:
            raise SettingError(
                f"a preference of {weights.tolist()}",
                expected=f"{len(self.preference)} weights, 0 or more and not all 0",
            )
        return weights / weights.sum()
