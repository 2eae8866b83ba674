"""What a goal-conditioned sequence policy is told: goals and the last states, scaled alike, as one vector.

A goal is a state to be reached, or those of its dimensions that matter; the others, after scaling, are zero.
A goal that is zero throughout says that there is none. So one embedding serves states and goals, and leaving
a goal out, for windows that have none and for training without goals, is multiplying it by zero.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.common.saving import saveable
from policysmith.networks.normalizers import Normalizer


@saveable
class GoalCondition(nn.Module):
    """Makes the condition [goal_1 ... goal_G, s_1 ... s_n], each part as wide as a state, flattened.

    `goal_dimensions` are the dimensions of the state that a goal gives, in the order in which it gives them;
    empty for all of them. `goal_steps` G is how many states a goal consists of. States and goals are scaled
    by `normalizer`, the identity until it is fitted.
    """

    dimensions: Tensor

    def __init__(
        self, observation_size: int, *, goal_dimensions: tuple[int, ...] = (), goal_steps: int = 1
    ) -> None:
        super().__init__()
        chosen = tuple(goal_dimensions) or tuple(range(observation_size))
        if len(set(chosen)) < len(chosen) or not all(0 <= one < observation_size for one in chosen):
            raise SettingError(
                f"the goal dimensions {list(chosen)} are not those of a state of width {observation_size}",
                expected=f"different numbers from 0 to {observation_size - 1}",
            )
        self.observation_size, self.goal_size, self.goal_steps = observation_size, len(chosen), goal_steps
        self.normalizer = Normalizer(observation_size)
        self.register_buffer("dimensions", torch.tensor(chosen), persistent=False)

    def size(self, states: int) -> int:
        """The width of the condition that holds so many states."""
        return (self.goal_steps + states) * self.observation_size

    def scale_goal(
        self,
        goal: Float[Tensor, "batch goal width"],
        mask: Bool[Tensor, "batch #goal #width"] | None = None,
    ) -> Float[Tensor, "batch goal state"]:
        """Goals as wide as a state: scaled, and zero in dimensions not given and where `mask` is False.

        `goal` holds the goal's dimensions alone. `ShapeError` where it is of another width, naming both.
        """
        if goal.shape[1:] != (self.goal_steps, self.goal_size):
            raise ShapeError(
                f"a goal of shape {list(goal.shape[1:])}, where a state has width {self.observation_size}",
                expected=f"[{self.goal_steps}, {self.goal_size}]",
                cure="set goal_dimensions to the dimensions of the state that goals give, and train again",
            )
        offset, scale = self.normalizer.offset[self.dimensions], self.normalizer.scale[self.dimensions]
        given = (goal - offset) / scale
        if mask is not None:
            given = given * mask
        whole = given.new_zeros(*goal.shape[:2], self.observation_size)
        whole[..., self.dimensions] = given
        return whole

    def forward(
        self, states: Float[Tensor, "batch time state"], scaled_goal: Float[Tensor, "batch goal state"]
    ) -> Float[Tensor, "batch condition"]:
        """The condition of states in their own units and goals as `scale_goal` returns them."""
        return torch.cat([scaled_goal, self.normalizer(states)], dim=1).flatten(1)

    def held(self, goal: Float[Tensor, "batch width"]) -> Float[Tensor, "batch goal state"]:
        """A goal to be reached and held, G times over, for acting; `DataError` where it says "no goal"."""
        scaled = self.scale_goal(goal[:, None].expand(-1, self.goal_steps, -1))
        if bool((scaled == 0).flatten(1).all(1).any()):
            raise DataError(
                "a goal is zero in all dimensions once it is scaled, and that stands for no goal",
                where=f"the goal {goal[(scaled == 0).flatten(1).all(1)][0].tolist()}",
                cure="ask for a goal a little beside it",
            )
        return scaled


def own_dimensions(
    goal: Float[Tensor, "batch goal state"], condition: GoalCondition
) -> Float[Tensor, "batch goal width"]:
    """The dimensions that a goal gives, of goals that are whole states (hindsight's)."""
    return goal[..., condition.dimensions]


def rows_by_length(length: Int[Tensor, "row"]) -> Iterator[tuple[int, Int[Tensor, "some"]]]:
    """(length, the rows that have it): rows in the first steps of an episode have shorter sequences."""
    for one in length.unique().tolist():
        yield one, (length == one).nonzero()[:, 0]
