"""SERL: reinforcement learning on a robot within an hour, by a known algorithm with every choice made well.

RLPD (`training/learners/rlpd.py`): soft actor-critic whose batches are half demonstrations, with ten critics
under LayerNorm and many updates per step, on a reward of success alone:

    critics' target = r + discount min over two of ten Q'(s', a')
    actor:          max  mean over ten Q(s, a) - temperature log pi(a|s)

The reward is the environment's (a pose within tolerances, `rewards/poses.py`), a classifier's that was
trained on the demonstrations' frames before, or one's that goes on being trained with what the policy sees as
failures (VICE). The actor may act beside the learner, at a robot's rate (`asynchronous`), and two agents may
undo each other's work so that nobody has to reset anything (`train_reset_free`). Frames relative to where an
episode began are `worlds/frames.py`, the compliant controller below the policy is `policies/impedance.py`.

What sets it apart from `sac` is the demonstrations and how often it learns; each part can be switched off.

Reference: Luo et al. 2024, "SERL: A software suite for sample-efficient robotic reinforcement learning"
(2401.16013); Ball et al. 2023, RLPD (2302.02948).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, get_args

import gymnasium

from policysmith.common.errors import SettingError
from policysmith.experience.environments import Maker
from policysmith.experience.episodes import Episodes
from policysmith.experience.interaction import Interaction
from policysmith.experience.makers import makers_of
from policysmith.experience.replay import Replay, transitions_of
from policysmith.rewards.classifier import ClassifierReward, SuccessClassifier
from policysmith.training.learners.asynchronous import Beside, asynchronous_run
from policysmith.training.learners.classifiers import demonstrated_classifier, with_vice
from policysmith.training.learners.off_policy import off_policy_run
from policysmith.training.learners.reset_free import Way, reset_free_run
from policysmith.training.learners.rlpd import (
    RlpdLearners,
    RlpdSettings,
    check_demonstrations,
    check_shown,
    with_demonstrations,
)
from policysmith.training.loop import Progress, RunState

Reward = Literal["environment", "classifier", "vice"]


@dataclass(frozen=True)
class Config(RlpdSettings):
    """The state-based defaults of SERL's code (utils/launcher.py, agents/continuous/sac.py, examples).

    Ten critics, subsets of two, two layers of 256 under LayerNorm and tanh, Adam 3e-4 with 2,000 steps of
    warm-up, targets by 0.005, temperature from 0.01 towards an entropy of minus half the action's dimension
    (`target_entropy` None), no entropy in the target, batches of 256, 8 critic updates per step, 300 random
    steps. Its pixel agents have a discount of 0.96 and 4 updates. See `RlpdSettings` for each setting.

    - `reward`: the environment's own; a `classifier`'s, trained on the demonstrations' frames, success
      against the others, for `classifier_steps`; or that of `vice`, trained every `classifier_every` steps.
    - `asynchronous`: the actor does not wait for the learner, see `beside`; the run then takes
      `beside.learner_steps`, and is not repeated to the same numbers.
    """

    hidden: tuple[int, ...] = (256, 256)
    activation: str = "tanh"
    layer_norm: bool = True
    members: int = 10
    subset: int = 2
    initial_temperature: float = 0.01
    backup_entropy: bool = False
    random_steps: int = 300
    updates: int = 8
    policy_every: int = 8
    warmup_steps: int = 2000
    reward: Reward = "environment"
    classifier_steps: int = 100
    classifier_rate: float = 1e-4
    classifier_every: int = 30
    asynchronous: bool = False
    beside: Beside = field(default_factory=Beside)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reward not in get_args(Reward):
            raise SettingError(f"the reward '{self.reward}'", expected=", ".join(get_args(Reward)))
        if self.classifier_steps < 1 or self.classifier_every < 1 or not self.classifier_rate > 0:
            raise SettingError(
                f"a classifier trained for {self.classifier_steps} steps, or every {self.classifier_every}, "
                f"at a rate of {self.classifier_rate}",
                expected="at least 1, and a rate above 0",
            )

    @property
    def steps(self) -> int:
        """Steps of the run: the environment's, or the learner's where it does not wait."""
        return self.beside.learner_steps if self.asynchronous else super().steps


BENCH = Config(
    environment_steps=2000,
    hidden=(64, 64),
    batch_size=64,
    updates=4,
    policy_every=4,
    warmup_steps=0,
    discount=0.97,
    learning_rate=1e-3,
    critic_learning_rate=1e-3,
    temperature_learning_rate=1e-3,
    normalise=True,
)
PRESETS = {
    "paper": Config(),
    "bench": BENCH,
    "tiny": Config(
        environment_steps=24,
        random_steps=8,
        hidden=(8,),
        batch_size=4,
        members=3,
        updates=2,
        policy_every=2,
        warmup_steps=4,
        replay_capacity=100,
        normalise=True,
    ),
}
"""The paper's, a laptop's (a drawer at 20 decisions per second in minutes), and a test's."""


def train(
    environment: str | Maker | gymnasium.Env,
    demonstrations: Episodes | None = None,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn to act in `environment` from `demonstrations` in it and from what is tried.

    The environment is a name, a function that makes one, or an environment; without demonstrations
    `demonstration_share` has to be 0. The policy so far is `progress.state.policy()`; it acts without noise.
    """
    seen = None if demonstrations is None else demonstrations.steps["observation"]
    classifier = None
    if config.reward != "environment":
        classifier = demonstrated_classifier(
            demonstrations,
            goes_on=config.reward == "vice",
            steps=config.classifier_steps,
            learning_rate=config.classifier_rate,
            seed=seed,
        )
    paid = None
    if classifier is not None and config.reward == "classifier":
        paid = partial(ClassifierReward, classifier=classifier)
    interaction = Interaction.of(
        environment if paid is None else _paying(environment, config, paid),
        config.environments,
        seed=seed,
        processes=config.processes,
    )
    if seen is not None:
        check_shown(seen, interaction.observation_space)
    agent = RlpdLearners(
        interaction.observation_space,
        interaction.action_space,
        with_target_entropy(config, interaction.action_space.size),
        seed=seed,
        demonstrations=seen,
    )
    shown = None
    if demonstrations is not None:
        space = interaction.action_space
        check_demonstrations(demonstrations, low=space.low, high=space.high)
        shown = _demonstrated(demonstrations, config, classifier)
    store = config.replay()
    source = with_demonstrations(store, shown, config.demonstration_share)
    arguments = agent.run_arguments() | {
        "interaction": interaction,
        "settings": config,
        "store": store,
        "source": source,
        "seed": seed,
        "state": state,
    }
    if config.reward == "vice":
        assert classifier is not None
        assert demonstrations is not None
        arguments |= with_vice(
            arguments,
            classifier,
            demonstrations,
            every=config.classifier_every,
            rows=config.batch_size,
            learning_rate=config.classifier_rate,
            seed=seed,
        )
    if config.asynchronous:
        return asynchronous_run(beside=config.beside, **arguments)
    return off_policy_run(**arguments)


def train_reset_free(
    environment: str | Maker | gymnasium.Env,
    forward: Way,
    backward: Way,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn to do a task and to undo it, in turns and without resets; see `training.learners.reset_free`.

    The policy that does it is `progress.state.policy()`, the one that undoes it
    `progress.state.learners["backward_policy"].acting()`.
    """
    interaction = Interaction.of(environment, 1, seed=seed, processes=config.processes)
    settings = with_target_entropy(config, interaction.action_space.size)
    return reset_free_run(interaction, (forward, backward), settings=settings, seed=seed, state=state)


def with_target_entropy(config: Config, dimensions: int) -> Config:
    """The settings with the entropy that is aimed at: minus half the action's dimension by default."""
    return config if config.target_entropy is not None else replace(config, target_entropy=-dimensions / 2)


def _paying(
    environment: str | Maker | gymnasium.Env, config: Config, paid: Callable[[gymnasium.Env], gymnasium.Env]
) -> Maker:
    maker = makers_of(environment, config.environments, config.processes > 0)[0]
    return partial(_made_paying, maker, paid)


def _made_paying(make: Maker, paid: Callable[[gymnasium.Env], gymnasium.Env]) -> gymnasium.Env:
    return paid(make())


def _demonstrated(episodes: Episodes, config: Config, classifier: SuccessClassifier | None) -> Replay:
    """The demonstrations as a replay, paid and ended by the classifier where its word is the reward."""
    rows = transitions_of(episodes)
    if config.reward == "classifier":
        assert classifier is not None
        said = classifier.says(rows["next_observation"])
        rows |= {"reward": said.float(), "terminated": said}
    replay = Replay(len(rows["reward"]), n_step=config.n_step, discount=config.discount)
    replay.extend(rows)
    return replay
