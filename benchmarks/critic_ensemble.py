"""What ten critics cost against two, and against ten networks that are evaluated one after another.

    python benchmarks/critic_ensemble.py

Critics of 256 x 256 on batches of 256, observations and actions as wide as HalfCheetah's, each step forward,
backward and optimiser. Compared are

- `together`: an ensemble whose layers are batched products, with 2 and with 10 members;
- `apart`: 10 networks of their own, one after another, under one optimiser, as libraries without ensembles
  do it;
- `update`: SAC's whole update (targets, critics, policy, temperature) with 2 critics, and with 10 of which
  the target is the least of 2 (REDQ).

All are timed in turn within one process; a ratio is taken per round, and the median is printed with the
smallest and the largest. There is no peer to install.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from peers import arguments_of, machine, middle, ratio, tell, versions
from torch import nn

from policysmith.common.spaces import ActionSpace
from policysmith.networks.critics import QEnsemble
from policysmith.training.learner import Learner
from policysmith.training.learners.sac import SacLearners, SacSettings, critic_loss
from policysmith.training.loop import RunState
from policysmith.training.optimizers import adam

OBSERVATION, ACTION, ROWS, HIDDEN = 17, 6, 256, (256, 256)
ACTIONS = ActionSpace("continuous", (-1.0,) * ACTION, (1.0,) * ACTION)
REPORTED = ("torch", "numpy", "policysmith")


class Apart(nn.Module):
    """Critics one after another."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            nn.Sequential(
                nn.Linear(OBSERVATION + ACTION, HIDDEN[0]),
                nn.ReLU(),
                nn.Linear(HIDDEN[0], HIDDEN[1]),
                nn.ReLU(),
                nn.Linear(HIDDEN[1], 1),
            )
            for _ in range(members)
        )

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        seen = torch.cat([observation, action], 1)
        return torch.stack([member(seen).squeeze(-1) for member in self.members])


def batch_of(rng: torch.Generator) -> dict[str, Any]:
    """Noise of the right shapes."""
    return {
        "observation": torch.randn(ROWS, OBSERVATION, generator=rng),
        "action": torch.rand(ROWS, ACTION, generator=rng) * 2 - 1,
        "reward": torch.randn(ROWS, generator=rng),
        "next_observation": torch.randn(ROWS, OBSERVATION, generator=rng),
        "terminated": torch.zeros(ROWS, dtype=torch.bool),
    }


def critic_step(critic: nn.Module) -> Callable[[], Any]:
    """An optimiser step of critics."""
    learner = Learner(critic, critic_loss, optimizer=adam(critic, 3e-4))
    rng = torch.Generator().manual_seed(0)
    batch = batch_of(rng) | {"value_target": torch.randn(ROWS, generator=rng)}
    return lambda: learner.step(batch)


def update(members: int, subset: int) -> Callable[[], Any]:
    """SAC's whole update."""
    settings = SacSettings(members=members, subset=subset, hidden=HIDDEN)
    sac = SacLearners(Box(-np.inf, np.inf, (OBSERVATION,), np.float32), ACTIONS, settings, seed=0)
    state, batch = RunState(learners=sac.learners), batch_of(torch.Generator().manual_seed(0))
    once = sac.update_once
    return lambda: once(state, batch, 0)


def main() -> None:
    parser = arguments_of(__doc__, rounds=15)
    parser.add_argument("--steps", type=int, default=20, help="steps per round")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work = {
        "together, 2": critic_step(QEnsemble(OBSERVATION, ACTIONS.low, ACTIONS.high, members=2)),
        "together, 10": critic_step(QEnsemble(OBSERVATION, ACTIONS.low, ACTIONS.high, members=10)),
        "apart, 2": critic_step(Apart(2)),
        "apart, 10": critic_step(Apart(10)),
        "update, 2": update(2, 0),
        "update, 10": update(10, 2),
    }
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in work}
    for number in range(-1, arguments.rounds):
        for name, step in work.items():
            start, cpu = time.perf_counter(), time.process_time()
            for _ in range(arguments.steps):
                step()
            answer = {
                "seconds": (time.perf_counter() - start) / arguments.steps,
                "cpu_seconds": (time.process_time() - cpu) / arguments.steps,
            }
            if number >= 0:
                taken[name].append(answer)
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)

    def times(one: str, other: str) -> dict[str, Any]:
        return {
            what: ratio(taken[one], taken[other], lambda answer, key=key: answer[key])
            for what, key in (("by_the_clock", "seconds"), ("by_processor_time", "cpu_seconds"))
        }

    result = {
        "benchmark": "critic_ensemble",
        "machine": machine(),
        "threads": arguments.threads,
        "versions": versions(REPORTED),
        "milliseconds": {
            name: 1e3 * middle(all, lambda answer: answer["cpu_seconds"]) for name, all in taken.items()
        },
        "ten_over_two": {
            name: times(f"{name}, 10", f"{name}, 2") for name in ("together", "apart", "update")
        },
        "ten_apart_over_ten_together": times("apart, 10", "together, 10"),
        "rounds": arguments.rounds,
    }
    tell(result, arguments.json)


if __name__ == "__main__":
    main()
