"""Policysmith against CORL: IQL, updates per second, and the returns that equally many updates come to.

    python benchmarks/iql.py [--data wide] [--data pendulum] [--side corl] [--side ours]

An update draws a batch of 256 and steps value, critics, target and policy (all 256 x 256, relu). CORL's half
runs the classes of its file as its own loop does; ours is `iql.train`. Two sets of data:

- `wide`: as wide as HalfCheetah's (17 and 6), 200,000 steps of noise: for the speed alone;
- `pendulum`: 100 episodes of Pendulum, played by a controller that swings it up, more and less disturbed.
  After the rounds each side plays 20 episodes with what it has learnt.

The sides answer in turn (see `peers.py`); what belongs to CORL is in `corl_peer.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from corl_peer import (
    CORL,
    PEER,
    Arrays,
    corl_file,
    corl_replay,
    corl_rows,
    pendulum,
    pendulum_episodes,
)
from peers import (
    Clock,
    Worker,
    acting,
    answers_to,
    arguments_of,
    compared,
    machine,
    played,
    tell,
    versions,
    weights_of,
)

PEERS = {"corl": PEER}
REPORTED = ("torch", "numpy", "gymnasium", "policysmith")
DATA = ("wide", "pendulum")


@dataclass(frozen=True)
class Work:
    """The work, the same for both sides."""

    data: str
    updates: int
    batch_size: int = 256
    discount: float = 0.99
    expectile: float = 0.7
    beta: float = 3.0
    learning_rate: float = 3e-4
    target_rate: float = 0.005
    seed: int = 0
    threads: int = 1
    source: str = ""


# ---- the data, which either side makes for itself --------------------------------------------------------


def episodes_of(data: str) -> list[Arrays]:
    """`observation` [step + 1, size], `action` [step, size] in -1 to 1, `reward` [step]; none terminates."""
    rng = np.random.default_rng(0)
    if data == "pendulum":
        return pendulum_episodes(rng)
    return [
        {
            "observation": rng.normal(size=(1001, 17)).astype(np.float32),
            "action": rng.uniform(-1, 1, (1000, 6)).astype(np.float32),
            "reward": rng.normal(size=1000).astype(np.float32),
        }
        for _ in range(200)
    ]


# ---- the two sides ---------------------------------------------------------------------------------------


def corl_iql(work: Work) -> tuple[dict[str, Any], Any, Any]:
    """CORL's networks by its names for them, its buffer with the data, and its trainer."""
    import torch

    corl, rows = corl_file(work.source, "iql"), corl_rows(episodes_of(work.data))
    observation_size, action_size = rows["observations"].shape[1], rows["actions"].shape[1]
    replay = corl_replay(corl, rows)
    corl["set_seed"](work.seed)
    networks = {
        "q_network": corl["TwinQ"](observation_size, action_size),
        "v_network": corl["ValueFunction"](observation_size),
        "actor": corl["GaussianPolicy"](observation_size, action_size, 1.0),
    }
    optimizers = {
        f"{name.partition('_')[0]}_optimizer": torch.optim.Adam(network.parameters(), lr=work.learning_rate)
        for name, network in networks.items()
    }
    trainer = corl["ImplicitQLearning"](
        max_action=1.0,
        **networks,
        **optimizers,
        iql_tau=work.expectile,
        beta=work.beta,
        max_steps=work.updates,
        discount=work.discount,
        tau=work.target_rate,
        device="cpu",
    )
    return networks, replay, trainer


def our_iql(work: Work) -> Any:
    """The run of `iql.train` on the same data."""
    from policysmith.experience.episodes import Episodes
    from policysmith.systems import iql

    config = iql.Config(
        steps=work.updates,
        batch_size=work.batch_size,
        discount=work.discount,
        expectile=work.expectile,
        beta=work.beta,
        learning_rate=work.learning_rate,
        rate=work.target_rate,
    )
    return iql.train(Episodes.from_arrays(episodes_of(work.data)), config=config, seed=work.seed)


def corl_side(work: Work, clock: Clock) -> None:
    networks, replay, trainer = corl_iql(work)
    actor = networks["actor"]
    clock.timed(replay, "sample", "replay")

    def play() -> dict[str, Any]:
        actor.eval()
        returns = played(pendulum(), lambda observation: actor.act(observation, "cpu"))
        actor.train()
        return {"returns": returns}

    clock.tasks["play"] = play
    clock.ready(weights=weights_of(*networks.values()), versions=versions(REPORTED))
    while True:
        clock.begin()
        batch = replay.sample(work.batch_size)
        trainer.train([part.to("cpu") for part in batch])
        clock.end()


def our_side(work: Work, clock: Clock) -> None:
    from policysmith.experience.replay import Replay

    clock.timed(Replay, "sample", "replay")
    steps = our_iql(work)
    # The first update makes the state known; it is one of the warm-up's on the other side.
    state = next(steps).state
    clock.tasks["play"] = lambda: {"returns": played(pendulum(), acting(state.policy()))}
    weights = weights_of(*(learner.module for learner in state.learners.values()))
    clock.ready(weights=weights, versions=versions(REPORTED))
    while True:
        clock.begin()
        next(steps)
        clock.end()


# ---- measuring -------------------------------------------------------------------------------------------

SIDES = {"corl": corl_side, "ours": our_side}


def measure(work: Work, pythons: dict[str, Path], *, rounds: int, steps: int, warm_up: int) -> dict[str, Any]:
    def play(workers: Mapping[str, Worker]) -> dict[str, Any]:
        wanted = work.data == "pendulum"
        returns = {side: worker.ask("play")["returns"] for side, worker in workers.items() if wanted}
        return {
            "returns": {side: {"mean": float(np.mean(all)), "of": len(all)} for side, all in returns.items()}
        }

    found = compared(work, pythons, PEERS, steps=steps, rounds=rounds, warm_up=warm_up, at_the_end=play)
    of_the_data = float(np.mean([one["reward"].sum() for one in episodes_of(work.data)]))
    return {"work": asdict(work), "unit": "updates", **found, "return_of_the_data": of_the_data}


def main() -> None:
    parser = arguments_of(__doc__, rounds=9)
    parser.add_argument("--data", choices=DATA, action="append", help="default: both")
    parser.add_argument("--side", choices=tuple(SIDES), action="append", help="default: both")
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has the peer already")
    parser.add_argument("--corl", type=Path, help="a checkout of CORL, where none can be cloned")
    parser.add_argument("--steps", type=int, default=200, help="updates per round")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.worker:
        work = Work(**arguments.settings)
        clock = Clock(answers_to(work.threads), rest="learning", timer=time.process_time)
        SIDES[arguments.worker](work, clock)
        return
    sides = arguments.side or list(SIDES)
    source = CORL.folder(arguments.corl) if "corl" in sides else ""
    pythons = {side: Path(sys.executable) for side in sides}
    pythons |= {side: arguments.peer_python or PEERS[side].python() for side in sides if side in PEERS}
    results, warm_up = {}, 50
    for data in arguments.data or DATA:
        work = Work(
            data,
            updates=warm_up + arguments.rounds * arguments.steps + 1,
            seed=arguments.seed,
            threads=arguments.threads,
            source=str(source),
        )
        rounds, steps = arguments.rounds, arguments.steps
        results[data] = measure(work, pythons, rounds=rounds, steps=steps, warm_up=warm_up)
    tell({"benchmark": "iql", "machine": machine(), "data": results}, arguments.json)


if __name__ == "__main__":
    main()
