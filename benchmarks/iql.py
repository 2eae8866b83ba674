"""Policysmith against CORL: IQL, updates per second, and the returns that equally many updates come to.

    python benchmarks/iql.py [--data wide] [--data pendulum] [--side corl] [--side ours]

An update draws a batch of 256 and steps value, critics, target and policy (all 256 x 256, relu). CORL's half
runs the classes of its file as its own loop does; ours is `iql.train`. Two sets of data:

- `wide`: as wide as HalfCheetah's (17 and 6), 200,000 steps of noise: for the speed alone;
- `pendulum`: 100 episodes of Pendulum, played by a controller that swings it up, more and less disturbed.
  After the rounds each side plays 20 episodes with what it has learnt.

The sides answer in turn (see `peers.py`). CORL is not a package: its file is taken from `--corl` (a
checkout), or cloned; what it imports and does not need here (d4rl, gym, wandb, pyrallis) is stood in for.
"""

from __future__ import annotations

import math
import runpy
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers import (
    Clock,
    Peer,
    Source,
    Worker,
    answers_to,
    arguments_of,
    compared,
    machine,
    same_as_ours,
    stand_in,
    tell,
    versions,
)

PEERS = {"corl": Peer("corl", "", (same_as_ours("numpy"), same_as_ours("gymnasium")))}
CORL = Source("tinkoff-ai/CORL", "6afec90484bbf47dee05fdf525e26a3ebe028e9b")
REPORTED = ("torch", "numpy", "gymnasium", "policysmith")
TASK = "Pendulum-v1"
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

Arrays = dict[str, np.ndarray]


def episodes_of(data: str) -> list[Arrays]:
    """`observation` [step + 1, size], `action` [step, size] in -1 to 1, `reward` [step]; none terminates."""
    rng = np.random.default_rng(0)
    if data == "pendulum":
        return [swung_up(rng, disturbance) for disturbance in np.linspace(0, 1, 100)]
    return [
        {
            "observation": rng.normal(size=(1001, 17)).astype(np.float32),
            "action": rng.uniform(-1, 1, (1000, 6)).astype(np.float32),
            "reward": rng.normal(size=1000).astype(np.float32),
        }
        for _ in range(200)
    ]


def swung_up(rng: np.random.Generator, disturbance: float) -> Arrays:
    """An episode of a controller that gives the pendulum energy, then holds it up."""
    environment = pendulum()
    seen, done, paid = [environment.reset(seed=int(rng.integers(1 << 30)))[0]], [], []
    for _ in range(200):
        cosine, sine, speed = map(float, seen[-1])
        angle = math.atan2(sine, cosine)
        lacking = 5 - (speed * speed / 6 + 5 * cosine)
        torque = -8 * angle - 2 * speed if abs(angle) < 0.5 else math.copysign(lacking, speed)
        action = np.clip(torque / 2 + disturbance * rng.normal(), -1, 1)
        done.append([action])
        observation, reward, *_ = environment.step(np.array([action], np.float32))
        seen.append(observation)
        paid.append(float(reward))
    return {
        "observation": np.array(seen, np.float32),
        "action": np.array(done, np.float32),
        "reward": np.array(paid, np.float32),
    }


def pendulum() -> Any:
    """The task with actions within -1 and 1."""
    import gymnasium

    return gymnasium.wrappers.RescaleAction(gymnasium.make(TASK), np.float32(-1), np.float32(1))


def played(act: Any, episodes: int = 20) -> list[float]:
    """The returns of `act` (observation -> action) in episodes that are the same for both sides."""
    environment, returns = pendulum(), []
    for seed in range(episodes):
        observation, total = environment.reset(seed=1000 + seed)[0], 0.0
        for _ in range(200):
            observation, reward, *_ = environment.step(act(observation))
            total += float(reward)
        returns.append(total)
    return returns


# ---- the two sides ---------------------------------------------------------------------------------------


def corl_side(work: Work, clock: Clock) -> None:
    import torch

    stand_in("d4rl")
    stand_in("wandb")
    stand_in("gym", Env=object)
    stand_in("pyrallis", wrap=lambda: lambda function: function)
    corl = runpy.run_path(str(Path(work.source) / "algorithms/offline/iql.py"))
    episodes = episodes_of(work.data)
    rows = {
        "observations": np.concatenate([one["observation"][:-1] for one in episodes]),
        "actions": np.concatenate([one["action"] for one in episodes]),
        "rewards": np.concatenate([one["reward"] for one in episodes]),
        "next_observations": np.concatenate([one["observation"][1:] for one in episodes]),
    }
    rows["terminals"] = np.zeros_like(rows["rewards"])
    observation_size, action_size = rows["observations"].shape[1], rows["actions"].shape[1]
    replay = corl["ReplayBuffer"](observation_size, action_size, len(rows["rewards"]), "cpu")
    replay.load_d4rl_dataset(rows)
    corl["set_seed"](work.seed)
    q, v = corl["TwinQ"](observation_size, action_size), corl["ValueFunction"](observation_size)
    actor = corl["GaussianPolicy"](observation_size, action_size, 1.0)
    networks = {"actor": actor, "q_network": q, "v_network": v}
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
    clock.timed(replay, "sample", "replay")

    def play() -> dict[str, Any]:
        actor.eval()
        returns = played(lambda observation: actor.act(observation, "cpu"))
        actor.train()
        return {"returns": returns}

    clock.tasks["play"] = play
    weights = sum(p.numel() for network in networks.values() for p in network.parameters())
    clock.ready(weights=weights, versions=versions(REPORTED))
    while True:
        clock.begin()
        batch = replay.sample(work.batch_size)
        trainer.train([part.to("cpu") for part in batch])
        clock.end()


def our_side(work: Work, clock: Clock) -> None:
    import torch

    from policysmith.experience.episodes import Episodes
    from policysmith.experience.replay import Replay
    from policysmith.systems import iql

    data = Episodes.from_arrays(episodes_of(work.data))
    config = iql.Config(
        steps=work.updates,
        batch_size=work.batch_size,
        discount=work.discount,
        expectile=work.expectile,
        beta=work.beta,
        learning_rate=work.learning_rate,
        rate=work.target_rate,
    )
    clock.timed(Replay, "sample", "replay")
    steps = iql.train(data, config=config, seed=work.seed)
    # The first update makes the state known; it is one of the warm-up's on the other side.
    state = next(steps).state
    rng = torch.Generator()

    def play() -> dict[str, Any]:
        policy = state.policy()

        def act(observation: np.ndarray) -> np.ndarray:
            seen = torch.from_numpy(observation.astype(np.float32))[None, None]
            return policy.act(seen, policy.initial_state(1), rng=rng)[0][0, 0].numpy()

        return {"returns": played(act)}

    clock.tasks["play"] = play
    weights = sum(p.numel() for learner in state.learners.values() for p in learner.module.parameters())
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
