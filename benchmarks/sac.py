"""Policysmith against Stable-Baselines3 and SBX: SAC, environment steps per second, an update at each.

    python benchmarks/sac.py [--task HalfCheetah-v5] [--side sb3] [--side ours]

All sides do it through their own ordinary entry (`SAC.learn`, Policysmith's `sac.train`) on the same
Gymnasium, with the same networks (a policy and two critics of 256 x 256, relu), settings and threads: one
environment, batches of 256, one update of critics, policy, temperature and targets per environment step,
1,000 random steps first.

Printed are environment steps per second, where the time of the processor goes, and the returns of the
training episodes round by round, which are returns after equally many environment steps. The sides answer in
turn (see `peers.py`). The peers are installed into environments of their own; SBX computes with JAX on the
processor.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peers import (
    SB3,
    Clock,
    Peer,
    answers_to,
    arguments_of,
    compared,
    machine,
    stable_baselines,
    tell,
    versions,
    worlds,
)

PEERS = {
    "sb3": stable_baselines(),
    "sbx": Peer("sbx", "sbx-rl==0.28.0", (*worlds(), SB3, "jax==0.10.2", "flax==0.12.8", "optax==0.2.8")),
}
REPORTED = ("torch", "numpy", "gymnasium", "mujoco", "stable-baselines3", "sbx-rl", "jax", "policysmith")


@dataclass(frozen=True)
class Work:
    """The work, the same for all sides."""

    task: str = "HalfCheetah-v5"
    batch_size: int = 256
    hidden: tuple[int, ...] = (256, 256)
    random_steps: int = 1000
    learning_rate: float = 3e-4
    discount: float = 0.99
    target_rate: float = 0.005
    replay_capacity: int = 1_000_000
    seed: int = 1
    threads: int = 1


# ---- the peers -------------------------------------------------------------------------------------------


def sb3_side(work: Work, clock: Clock) -> None:
    from stable_baselines3 import SAC
    from stable_baselines3.sac.policies import SACPolicy

    model = stable_model(SAC, work, clock)
    clock.timed(SACPolicy, "predict", "inference")
    parts = (model.actor, model.critic)
    learn(model, clock, weights=sum(p.numel() for part in parts for p in part.parameters()))


def sbx_side(work: Work, clock: Clock) -> None:
    import jax
    from sbx import SAC
    from sbx.common.policies import BaseJaxPolicy

    model = stable_model(SAC, work, clock)
    clock.timed(BaseJaxPolicy, "predict", "inference")
    leaves = jax.tree.leaves((model.policy.actor_state.params, model.policy.qf_state.params))
    learn(model, clock, weights=sum(leaf.size for leaf in leaves))


def stable_model(kind: Any, work: Work, clock: Clock) -> Any:
    """SBX takes the settings that Stable-Baselines3 takes."""
    from stable_baselines3.common.buffers import ReplayBuffer
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv

    clock.timed(DummyVecEnv, "step", "environment")
    for name in ("add", "sample"):
        clock.timed(ReplayBuffer, name, "replay")
    return kind(
        "MlpPolicy",
        make_vec_env(work.task, n_envs=1, seed=work.seed),
        learning_rate=work.learning_rate,
        buffer_size=work.replay_capacity,
        learning_starts=work.random_steps,
        batch_size=work.batch_size,
        tau=work.target_rate,
        gamma=work.discount,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": list(work.hidden)},
        seed=work.seed,
        device="cpu",
    )


def learn(model: Any, clock: Clock, *, weights: int) -> None:
    from stable_baselines3.common.callbacks import BaseCallback

    monitor = model.env.envs[0]
    told = 0

    class InTurn(BaseCallback):
        def _on_rollout_start(self) -> None:
            nonlocal told
            returns = monitor.get_episode_rewards()
            if len(returns) > told:
                clock.note("returns", returns[told:])
                told = len(returns)
            clock.turn()

        def _on_step(self) -> bool:
            return True

    clock.ready(weights=weights, versions=versions(REPORTED))
    model.learn(10**9, callback=InTurn())


# ---- our side --------------------------------------------------------------------------------------------


def our_side(work: Work, clock: Clock) -> None:
    from policysmith.experience.interaction import Interaction
    from policysmith.experience.makers import environments_of
    from policysmith.experience.replay import Replay
    from policysmith.policies.actors import NetworkPolicy
    from policysmith.systems import sac
    from policysmith.training.learners.sac import SacLearners

    def playing(policy: Any, observation: Any, rng: Any) -> str | None:
        return "inference" if len(observation) == 1 else None

    clock.timed(Interaction, "step", "environment")
    clock.timed(NetworkPolicy, "draw", playing)
    for name in ("add", "sample"):
        clock.timed(Replay, name, "replay")
    config = sac.Config(
        environment_steps=10**9,
        random_steps=work.random_steps,
        batch_size=work.batch_size,
        replay_capacity=work.replay_capacity,
        discount=work.discount,
        hidden=work.hidden,
        learning_rate=work.learning_rate,
        critic_learning_rate=work.learning_rate,
        temperature_learning_rate=work.learning_rate,
        rate=work.target_rate,
    )
    one = environments_of(work.task, 1)
    made = SacLearners(one.observation_space, Interaction(one, seed=0).action_space, config, seed=0)
    weights = sum(p.numel() for part in (made.actor, made.critic) for p in part.parameters())
    clock.ready(weights=weights, versions=versions(REPORTED))
    told = 0
    steps = sac.train(work.task, config=config, seed=work.seed)
    while True:
        clock.begin()
        interaction: Any = next(steps).state.sources["interaction"]
        ended = int(interaction.numbers[0])
        if ended > told:
            clock.note("returns", [float(interaction.finished[-1][0])])
            told = ended
        clock.end()


# ---- measuring -------------------------------------------------------------------------------------------

SIDES = {"sb3": sb3_side, "sbx": sbx_side, "ours": our_side}


def measure(work: Work, pythons: dict[str, Path], *, rounds: int, steps: int) -> dict[str, Any]:
    one_thread = {"NPROC": str(work.threads), "JAX_PLATFORMS": "cpu"}
    if work.threads == 1:
        one_thread["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    # Updates begin after the random steps, and the first ones are slow.
    warm_up = work.random_steps + 200
    found = compared(
        work, pythons, PEERS, steps=steps, rounds=rounds, warm_up=warm_up, environment=one_thread
    )
    return {"unit": "environment steps, an update at each", **found}


def main() -> None:
    parser = arguments_of(__doc__, rounds=9)
    parser.add_argument("--task", default=Work.task)
    parser.add_argument("--side", choices=tuple(SIDES), action="append", help="default: all")
    parser.add_argument("--steps", type=int, default=500, help="environment steps per round")
    parser.add_argument("--seed", type=int, default=1)
    for side in PEERS:
        parser.add_argument(f"--{side}-python", type=Path, help="an interpreter that has the peer already")
    arguments = parser.parse_args()
    if arguments.worker:
        work = Work(**arguments.settings | {"hidden": tuple(arguments.settings["hidden"])})
        clock = Clock(answers_to(work.threads), rest="learning", timer=time.process_time)
        SIDES[arguments.worker](work, clock)
        return
    pythons = {
        side: getattr(arguments, f"{side}_python") or PEERS[side].python()
        if side in PEERS
        else Path(sys.executable)
        for side in arguments.side or SIDES
    }
    work = Work(task=arguments.task, threads=arguments.threads, seed=arguments.seed)
    result = measure(work, pythons, rounds=arguments.rounds, steps=arguments.steps)
    tell({"benchmark": "sac", "machine": machine(), "work": asdict(work), **result}, arguments.json)


if __name__ == "__main__":
    main()
