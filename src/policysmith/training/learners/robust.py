"""The state of a sequence of runs, one world after another, and the run in one of them.

Each run is an ordinary SAC run with a state of its own; the sequence keeps what came of the finished ones,
where the next one takes place, and the state of the one that is under way, so that it goes on from any step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from policysmith.experience.environments import InThisProcess, Maker
from policysmith.experience.interaction import Interaction
from policysmith.experience.replay import Transitions
from policysmith.policies.pessimistic import PessimisticPolicy, WorldExpertise
from policysmith.training.learners.expertise import CRITIC, PREDICTOR, ExpertiseLearners
from policysmith.training.learners.off_policy import off_policy_run
from policysmith.training.learners.sac import SacLearners, SacSettings
from policysmith.training.loop import Progress, RunState

REPEATED = "repeated world"
"""The phase of a sequence that ended because the worst world is one it has been in."""


@dataclass
class RobustState(RunState):
    """All that a sequence of runs needs to go on.

    - `parameters`: what the numbers of a point are called; `blank` makes a module of the shape of a run's
      result, to be loaded into: of the world at a point, or of the default where there is none.
    - `finished`: the results of finished runs, the default's actor first; after each a search found the world
      of `points` in which the rule did worst, with the return `worst`, and the next run takes place there.
    - `inner`: the state of the present run; saved, before it is taken up again.
    """

    parameters: tuple[str, ...] = ()
    blank: Callable[[tuple[float, ...] | None], nn.Module] = lambda point: nn.Identity()
    finished: list[nn.Module] = field(default_factory=list)
    points: list[tuple[float, ...]] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)
    inner: RunState | Mapping[str, Any] | None = None

    def policy(self, trial: WorldExpertise | None = None) -> PessimisticPolicy:
        """A copy of the acting rule as far as it has been learnt, with one more expert on `trial`."""
        ready = deepcopy(self.finished)
        if not ready:
            assert isinstance(self.inner, RunState)
            ready = [self.inner.policy()]
        experts = [*ready[1:], *([] if trial is None else [deepcopy(trial)])]
        return PessimisticPolicy(
            ready[0].observation_size,  # type: ignore[arg-type]
            ready[0].action_size,  # type: ignore[arg-type]
            experts=tuple(experts),  # type: ignore[arg-type]
            default=ready[0],
            parameters=self.parameters,
        ).eval()

    def state_dict(self) -> dict[str, Any]:
        """The sequence and the run that is under way."""
        inner = self.inner.state_dict() if isinstance(self.inner, RunState) else self.inner
        return super().state_dict() | {
            "finished": [dict(module.state_dict()) for module in self.finished],
            "points": [list(point) for point in self.points],
            "worst": list(self.worst),
            "inner": inner,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state."""
        super().load_state_dict(state)
        self.points = [tuple(point) for point in state["points"]]
        self.worst, self.inner = list(state["worst"]), state["inner"]
        self.finished = []
        for number, weights in enumerate(state["finished"]):
            module = self.blank(self.points[number - 1] if number else None)
            module.load_state_dict(weights)
            self.finished.append(module.eval())


def solve(
    make: Maker,
    *,
    settings: SacSettings,
    seed: int,
    state: RunState | Mapping[str, Any] | None,
) -> Iterator[Progress]:
    """SAC in the environments that `make` makes, with critics without entropy and a predictor beside it."""
    interaction = Interaction.of(make, settings.environments, seed=seed, processes=settings.processes)
    sac, expertise = learners_in_a_world(interaction, settings, seed=seed)

    def update_once(state: RunState, batch: Transitions, number: int) -> dict[str, float]:
        return sac.update_once(state, batch, number) | expertise.update(sac.actor, batch)

    arguments = sac.run_arguments()
    arguments |= {
        "learners": sac.learners | expertise.learners,
        "targets": arguments["targets"] | {CRITIC: expertise.target},
        "generators": arguments["generators"] | {"expertise": expertise.rng},
        "update_once": update_once,
    }
    return off_policy_run(**arguments, interaction=interaction, settings=settings, seed=seed, state=state)


def learners_in_a_world(
    interaction: Interaction, settings: SacSettings, *, seed: int
) -> tuple[SacLearners, ExpertiseLearners]:
    """Fresh learners: SAC's, and those beside them."""
    space, action = interaction.environments.observation_space, interaction.action_space
    return (
        SacLearners(space, action, settings, seed=seed),
        ExpertiseLearners(space, action, settings, seed=seed),
    )


def expertise_of(state: RunState, point: tuple[float, ...]) -> WorldExpertise:
    """What a finished run in the world at `point` has learnt, in copies."""
    critic, predictor = (state.learners[name].acting() for name in (CRITIC, PREDICTOR))
    return WorldExpertise(state.policy(), critic, predictor, point=point).eval()


def blank_result(make: Maker, settings: SacSettings, point: tuple[float, ...] | None) -> nn.Module:
    """A module of the shape of a run's result: what was learnt at `point`, or the default's actor."""
    interaction = Interaction(InThisProcess([make]), seed=0)
    sac, expertise = learners_in_a_world(interaction, settings, seed=0)
    interaction.close()
    state = RunState(learners=sac.learners | expertise.learners)
    return state.policy() if point is None else expertise_of(state, point)
