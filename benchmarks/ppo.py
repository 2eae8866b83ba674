"""Policysmith against Stable-Baselines3 and CleanRL: PPO, environment steps per second of whole iterations.

    python benchmarks/ppo.py [--task CartPole-v1] [--task HalfCheetah-v5] [--side sb3] [--side ours]

An iteration plays a number of steps and learns from them for some epochs of minibatches. All sides do it
through their own ordinary entry (`PPO.learn`; CleanRL's file, run as it is; Policysmith's `ppo.train`) on the
same Gymnasium, with the same networks (a policy and a critic of 64 x 64, tanh), settings and threads:

- `CartPole-v1`: 8 environments x 128 steps, 4 epochs of 4 minibatches, values not clipped;
- `HalfCheetah-v5`: 1 environment x 2048 steps, 10 epochs of 32 minibatches, observations and rewards
  normalised.

The side `compiled` is ours with `compile=True`. Printed are environment steps per second, where the time of
the processor goes, and the returns of the training episodes round by round, which are returns after equally
many environment steps. The sides answer in turn (see `peers.py`).

Stable-Baselines3 is installed into an environment of its own. CleanRL is not a package: its file is taken
from `--cleanrl` (a checkout), or cloned. It was written for an older Gymnasium, so that its half resets
environments within the step that ends an episode, tells `final_info` as it was told, and gives
`TransformObservation` the space; its tensorboard writer, which writes nothing here, says where an iteration
ends.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peers import (
    Clock,
    Peer,
    Source,
    answers_to,
    arguments_of,
    compared,
    machine,
    stable_baselines,
    stand_in,
    tell,
    versions,
    worlds,
)

PEERS = {
    "sb3": stable_baselines(),
    "cleanrl": Peer("cleanrl", "", worlds()),
}
CLEANRL = Source("vwxyzjn/cleanrl", "fe8d8a03c41a7ef5b523e2e354bd01c363e786bb")
REPORTED = ("torch", "numpy", "gymnasium", "mujoco", "stable-baselines3", "policysmith")


@dataclass(frozen=True)
class Work:
    """The work of an iteration, the same for all sides."""

    task: str
    environments: int
    rollout_steps: int
    epochs: int
    minibatches: int
    learning_rate: float
    entropy: float
    normalised: bool
    discount: float = 0.99
    gae: float = 0.95
    clip: float = 0.2
    value: float = 0.5
    max_grad_norm: float = 0.5
    seed: int = 1
    threads: int = 1
    source: str = ""

    @property
    def rows(self) -> int:
        """Environment steps of an iteration."""
        return self.environments * self.rollout_steps


WORK = {
    work.task: work
    for work in (
        Work("CartPole-v1", 8, 128, 4, 4, learning_rate=2.5e-4, entropy=0.01, normalised=False),
        Work("HalfCheetah-v5", 1, 2048, 10, 32, learning_rate=3e-4, entropy=0.0, normalised=True),
    )
}


# ---- the peers -------------------------------------------------------------------------------------------


def sb3_side(work: Work, clock: Clock) -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    vector: Any = make_vec_env(work.task, n_envs=work.environments, seed=work.seed, vec_env_cls=DummyVecEnv)
    monitors = vector.envs
    if work.normalised:
        vector = VecNormalize(vector, gamma=work.discount)
    clock.timed(type(vector), "step", "environment")
    clock.timed(ActorCriticPolicy, "forward", "inference")
    clock.timed(ActorCriticPolicy, "predict_values", "inference")
    model = PPO(
        "MlpPolicy",
        vector,
        learning_rate=work.learning_rate,
        n_steps=work.rollout_steps,
        batch_size=work.rows // work.minibatches,
        n_epochs=work.epochs,
        gamma=work.discount,
        gae_lambda=work.gae,
        clip_range=work.clip,
        ent_coef=work.entropy,
        vf_coef=work.value,
        max_grad_norm=work.max_grad_norm,
        seed=work.seed,
        device="cpu",
    )
    told = [0] * work.environments

    class InTurn(BaseCallback):
        def _on_rollout_start(self) -> None:
            for number, monitor in enumerate(monitors):
                returns = monitor.get_wrapper_attr("get_episode_rewards")()
                clock.note("returns", returns[told[number] :])
                told[number] = len(returns)
            clock.turn()

        def _on_step(self) -> bool:
            return True

    clock.ready(weights=sum(p.numel() for p in model.policy.parameters()), versions=versions(REPORTED))
    model.learn(10**9, callback=InTurn())


def cleanrl_side(work: Work, clock: Clock) -> None:
    import gymnasium
    import torch

    file = Path(work.source) / "cleanrl" / ("ppo_continuous_action.py" if work.normalised else "ppo.py")
    vectors: list[Any] = []
    weights: list[int] = []

    class Vector(gymnasium.vector.SyncVectorEnv):
        """Ends and begins episodes, and tells of it, as Gymnasium did when CleanRL was written."""

        def __init__(self, makers: Any) -> None:
            super().__init__(makers, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)
            vectors.append(self)

        def step(self, actions: Any) -> Any:
            *rest, infos = super().step(actions)
            ended = infos.get("_final_info")
            if ended is not None:
                returns = infos["final_info"]["episode"]["r"]
                infos = {
                    **infos,
                    "final_info": [
                        {"episode": {"r": value, "l": 0}} if end else None
                        for value, end in zip(returns, ended, strict=True)
                    ],
                }
                clock.note("returns", [float(value) for value in returns[ended]])
            return *rest, infos

    def ready() -> None:
        clock.ready(weights=weights[0], versions=versions(REPORTED))
        clock.begin()

    class Writer:
        def __init__(self, *arguments: Any) -> None: ...

        def add_text(self, *arguments: Any) -> None: ...

        def add_scalar(self, name: str, *arguments: Any) -> None:
            if name == "charts/SPS":  # the last word of an iteration
                clock.turn()

    def playing(agent: Any, x: Any, action: Any = None) -> str | None:
        return "inference" if action is None else None

    def settings(kind: Any) -> Any:
        agent = sys._getframe(1).f_globals["Agent"]
        clock.timed(agent, "get_action_and_value", playing)
        clock.timed(agent, "get_value", "inference")
        return kind(
            env_id=work.task,
            seed=work.seed,
            cuda=False,
            total_timesteps=10**9,
            learning_rate=work.learning_rate,
            num_envs=work.environments,
            num_steps=work.rollout_steps,
            anneal_lr=False,
            gamma=work.discount,
            gae_lambda=work.gae,
            num_minibatches=work.minibatches,
            update_epochs=work.epochs,
            clip_coef=work.clip,
            clip_vloss=False,
            ent_coef=work.entropy,
            vf_coef=work.value,
            max_grad_norm=work.max_grad_norm,
        )

    adam, reset = torch.optim.Adam, gymnasium.vector.SyncVectorEnv.reset

    def counted(parameters: Any, **options: Any) -> Any:
        parameters = list(parameters)
        weights.append(sum(p.numel() for p in parameters))
        return adam(parameters, **options)

    def first_reset(self: Any, **options: Any) -> Any:
        ready()
        return reset(self, **options)

    transform = gymnasium.wrappers.TransformObservation
    torch.optim.Adam = counted  # type: ignore[misc, assignment]
    clock.timed(Vector, "step", "environment")
    Vector.reset = first_reset  # type: ignore[method-assign]
    gymnasium.vector.SyncVectorEnv = Vector  # type: ignore[misc]
    gymnasium.wrappers.TransformObservation = (  # type: ignore[misc, assignment]
        lambda env, function: transform(env, function, env.observation_space)
    )
    stand_in("torch.utils.tensorboard", SummaryWriter=Writer)
    stand_in("tyro", cli=settings)
    with open(os.devnull, "w") as sys.stdout:  # it tells of every episode
        runpy.run_path(str(file), run_name="__main__")


# ---- our side --------------------------------------------------------------------------------------------


def our_side(work: Work, clock: Clock, *, compile: bool = False) -> None:
    from policysmith.experience.interaction import Interaction
    from policysmith.experience.makers import environments_of
    from policysmith.policies import heads
    from policysmith.policies.actors import NetworkPolicy
    from policysmith.systems import ppo
    from policysmith.training.learners.on_policy import RolloutCollector
    from policysmith.training.learners.ppo import actor_critic

    clock.timed(Interaction, "step", "environment")
    clock.timed(NetworkPolicy, "remembering", "inference")
    clock.timed(heads.Gaussian, "draw", "inference")
    clock.timed(heads.Categoricals, "draw", "inference")
    clock.timed(RolloutCollector, "_estimates", "inference")
    config = ppo.Config(
        environment_steps=10**9,
        environments=work.environments,
        rollout_steps=work.rollout_steps,
        epochs=work.epochs,
        minibatches=work.minibatches,
        learning_rate=work.learning_rate,
        anneal=False,
        discount=work.discount,
        gae_lambda=work.gae,
        clip=work.clip,
        value_clip=None,
        value_weight=work.value,
        entropy_weight=work.entropy,
        max_grad_norm=work.max_grad_norm,
        normalise_observations=work.normalised,
        normalise_rewards=work.normalised,
        compile=compile,
    )
    agent = actor_critic(Interaction(environments_of(work.task, 1), seed=0), config, seed=0)
    clock.ready(weights=sum(p.numel() for p in agent.parameters()), versions=versions(REPORTED))
    told = 0
    steps = ppo.train(work.task, config=config, seed=work.seed)
    while True:
        clock.begin()
        interaction: Any = next(steps).state.sources["interaction"]
        ended = int(interaction.numbers.sum())
        clock.note("returns", [float(one[0]) for one in list(interaction.finished)[told - ended :]])
        told = ended
        clock.end()


# ---- measuring -------------------------------------------------------------------------------------------

SIDES = {
    "sb3": sb3_side,
    "cleanrl": cleanrl_side,
    "ours": our_side,
    "compiled": partial(our_side, compile=True),
}


def measure(work: Work, pythons: dict[str, Path], *, rounds: int, steps: int) -> dict[str, Any]:
    found = compared(work, pythons, PEERS, steps=steps, rounds=rounds, warm_up=1, per_step=work.rows)
    return {"work": asdict(work), "unit": "environment steps", **found}


def main() -> None:
    parser = arguments_of(__doc__, rounds=9)
    parser.add_argument("--task", choices=tuple(WORK), action="append", help="default: both")
    parser.add_argument("--side", choices=tuple(SIDES), action="append", help="default: all")
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has the peers already")
    parser.add_argument("--cleanrl", type=Path, help="a checkout of CleanRL, where none can be cloned")
    parser.add_argument("--steps", type=int, default=4, help="iterations per round")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.worker:
        work = Work(**arguments.settings)
        clock = Clock(answers_to(work.threads), rest="learning", timer=time.process_time)
        SIDES[arguments.worker](work, clock)
        return
    sides = arguments.side or list(SIDES)
    source = CLEANRL.folder(arguments.cleanrl) if "cleanrl" in sides else ""
    pythons = {side: Path(sys.executable) for side in sides}
    pythons |= {side: arguments.peer_python or PEERS[side].python() for side in sides if side in PEERS}
    results = {}
    for task in arguments.task or WORK:
        changed = {"threads": arguments.threads, "seed": arguments.seed, "source": str(source)}
        work = Work(**asdict(WORK[task]) | changed)
        results[task] = measure(work, pythons, rounds=arguments.rounds, steps=arguments.steps)
    tell({"benchmark": "ppo", "machine": machine(), "tasks": results}, arguments.json)


if __name__ == "__main__":
    main()
