"""What the benchmarks against CORL share: its files, the recorded data, and the task that they are of.

CORL is not a package: a file of it is run as it is, from a checkout (`--corl`) or a clone at a fixed commit.
What a file imports and does not need here (d4rl, gym, wandb, pyrallis, tqdm) is stood in for. The data are
episodes of Pendulum, made anew by either side from the same generator.
"""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
from peers import Peer, Source, same_as_ours, stand_in

PEER = Peer("corl", "", (same_as_ours("numpy"), same_as_ours("gymnasium")))
CORL = Source("tinkoff-ai/CORL", "6afec90484bbf47dee05fdf525e26a3ebe028e9b")
TASK = "Pendulum-v1"

Arrays = dict[str, np.ndarray]


# ---- the task and the data -------------------------------------------------------------------------------


def pendulum() -> Any:
    """The task with actions within -1 and 1."""
    import gymnasium

    return gymnasium.wrappers.RescaleAction(gymnasium.make(TASK), np.float32(-1), np.float32(1))


def pendulum_episodes(rng: np.random.Generator) -> list[Arrays]:
    """100 episodes of a controller, more and less disturbed.

    `observation` [step + 1, size], `action` [step, size] in -1 to 1, `reward` [step]; none terminates.
    """
    return [swung_up(rng, disturbance) for disturbance in np.linspace(0, 1, 100)]


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


# ---- CORL's files ----------------------------------------------------------------------------------------


def corl_file(source: str, algorithm: str) -> dict[str, Any]:
    """What `algorithms/offline/<algorithm>.py` of a checkout defines."""
    stand_in("d4rl")
    stand_in("wandb")
    stand_in("tqdm", trange=range)
    stand_in("gym", Env=object)
    stand_in("pyrallis", wrap=lambda: lambda function: function)
    return runpy.run_path(str(Path(source) / f"algorithms/offline/{algorithm}.py"))


def corl_rows(episodes: list[Arrays]) -> Arrays:
    """The transitions as CORL names them; none is terminal."""
    rows = {
        "observations": np.concatenate([one["observation"][:-1] for one in episodes]),
        "actions": np.concatenate([one["action"] for one in episodes]),
        "rewards": np.concatenate([one["reward"] for one in episodes]),
        "next_observations": np.concatenate([one["observation"][1:] for one in episodes]),
    }
    return rows | {"terminals": np.zeros_like(rows["rewards"])}


def corl_replay(corl: dict[str, Any], rows: Arrays) -> Any:
    """The file's own buffer with these rows in it."""
    observation_size, action_size = rows["observations"].shape[1], rows["actions"].shape[1]
    replay = corl["ReplayBuffer"](observation_size, action_size, len(rows["rewards"]), "cpu")
    replay.load_d4rl_dataset(rows)
    return replay
