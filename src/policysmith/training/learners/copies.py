"""Copies of an agent by what they achieve: the archive that a run with several objectives grows from.

    add      a copy that reaches the reference enters, unless another is as good in all and better in one
    select   those with the most room stay, at most `limit`; of these, the ones from which the front is
             extended next, none twice until every one had its turn

A copy is all that going on from it takes: weights, optimiser, and the scales of observations and rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from policysmith.networks.running import RunningReturnScale
from policysmith.objectives.pareto import archived, emptiest, unreached
from policysmith.policies.actors import NetworkPolicy
from policysmith.policies.archive import ParetoArchive
from policysmith.training.learner import Learner
from policysmith.training.loop import RunState

MOMENTS = ("mean", "variance", "count")
"""Of a reward scale, what belongs to the agent; the unfinished sums belong to the environments."""

Select = Callable[[Float[Tensor, "point objective"], int, Bool[Tensor, "point"], torch.Generator], Tensor]
"""(points, how many, which had their turn, rng) -> the rows chosen."""


def with_most_room(
    points: Float[Tensor, "point objective"], count: int, taken: Bool[Tensor, "point"], rng: torch.Generator
) -> Int[Tensor, "row"]:
    """Those of the largest crowding distance."""
    return emptiest(points, count, taken=taken)


def at_random(
    points: Float[Tensor, "point objective"], count: int, taken: Bool[Tensor, "point"], rng: torch.Generator
) -> Int[Tensor, "row"]:
    """Any, without replacement."""
    left = (~taken).nonzero()[:, 0]
    return left[torch.randperm(len(left), generator=rng)[:count]]


@dataclass(frozen=True)
class AgentCopy:
    """What an agent achieved, [objective], and what going on from it takes.

    `rate` is the factor on the learning rate when it was made.
    """

    returns: tuple[float, ...]
    module: dict[str, Tensor]
    optimizer: dict[str, Any]
    moments: dict[str, Tensor]
    rate: float

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any]) -> AgentCopy:
        """A copy from the plain form that `dataclasses.asdict` gives."""
        return cls(**{**tree, "returns": tuple(tree["returns"])})

    @classmethod
    def of(
        cls, learner: Learner, scale: RunningReturnScale, *, returns: Sequence[float], rate: float
    ) -> AgentCopy:
        """A copy of the agent as it is."""
        return cls(
            tuple(map(float, returns)),
            {name: value.detach().clone() for name, value in learner.module.state_dict().items()},
            deepcopy(learner.optimizer.state_dict()),
            {name: getattr(scale, name).clone() for name in MOMENTS},
            rate,
        )

    def restore(self, learner: Learner, scale: RunningReturnScale) -> None:
        """Let the agent go on from here; unfinished sums of rewards stay with their environments."""
        learner.module.load_state_dict(self.module)
        learner.optimizer.load_state_dict(deepcopy(self.optimizer))
        for name in MOMENTS:
            setattr(scale, name, self.moments[name].clone())


class CopyArchive:
    """Copies that no other dominates, and which of them had their turn.

    `reference` [objective] is what a copy has to reach in every objective to enter.
    """

    def __init__(self, reference: Sequence[float], *, limit: int) -> None:
        self.reference = torch.tensor(list(reference), dtype=torch.double)
        self.limit = limit
        self.copies: list[AgentCopy] = []
        self.turns: list[tuple[float, ...]] = []
        self.best = [-float("inf")] * len(reference)

    @property
    def points(self) -> Float[Tensor, "copy objective"]:
        """What the copies achieve."""
        rows = [copy.returns for copy in self.copies]
        return torch.tensor(rows, dtype=torch.double).reshape(len(rows), len(self.reference))

    def add(self, copy: AgentCopy) -> bool:
        """Offer a copy; whether it was kept. Those that it dominates leave."""
        self.best = [max(pair) for pair in zip(self.best, copy.returns, strict=True)]
        offered = [*self.copies, copy]
        points = torch.tensor([one.returns for one in offered], dtype=torch.double)
        if not bool((points[-1] >= self.reference).all()):
            return False
        self.copies = [offered[row] for row in archived(points, reference=self.reference).tolist()]
        return self.copies[-1] is copy

    def settled(self) -> list[AgentCopy]:
        """At most `limit` copies, those with the most room; `DataError` where there is none to keep."""
        if not self.copies:
            raise unreached(self.best, self.reference.tolist())
        kept = archived(self.points, reference=self.reference, limit=self.limit)
        return [self.copies[row] for row in kept.tolist()]

    def select(self, count: int, *, by: Select, rng: torch.Generator) -> list[AgentCopy]:
        """Settle, and pick at most `count` copies that had no turn; if all had one, all may have another."""
        self.copies = self.settled()
        had = {*self.turns}
        taken = torch.tensor([copy.returns in had for copy in self.copies])
        if bool(taken.all()):
            self.turns, taken = [], torch.zeros_like(taken)
        chosen = [self.copies[row] for row in by(self.points, count, taken, rng).tolist()]
        self.turns += [copy.returns for copy in chosen]
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """The copies and the turns."""
        return {
            "copies": [asdict(copy) for copy in self.copies],
            "turns": [list(turn) for turn in self.turns],
            "best": list(self.best),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.copies = [AgentCopy.of_tree(one) for one in state["copies"]]
        self.turns = [tuple(turn) for turn in state["turns"]]
        self.best = list(state["best"])


class ArchiveRun(RunState):
    """A run whose policy is the archive of its copies, under `sources["archive"]`."""

    def policy(self) -> ParetoArchive:
        """The copies kept so far as one policy, acting without noise; `DataError` where there are none."""
        archive: Any = self.sources["archive"]
        kept = archive.settled()
        members = [acting(self.learners["policy"].module, copy) for copy in kept]
        returns = torch.tensor([copy.returns for copy in kept], dtype=torch.double)
        return ParetoArchive(members, objectives=returns.shape[1]).set_returns(returns).eval()


def acting(agent: nn.Module, copy: AgentCopy) -> NetworkPolicy:
    """The policy of a copy, `agent` being one with the same parts; it takes no chances."""
    twin: Any = deepcopy(agent)
    twin.load_state_dict(copy.module)
    policy = twin.policy
    return NetworkPolicy(policy.body, policy.head, deterministic=True, masked=policy.masked).eval()
