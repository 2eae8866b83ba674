"""Policysmith against Stable-Baselines3 and CORL: what policies are worth after equally many steps.

    python benchmarks/returns.py [--algorithm td3] [--seeds 5] [--folder FOLDER]

Nothing is timed here: the question is whether both sides learn the same. Both are given the same
networks, batches, rates, discount and exploration, as far as both have the setting, and the same number of

- environment steps: `td3` on Pendulum-v1 (an update at each) and `dqn` on CartPole-v1, against
  Stable-Baselines3. Its DQN is the plain one, so that ours has the duelling network and the double estimate
  switched off;
- updates: `td3-bc`, `cql`, `awac` and `iql` on recorded episodes of Pendulum (see `corl_peer.py`), against
  CORL's classes, run as the loops of its files run them.

Then the last policy plays 20 episodes without noise, the same on both sides and by the same code. Printed
are, per algorithm, the return of each seed, the difference of the means (ours minus the peer's) with Welch's
95 % interval, whether it tells the sides apart, and how large the difference can be at most in units of the
range from random actions to the best policies: 500 on CartPole, -150 on Pendulum.

What the settings cannot make equal: initial weights are each library's own; CORL's AWAC clips exp(advantage /
temperature) at 100 where ours takes the softmax over the batch, and its mean is not squashed; CORL's CQL
steps the actor with the critics of before the update, and its log-deviation starts one lower.

Each run is written as it ends, and a run that is there already, of the same work, is not made again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from corl_peer import (
    CORL,
    PEER,
    corl_file,
    corl_replay,
    corl_rows,
    pendulum,
    pendulum_episodes,
)
from iql import Work as ImplicitWork
from iql import corl_iql, our_iql
from peers import (
    CACHE,
    Answer,
    Worker,
    acting,
    answers_to,
    arguments_of,
    machine,
    played,
    stable_baselines,
    tell,
    versions,
    weights_of,
)

REPORTED = ("torch", "numpy", "gymnasium", "stable-baselines3", "policysmith")
OURS = "ours"
BEST_CARTPOLE = 500.0
BEST_PENDULUM = -150.0
"""What the best of these runs come to, those of TD3."""
Act = Callable[[Any], Any]


@dataclass(frozen=True)
class Work:
    """One run, the same for both sides; `own` holds what only this algorithm has.

    `steps` are environment steps or, on data, updates.
    """

    algorithm: str
    peer: str
    steps: int
    hidden: tuple[int, ...]
    batch_size: int
    learning_rate: float
    own: dict[str, Any] = field(default_factory=dict)
    discount: float = 0.99
    target_rate: float = 0.005
    seed: int = 0
    threads: int = 1
    source: str = ""


SMOOTHED = {"smoothing": 0.2, "smoothing_limit": 0.5, "policy_every": 2}
WORK = {
    work.algorithm: work
    for work in (
        Work(
            "td3",
            "sb3",
            steps=10_000,
            hidden=(128, 128),
            batch_size=128,
            learning_rate=1e-3,
            own={"random_steps": 1000, "exploration_noise": 0.1, **SMOOTHED},
        ),
        Work(
            "dqn",
            "sb3",
            steps=120 * 256,
            hidden=(256, 256),
            batch_size=64,
            learning_rate=2.3e-3,
            own={
                "random_steps": 1000,
                "every": 256,
                "updates": 128,
                "replay_capacity": 100_000,
                "exploration": 0.04,
                "exploration_steps": 8000,
            },
        ),
        Work("td3-bc", "corl", 5000, (256, 256), 128, 3e-4, own={"alpha": 2.5, **SMOOTHED}),
        Work("cql", "corl", 5000, (256, 256, 256), 64, 3e-4, own={"penalty_weight": 5.0, "samples": 2}),
        # At 10 a weight of CORL's reaches its limit at an advantage of 46: three of the worst steps.
        Work("awac", "corl", 5000, (128, 128, 128), 128, 3e-4, own={"temperature": 10.0}),
        Work("iql", "corl", 5000, (256, 256), 128, 3e-4, own={"expectile": 0.7, "beta": 3.0}),
    )
}


def environment_of(algorithm: str) -> Any:
    """What is played, and learnt from where there are no data."""
    import gymnasium

    return gymnasium.make("CartPole-v1") if algorithm == "dqn" else pendulum()


@dataclass(frozen=True)
class Half:
    """One side's run before it has begun: its number of weights, and how to come to its policy."""

    weights: int
    learn: Callable[[], Act]


# ---- Stable-Baselines3 -----------------------------------------------------------------------------------


def sb3_td3(work: Work) -> Half:
    from stable_baselines3 import TD3
    from stable_baselines3.common.noise import NormalActionNoise

    return learnt_by_sb3(
        TD3,
        work,
        buffer_size=work.steps,
        tau=work.target_rate,
        train_freq=1,
        gradient_steps=1,
        action_noise=NormalActionNoise(np.zeros(1), np.full(1, work.own["exploration_noise"])),
        policy_delay=work.own["policy_every"],
        target_policy_noise=work.own["smoothing"],
        target_noise_clip=work.own["smoothing_limit"],
    )


def sb3_dqn(work: Work) -> Half:
    from stable_baselines3 import DQN

    # Its target is renewed by environment steps: at the end of each phase of acting, as ours is by updates.
    return learnt_by_sb3(
        DQN,
        work,
        buffer_size=work.own["replay_capacity"],
        train_freq=work.own["every"],
        gradient_steps=work.own["updates"],
        target_update_interval=work.own["every"],
        exploration_fraction=work.own["exploration_steps"] / work.steps,
        exploration_final_eps=work.own["exploration"],
        max_grad_norm=10.0,
    )


def learnt_by_sb3(kind: Any, work: Work, **settings: Any) -> Half:
    model = kind(
        "MlpPolicy",
        environment_of(work.algorithm),
        learning_rate=work.learning_rate,
        learning_starts=work.own["random_steps"],
        batch_size=work.batch_size,
        gamma=work.discount,
        policy_kwargs={"net_arch": list(work.hidden)},
        seed=work.seed,
        device="cpu",
        **settings,
    )
    networks = (model.q_net,) if work.algorithm == "dqn" else (model.actor, model.critic)

    def learn() -> Act:
        model.learn(work.steps)
        return lambda observation: model.predict(observation, deterministic=True)[0]

    return Half(weights_of(*networks), learn)


# ---- CORL ------------------------------------------------------------------------------------------------


def corl_td3_bc(work: Work) -> Half:
    corl, rows = recorded_for(work, "td3_bc")
    mean, deviation = corl["compute_mean_std"](rows["observations"], eps=1e-3)
    for key in ("observations", "next_observations"):
        rows[key] = corl["normalize_states"](rows[key], mean, deviation)
    networks = {
        "actor": corl["Actor"](3, 1, 1.0),
        "critic_1": corl["Critic"](3, 1),
        "critic_2": corl["Critic"](3, 1),
    }
    trainer = corl["TD3_BC"](
        max_action=1.0,
        **with_optimizers(networks, work),
        discount=work.discount,
        tau=work.target_rate,
        policy_noise=work.own["smoothing"],
        noise_clip=work.own["smoothing_limit"],
        policy_freq=work.own["policy_every"],
        alpha=work.own["alpha"],
    )
    replay = corl_replay(corl, rows)
    return learnt_by_corl(
        work, networks, replay, trainer.train, seen=lambda observation: (observation - mean) / deviation
    )


def corl_cql(work: Work) -> Half:
    corl, rows = recorded_for(work, "cql")
    networks = {
        "actor": corl["TanhGaussianPolicy"](3, 1, 1.0),
        "critic_1": corl["FullyConnectedQFunction"](3, 1),
        "critic_2": corl["FullyConnectedQFunction"](3, 1),
    }
    trainer = corl["ContinuousCQL"](
        **with_optimizers(networks, work),
        target_entropy=-1.0,
        discount=work.discount,
        policy_lr=work.learning_rate,
        qf_lr=work.learning_rate,
        soft_target_update_rate=work.target_rate,
        bc_steps=0,
        cql_n_actions=work.own["samples"],
        cql_alpha=work.own["penalty_weight"],
    )
    # Two numbers of the policy, which are not of its network, are left out of the count.
    counted = networks | {"actor": networks["actor"].base_network}
    half = learnt_by_corl(work, networks, corl_replay(corl, rows), trainer.train)
    return replace(half, weights=weights_of(*counted.values()))


def corl_awac(work: Work) -> Half:
    corl, rows = recorded_for(work, "awac")
    networks = {
        "actor": corl["Actor"](3, 1, work.hidden[0]),
        "critic_1": corl["Critic"](3, 1, work.hidden[0]),
        "critic_2": corl["Critic"](3, 1, work.hidden[0]),
    }
    trainer = corl["AdvantageWeightedActorCritic"](
        **with_optimizers(networks, work),
        gamma=work.discount,
        tau=work.target_rate,
        awac_lambda=work.own["temperature"],
    )
    return learnt_by_corl(work, networks, corl_replay(corl, rows), trainer.update)


def corl_implicit(work: Work) -> Half:
    networks, replay, trainer = corl_iql(implicit_work(work))
    return learnt_by_corl(work, networks, replay, trainer.train)


def recorded_for(work: Work, algorithm: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """CORL's file, its seeds set, and the recorded transitions."""
    corl = corl_file(work.source, algorithm)
    corl["set_seed"](work.seed)
    return corl, corl_rows(recorded())


def with_optimizers(networks: dict[str, Any], work: Work) -> dict[str, Any]:
    """Networks by CORL's names for them, each with Adam."""
    import torch

    optimizers = {
        f"{name}_optimizer": torch.optim.Adam(network.parameters(), lr=work.learning_rate)
        for name, network in networks.items()
    }
    return networks | optimizers


def learnt_by_corl(
    work: Work,
    networks: dict[str, Any],
    replay: Any,
    update: Callable[[Any], Any],
    *,
    seen: Callable[[Any], Any] = lambda observation: observation,
) -> Half:
    """`update` on draws of `replay`, and the actor as it evaluates."""
    import torch

    actor = networks["actor"]

    def learn() -> Act:
        for _ in range(work.steps):
            update(replay.sample(work.batch_size))
        actor.eval()
        return torch.no_grad()(lambda observation: actor.act(seen(observation), "cpu"))

    return Half(weights_of(*networks.values()), learn)


# ---- Policysmith -----------------------------------------------------------------------------------------


def our_td3(work: Work) -> Half:
    from policysmith.systems import td3

    config = td3.Config(environment_steps=work.steps, **shared(work), **work.own)
    return ours(td3.train(pendulum, config=config, seed=work.seed))


def our_dqn(work: Work) -> Half:
    from policysmith.systems import dqn

    config = dqn.Config(
        environment_steps=work.steps,
        hidden=work.hidden,
        batch_size=work.batch_size,
        learning_rate=work.learning_rate,
        discount=work.discount,
        adam_epsilon=1e-8,
        max_grad_norm=10.0,
        target_every=work.own["updates"],
        duelling=False,
        double=False,
        **work.own,
    )
    return ours(dqn.train("CartPole-v1", config=config, seed=work.seed))


def our_td3_bc(work: Work) -> Half:
    from policysmith.systems import td3_bc

    config = td3_bc.Config(steps=work.steps, standardise=True, **shared(work), **work.own)
    return ours(td3_bc.train(our_recorded(), config=config, seed=work.seed))


def our_cql(work: Work) -> Half:
    from policysmith.systems import cql

    config = cql.Config(steps=work.steps, cloning_steps=0, backup_entropy=False, **shared(work), **work.own)
    return ours(cql.train(our_recorded(), config=config, seed=work.seed))


def our_awac(work: Work) -> Half:
    from policysmith.systems import awac

    config = awac.Config(
        steps=work.steps,
        critic_hidden=work.hidden,
        weight_decay=0.0,
        log_deviation_range=(-20.0, 20.0),  # it starts in the middle, where CORL's does
        **shared(work),
        **work.own,
    )
    return ours(awac.train(our_recorded(), config=config, seed=work.seed))


def our_implicit(work: Work) -> Half:
    return ours(our_iql(implicit_work(work)))


def shared(work: Work) -> dict[str, Any]:
    """The settings that all but DQN and IQL have."""
    return {
        "hidden": work.hidden,
        "batch_size": work.batch_size,
        "learning_rate": work.learning_rate,
        "critic_learning_rate": work.learning_rate,
        "rate": work.target_rate,
        "discount": work.discount,
    }


def ours(steps: Any) -> Half:
    """A run of ours; its first step makes it known."""
    state = next(steps).state
    modules = [learner.module for name, learner in state.learners.items() if name != "temperature"]

    def learn() -> Act:
        for _ in steps:
            pass
        return acting(state.policy())

    return Half(weights_of(*modules), learn)


# ---- the data, and what both halves of IQL are told ------------------------------------------------------


def recorded() -> list[dict[str, np.ndarray]]:
    return pendulum_episodes(np.random.default_rng(0))


def our_recorded() -> Any:
    from policysmith.experience.episodes import Episodes

    return Episodes.from_arrays(recorded())


def implicit_work(work: Work) -> ImplicitWork:
    """As `iql.py` has it; the networks are its own, two layers of 256."""
    return ImplicitWork(
        "pendulum",
        updates=work.steps,
        batch_size=work.batch_size,
        discount=work.discount,
        learning_rate=work.learning_rate,
        target_rate=work.target_rate,
        seed=work.seed,
        source=work.source,
        **work.own,
    )


# ---- a run in its process --------------------------------------------------------------------------------

HALVES: dict[tuple[str, str], Callable[[Work], Half]] = {
    ("td3", "sb3"): sb3_td3,
    ("dqn", "sb3"): sb3_dqn,
    ("td3-bc", "corl"): corl_td3_bc,
    ("cql", "corl"): corl_cql,
    ("awac", "corl"): corl_awac,
    ("iql", "corl"): corl_implicit,
    ("td3", OURS): our_td3,
    ("dqn", OURS): our_dqn,
    ("td3-bc", OURS): our_td3_bc,
    ("cql", OURS): our_cql,
    ("awac", OURS): our_awac,
    ("iql", OURS): our_implicit,
}


def work_at(side: str, work: Work) -> None:
    """The worker: say what the networks are, and when asked learn and play."""
    answers = answers_to(work.threads)
    half = HALVES[work.algorithm, side](work)
    print(json.dumps({"weights": half.weights, "versions": versions(REPORTED)}), file=answers, flush=True)
    for _ in sys.stdin:
        returns = played(environment_of(work.algorithm), half.learn())
        print(json.dumps({"returns": returns}), file=answers, flush=True)


def run_of(work: Work, side: str, python: Path, folder: Path) -> Answer:
    """A run's answer, from `folder` where the same work has been done."""
    told = json.loads(json.dumps(asdict(work)))
    del told["source"]
    file = folder / f"{work.algorithm}-{side}-{work.seed}.json"
    if file.is_file():
        found = json.loads(file.read_text())
        if found["work"] == told:
            return found
    worker = Worker(python, side, work, threads=work.threads)
    try:
        found = {"work": told, **worker.about, **worker.ask("learn")}
    finally:
        worker.close()
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found))
    print(f"{file.stem}: {np.mean(found['returns']):.1f}", file=sys.stderr, flush=True)
    return found


# ---- measuring -------------------------------------------------------------------------------------------


def measure(work: Work, pythons: dict[str, Path], *, seeds: int, folder: Path) -> dict[str, Any]:
    from policysmith.evaluation.statistics import unpaired_difference

    runs: dict[str, list[Answer]] = {side: [] for side in (work.peer, OURS)}
    for seed in range(seeds):
        for side, answers in runs.items():
            answers.append(run_of(replace(work, seed=seed), side, pythons[side], folder))
    weights = {answer["weights"] for answers in runs.values() for answer in answers}
    if len(weights) > 1:
        raise SystemExit(f"the networks of {work.algorithm} differ: {weights} weights")
    returns = {side: [float(np.mean(one["returns"])) for one in all] for side, all in runs.items()}
    difference = unpaired_difference(returns[OURS], returns[work.peer])
    worst, best = range_of(work.algorithm)
    largest = max(abs(difference.low), abs(difference.high))
    apart = difference.low > 0 or difference.high < 0
    return {
        "work": runs[OURS][0]["work"] | {"seed": list(range(seeds))},
        "weights": weights.pop(),
        "versions": {side: answers[0]["versions"] for side, answers in runs.items()},
        "returns": {side: {"mean": float(np.mean(all)), "seeds": all} for side, all in returns.items()},
        "ours_minus_peer": asdict(difference),
        "verdict": ("ours higher" if difference.value > 0 else "peer higher") if apart else "not told apart",
        "range": [worst, best],
        "difference_at_most": largest / (best - worst),
    }


def range_of(algorithm: str) -> tuple[float, float]:
    """The mean returns of random actions and of the best policies, in the episodes that are played."""
    environment = environment_of(algorithm)
    environment.action_space.seed(0)
    worst = played(environment, lambda observation: environment.action_space.sample())
    return float(np.mean(worst)), BEST_CARTPOLE if algorithm == "dqn" else BEST_PENDULUM


def main() -> None:
    parser = arguments_of(__doc__)
    parser.add_argument("--algorithm", choices=tuple(WORK), action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each side")
    parser.add_argument("--folder", type=Path, default=CACHE / "returns", help="where runs are kept")
    parser.add_argument("--sb3-python", type=Path, help="an interpreter that has Stable-Baselines3 already")
    parser.add_argument("--corl-python", type=Path, help="an interpreter that has what CORL needs already")
    parser.add_argument("--corl", type=Path, help="a checkout of CORL, where none can be cloned")
    arguments = parser.parse_args()
    if arguments.worker:
        work = Work(**arguments.settings | {"hidden": tuple(arguments.settings["hidden"])})
        work_at(arguments.worker, work)
        return
    chosen = [WORK[name] for name in arguments.algorithm or WORK]
    peers = {work.peer for work in chosen}
    source = str(CORL.folder(arguments.corl)) if "corl" in peers else ""
    pythons = {OURS: Path(sys.executable)}
    if "sb3" in peers:
        pythons["sb3"] = arguments.sb3_python or stable_baselines().python()
    if "corl" in peers:
        pythons["corl"] = arguments.corl_python or PEER.python()
    results = {}
    for work in chosen:
        told = replace(work, threads=arguments.threads, source=source)
        results[work.algorithm] = measure(told, pythons, seeds=arguments.seeds, folder=arguments.folder)
    tell({"benchmark": "returns", "machine": machine(), "algorithms": results}, arguments.json)


if __name__ == "__main__":
    main()
