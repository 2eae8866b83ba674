"""Meta-World's suites: which tasks are learnt, which are tested, and where everything stands in each.

    suite = make_suite("MT10", seed=0)
    environment = suite.environment("reach-v3", one_hot=True)
    environment.reset(options={"goal": 3})       # the fourth of its fifty goals
    environment.reset(seed=7)                    # one of the fifty, drawn from the seed

A goal is a *placement*: where the object and the target stand, three or six numbers from the task's own box.
The multi-task suites (MT) show it and test on the goals they train on; the meta-learning suites (ML) hide it
and test on others: on other goals of the same task (ML1), or on tasks that training never saw (ML10, ML45).
The placements are those of the package's own suite of the same name and seed, number for number.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float

from policysmith.common.errors import DataError, SettingError, UnknownNameError
from policysmith.worlds.metaworld import MetaWorldTask, RewardVersion, task_names
from policysmith.worlds.trials import Feedback

GOALS, TEST_GOALS = 50, 40
"""Goals drawn per task, and how many of a test task's the meta-learning protocol plays."""

OBSERVATION, FEEDBACK = 39, 6
"""Width of a task's observation, and of what `Feedback` adds to it."""

Split = Literal["train", "test"]


def _names(words: str) -> tuple[str, ...]:
    return tuple(f"{word}-v3" for word in words.split())


MT10 = _names(
    "reach push pick-place door-open drawer-open drawer-close button-press-topdown peg-insert-side "
    "window-open window-close"
)
MT25 = MT10 + _names(
    "coffee-pull pick-out-of-hole disassemble pick-place-wall basketball stick-pull button-press-wall "
    "faucet-open door-lock lever-pull sweep-into faucet-close coffee-button button-press-topdown-wall "
    "dial-turn"
)
MT50 = _names(
    "assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press "
    "button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock "
    "door-open door-unlock hand-insert drawer-close drawer-open faucet-open faucet-close hammer "
    "handle-press-side handle-press handle-pull-side handle-pull lever-pull pick-place-wall "
    "pick-out-of-hole pick-place plate-slide plate-slide-side plate-slide-back plate-slide-back-side "
    "peg-insert-side peg-unplug-side soccer stick-push stick-pull push push-wall push-back reach "
    "reach-wall shelf-place sweep-into sweep window-open window-close"
)
ML10 = (
    _names(
        "reach push pick-place door-open drawer-close button-press-topdown peg-insert-side window-open "
        "sweep basketball"
    ),
    _names("drawer-open door-close shelf-place sweep-into lever-pull"),
)
ML45 = (
    _names(
        "assembly basketball button-press-topdown button-press-topdown-wall button-press button-press-wall "
        "coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-open drawer-close "
        "drawer-open faucet-open faucet-close hammer handle-press-side handle-press handle-pull-side "
        "handle-pull lever-pull pick-place-wall pick-out-of-hole push-back pick-place plate-slide "
        "plate-slide-side plate-slide-back plate-slide-back-side peg-insert-side peg-unplug-side soccer "
        "stick-push stick-pull push-wall push reach-wall reach shelf-place sweep-into sweep window-open "
        "window-close"
    ),
    _names("bin-picking box-close hand-insert door-lock door-unlock"),
)
SUITES = ("MT1", "MT10", "MT25", "MT50", "ML1", "ML10", "ML45")
"""Every suite; the order of a suite's tasks is part of it (it numbers them, and goals are drawn in it)."""


@dataclass(frozen=True, eq=False)
class SuiteTask:
    """A task of a suite, and its goals: `placements` [goal, 3 or 6]."""

    name: str
    placements: Float[np.ndarray, "goal number"]


@dataclass(frozen=True, eq=False)
class Suite:
    """Tasks to train on and to test on, with their goals; see `make_suite`.

    `multi_task` suites show the goal and test on their training goals. The goals of a split are drawn when
    they are first asked for.
    """

    name: str
    train_names: tuple[str, ...]
    test_names: tuple[str, ...]
    multi_task: bool
    seed: int = 0
    goals: int = GOALS
    horizon: int = 500
    reward_version: RewardVersion = "v2"

    @cached_property
    def train(self) -> tuple[SuiteTask, ...]:
        """The training tasks."""
        return draw_tasks(self.train_names, seed=self.seed, goals=self.goals)

    @cached_property
    def test(self) -> tuple[SuiteTask, ...]:
        """The test tasks: the training tasks of a multi-task suite, held-out goals or tasks of another."""
        if self.multi_task:
            return self.train
        # A test on the training task itself needs goals that training has not seen.
        held_out = self.seed if self.test_names != self.train_names else self.seed + 1
        return draw_tasks(self.test_names, seed=held_out, goals=self.goals)

    def names(self, split: Split) -> tuple[str, ...]:
        """The names of a split's tasks."""
        return self.train_names if split == "train" else self.test_names

    def tasks(self, split: Split) -> tuple[SuiteTask, ...]:
        """The tasks of a split."""
        return self.train if split == "train" else self.test

    def environment(
        self, task: str, *, split: Split = "train", one_hot: bool = False, feedback: bool = False
    ) -> gymnasium.Env:
        """One task, whose episodes start from its goals in this suite; see `GoalChoice`.

        `one_hot` appends the task's number in the split, `feedback` what the last action led to. Raises
        `UnknownNameError` for a task that the split does not have.
        """
        names = self.names(split)
        if task not in names:
            raise UnknownNameError(f"{self.name} has no task '{task}' to {split}", expected=", ".join(names))
        number = names.index(task)
        environment: gymnasium.Env = MetaWorldTask(
            task, horizon=self.horizon, goal_visible=self.multi_task, reward_version=self.reward_version
        )
        environment = GoalChoice(environment, self.tasks(split)[number].placements)
        if one_hot:
            environment = OneHot(environment, number, len(names))
        return Feedback(environment) if feedback else environment

    def rounds(self, split: Split, *, batch: int, goals: int) -> list[list[tuple[str, int]]]:
        """The first `goals` goals of every task, dealt into rounds of `batch` (task, goal) pairs.

        Every round has equally many of every task. Raises `SettingError` where `batch` does not allow that,
        or where there are not so many goals.
        """
        names = self.names(split)
        if batch < 1 or batch % len(names):
            raise SettingError(
                f"a meta batch of {batch} for {len(names)} tasks",
                expected=f"a multiple of {len(names)}, so that every task has equally many in it",
            )
        check_goals(goals, self)
        each = batch // len(names)
        return [
            [(name, goal) for name in names for goal in range(first, min(first + each, goals))]
            for first in range(0, goals, each)
        ]


def make_suite(
    name: str,
    seed: int = 0,
    *,
    task: str = "",
    goals: int = GOALS,
    horizon: int = 500,
    reward_version: RewardVersion = "v2",
) -> Suite:
    """The suite called `name` (one of `SUITES`); MT1 and ML1 are suites of one `task`.

    Placements are drawn from `seed`: with 50 `goals` they are those of the package's `MT10(seed=seed)` and so
    on. ML1 tests on goals drawn from `seed` + 1. Raises `UnknownNameError` for a suite or task that there is
    not, `SettingError` where the task is missing or superfluous.
    Source: Yu et al. 2019, section 4, and version 3 of the package.
    """
    if name not in SUITES:
        raise UnknownNameError(f"Meta-World has no suite '{name}'", expected=", ".join(SUITES))
    if (name in ("MT1", "ML1")) != bool(task):
        which = "is a suite of one task" if not task else "has tasks of its own"
        raise SettingError(f"{name} {which}", cure="name a task for MT1 and ML1, and for no other suite")
    _check_names([task] if task else [])
    train, test = {
        "MT1": ((task,), (task,)),
        "MT10": (MT10, MT10),
        "MT25": (MT25, MT25),
        "MT50": (MT50, MT50),
        "ML1": ((task,), (task,)),
        "ML10": ML10,
        "ML45": ML45,
    }[name]
    title = f"{name} {task}" if task else name
    return Suite(title, train, test, name.startswith("MT"), seed, goals, horizon, reward_version)


def custom_suite(
    train: Sequence[str],
    test: Sequence[str],
    seed: int = 0,
    *,
    goals: int = GOALS,
    horizon: int = 500,
    reward_version: RewardVersion = "v2",
) -> Suite:
    """A meta-learning suite of your own tasks.

    Raises `SettingError` where a task is in both splits, or twice in one.
    """
    both = sorted(set(train) & set(test))
    if both:
        raise SettingError(
            f"trained and tested on: {', '.join(both)}", expected="test tasks that training never saw"
        )
    for names in (train, test):
        if not names or len(set(names)) != len(names):
            raise SettingError(f"the tasks {list(names)}", expected="at least one task, each named once")
    _check_names([*train, *test])
    return Suite("custom", tuple(train), tuple(test), False, seed, goals, horizon, reward_version)


def multi_task_suite(
    tasks: Sequence[str],
    seed: int = 0,
    *,
    goals: int = GOALS,
    horizon: int = 500,
    reward_version: RewardVersion = "v2",
) -> Suite:
    """A multi-task suite of chosen tasks, which shows the goals and tests on those of training.

    Raises `SettingError` for no tasks or one named twice, `UnknownNameError` for one that there is not.
    """
    if not tasks or len(set(tasks)) != len(tasks):
        raise SettingError(f"the tasks {list(tasks)}", expected="at least one task, each named once")
    _check_names(tasks)
    return Suite("custom", tuple(tasks), tuple(tasks), True, seed, goals, horizon, reward_version)


def draw_tasks(names: Sequence[str], *, seed: int, goals: int = GOALS) -> tuple[SuiteTask, ...]:
    """`goals` distinct placements for each task, drawn task after task as the package draws them.

    It seeds NumPy's legacy generator once, and resets twice for every goal, so that the second of every two
    draws counts. Raises `DataError` where a placement is drawn twice.
    """
    rng = np.random.RandomState(seed)
    tasks = []
    for name in names:
        environment = MetaWorldTask(name)
        drawn = [[environment.draw_placement(rng) for _ in range(2)][1] for _ in range(goals)]
        if len(np.unique(drawn, axis=0)) != goals:
            raise DataError(f"seed {seed} draws a goal of '{name}' twice", cure="choose another seed")
        tasks.append(SuiteTask(name, np.stack(drawn)))
    return tuple(tasks)


def check_goals(goals: int, suite: Suite) -> None:
    """Raise `SettingError` where `suite` has not so many goals per task."""
    if not 1 <= goals <= suite.goals:
        raise SettingError(f"{goals} goals per task", expected=f"1 to {suite.goals}", where=suite.name)


# ---- what is added to a task ---------------------------------------------------------------------------


class GoalChoice(gymnasium.Wrapper):
    """A task that starts from given placements [goal, number] only.

    `reset(options={"goal": i})` chooses the i-th, `reset(seed=s)` draws one from `s`, and `reset()` from the
    generator of the last seed. `info["goal"]` says which it was.
    """

    def __init__(self, env: gymnasium.Env, placements: Float[np.ndarray, "goal number"]) -> None:
        super().__init__(env)
        self.placements = placements
        self._rng = np.random.default_rng(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode from the goal that was chosen or drawn."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        goal = (options or {}).get("goal")
        if goal is None:
            goal = int(self._rng.integers(len(self.placements)))
        if not 0 <= goal < len(self.placements):
            raise SettingError(f"there is no goal {goal}", expected=f"0 to {len(self.placements) - 1}")
        observation, info = self.env.reset(seed=seed, options={"placement": self.placements[goal]})
        return observation, info | {"goal": goal}


class OneHot(gymnasium.ObservationWrapper):
    """The observation with the number of the task, of `count`, as a one-hot vector behind it."""

    def __init__(self, env: gymnasium.Env, number: int, count: int) -> None:
        super().__init__(env)
        space: Box = env.observation_space  # type: ignore[assignment]
        self._one_hot = np.eye(count, dtype=np.float32)[number]
        self.observation_space = Box(
            np.concatenate([space.low, np.zeros(count, np.float32)]),
            np.concatenate([space.high, np.ones(count, np.float32)]),
        )

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """The observation and the task's number."""
        return np.concatenate([observation, self._one_hot])


def _check_names(names: Sequence[str]) -> None:
    known = task_names()
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=4) or known
            raise UnknownNameError(f"Meta-World has no task '{name}'", expected=", ".join(near))
