"""RL2's claim at small scale: what is found out in a trial's first episode is made use of in the later ones.

Meta-World's reach with the goal hidden. A trial is four episodes of fifty simulator steps at one goal, an
action being held for five of them; the dense reward tells how near the hand is. RL2 sees the hand alone,
learns from trials at goals drawn anew from the task's box, and is tested on goals of ML1's test split. Beside
it the same PPO learns from as many decisions with a memory that is emptied after every episode.

What is compared is the mean reward of an episode (0 to 10 per simulator step), the fourth's less the first's:
chosen before the runs, since in so few trials it says more than success, which is reported beside it. The
claim holds where this gain is above zero for RL2, and above that of the memory that is emptied.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import TransformObservation
from jaxtyping import Float
from matplotlib.figure import Figure

from policysmith.common.config import config_to_json
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.curve_plots import curve_bands
from policysmith.evaluation.learning_curves import Band
from policysmith.evaluation.playing import Start, Trial, play
from policysmith.evaluation.statistics import Interval, paired_difference, success_interval
from policysmith.experience.interaction import Interaction
from policysmith.policies.actors import without_noise
from policysmith.policies.protocol import Policy
from policysmith.systems import rl2
from policysmith.worlds import registry
from policysmith.worlds.metaworld import OWN
from policysmith.worlds.metaworld_suites import make_suite
from policysmith.worlds.trials import Feedback

TASK, EPISODES, HORIZON = "reach-v3", 4, 50
OPTIONS: dict[str, Any] = {"horizon": HORIZON, "hold": 5, "goal_visible": False}
CONFIG = replace(
    rl2.PRESETS["bench"], episodes=EPISODES, environment_steps=40_000, rollout_steps=40, memory_steps=40
)
"""A rollout is a trial of each environment: 4 times 10 decisions."""
LASTING, EMPTIED, UNTRAINED = "RL2", "memory emptied each episode", "untrained"


@dataclass(frozen=True)
class Played:
    """What the test episodes of all runs came to: reward per simulator step, and success or not."""

    reward: Float[np.ndarray, "run goal episode"]
    success: Float[np.ndarray, "run goal episode"]

    @property
    def gain(self) -> Float[np.ndarray, "run goal"]:
        """The last episode's reward less that of the first."""
        return self.reward[..., -1] - self.reward[..., 0]


def make_task() -> gymnasium.Env:
    """The task as the hand feels it; the seed of a reset draws a goal from its box.

    Of the observation are left the hand's position and the gripper's opening: the rest is the puck, which has
    no part in reaching, and zeros.
    """
    task = registry.make(f"metaworld/{TASK}", **OPTIONS)
    own = list(OWN)
    space: Any = task.observation_space
    return TransformObservation(task, lambda seen: seen[own], Box(space.low[own], space.high[own]))


def make_test() -> gymnasium.Env:
    """The task as it is tested, with feedback."""
    return Feedback(make_task())


def sides() -> dict[str, rl2.Config]:
    """Who learns, by which settings; a trial of one episode is what empties the memory."""
    return {LASTING: CONFIG, EMPTIED: replace(CONFIG, episodes=1)}


def test_starts(goals: int) -> list[Start]:
    """The first `goals` goals of ML1's test split."""
    placements = make_suite("ML1", task=TASK).test[0].placements[:goals]
    return [Start(options={"placement": placement}) for placement in placements]


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 40, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment, on `evaluate` test goals; finished training runs are taken from `folder`."""
    began = time.perf_counter()
    starts = test_starts(evaluate)
    played: dict[str, list[Played]] = {label: [] for label in (*sides(), UNTRAINED)}
    for seed in seeds:
        for label, config in sides().items():
            policy = yield from _trained(label, config, seed, folder)
            played[label].append(_play(policy, starts, lasts=label == LASTING))
        yield Stage(f"play {UNTRAINED}, seed {seed}", 0, 1)
        played[UNTRAINED].append(_play(_untrained(seed), starts, lasts=True))
    outcomes = {label: _together(runs) for label, runs in played.items()}
    return claim.build_claim(
        "rl2",
        paper_claim="a recurrent policy trained by reinforcement learning over trials of several episodes "
        "finds out in the first what the task wants and acts on it in the later ones",
        question=f"{TASK} with hidden goals, trials of {EPISODES} episodes: mean reward of the fourth "
        "above that of the first on held-out goals, by more than with a memory emptied after each",
        arms=[_arm(label, found, seeds) for label, found in outcomes.items()],
        comparisons=_comparisons(outcomes),
        seeds=seeds,
        settings={
            "task": TASK,
            **OPTIONS,
            "reward_version": "v2",
            "observation": "the hand's position and the gripper's opening, and feedback",
            "test": f"{evaluate} goals of ML1's test split, deterministic policies",
            "of_both_that_learn": config_to_json(CONFIG),
        },
        seconds=round(time.perf_counter() - began, 1),
        recipe_version=rl2.RECIPE_VERSION,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Mean reward of each episode of a trial, of those that learn."""
    numbers = np.arange(1, EPISODES + 1)

    def band(arm: claim.Arm) -> Band:
        rewards = [arm.summary[f"reward in episode {number}"] for number in numbers]
        ends = np.array([(one.value, one.low, one.high) for one in rewards])
        return Band(numbers, *ends.T)

    figure = curve_bands(
        {arm.name: band(arm) for arm in found.arms if arm.name != UNTRAINED},
        "reward per step",
        xlabel="episode of the trial",
    )
    figure.axes[0].set_xticks(numbers, [str(number) for number in numbers])
    return "Mean reward on goals never seen, with 95 % intervals over runs and goals", figure


# ---- one run -------------------------------------------------------------------------------------------


def _trained(label: str, config: rl2.Config, seed: int, folder: Path) -> Generator[Stage, None, Policy]:
    cached = CachedRun(rl2, (make_task,), f"{TASK} {OPTIONS}", config, seed, folder)
    for now in cached.train(checkpoint_every=10**9, log_every=5):
        yield Stage(f"train {label}, seed {seed}", now.step, now.total, now.metrics.get("return"))
    return cached.policy()


def _untrained(seed: int) -> Policy:
    """The policy that RL2's run of the same seed begins with."""
    interaction = Interaction.of(partial(rl2.in_trials, make_task, EPISODES), 1, seed=seed)
    agent = rl2.beginner(interaction, CONFIG, seed=seed)
    interaction.close()
    return without_noise(agent.policy)


def _play(policy: Policy, starts: Sequence[Start], *, lasts: bool) -> Played:
    """Every goal's episodes as one trial, or each as a trial of its own, after which memory is emptied."""
    trials = [
        Trial(make_test, [start] * (EPISODES if lasts else 1), explore=EPISODES)
        for start in starts
        for _ in range(1 if lasts else EPISODES)
    ]
    found = play(policy, trials)
    shape = len(starts), EPISODES
    return Played(found.returns.reshape(shape) / HORIZON, found.success.astype(float).reshape(shape))


def _together(runs: Sequence[Played]) -> Played:
    return Played(np.stack([run.reward for run in runs]), np.stack([run.success for run in runs]))


# ---- what is said of them ------------------------------------------------------------------------------


def _arm(label: str, played: Played, seeds: Sequence[int]) -> claim.Arm:
    def metrics(number: int) -> dict[str, float]:
        found = {"gain": float(played.gain[number].mean())}
        for episode in range(EPISODES):
            found[f"reward in episode {episode + 1}"] = float(played.reward[number, :, episode].mean())
            found[f"success in episode {episode + 1}"] = float(played.success[number, :, episode].mean())
        return found

    summary = {"gain": _mean(played.gain)}
    for episode in range(EPISODES):
        summary[f"reward in episode {episode + 1}"] = _mean(played.reward[..., episode])
        summary[f"success in episode {episode + 1}"] = success_interval(played.success[..., episode])
    runs = [claim.Run(seed, metrics(number)) for number, seed in enumerate(seeds)]
    return claim.Arm(label, {}, runs, summary)


def _mean(scores: Float[np.ndarray, "run goal"]) -> Interval:
    """Mean over runs and goals; the interval is the wider of those over either."""
    return paired_difference(scores, np.zeros_like(scores))


def _comparisons(played: dict[str, Played]) -> list[claim.Comparison]:
    lasting, emptied = played[LASTING], played[EMPTIED]
    return [
        claim.Comparison(
            "RL2's fourth episode less its first",
            LASTING,
            LASTING,
            f"reward in episode {EPISODES}",
            _mean(lasting.gain),
            0.0,
            "higher",
        ),
        claim.Comparison(
            "RL2's gain less that of an emptied memory",
            LASTING,
            EMPTIED,
            "gain",
            paired_difference(lasting.gain, emptied.gain),
            0.0,
            "higher",
        ),
    ]
