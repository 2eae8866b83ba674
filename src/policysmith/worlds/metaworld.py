"""Meta-World's tabletop tasks as ordinary Gymnasium environments whose episodes a seed determines.

The package draws where the objects and the goal stand (its "random vector") from a global generator, fixes it
outside `reset`, and carries traces of earlier episodes over. Here `reset(seed=s)` draws the vector from `s`
alone, by the task's own rules (its box, its rejections), and starts from a model and a state without history:
the same seed gives the same episode to the last bit, in any instance and after any other episodes. The first
observation is the one that the package itself gives for that vector. `reset(options={"placement": vector})`
starts from a vector that is known already, as the suites' goals are.
"""

from __future__ import annotations

import difflib
import warnings
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box

from policysmith.common.errors import SettingError, UnknownNameError
from policysmith.common.extras import require
from policysmith.worlds.point import check_action
from policysmith.worlds.rendering import OffscreenRenderer, camera_index, configure

RewardVersion = Literal["v1", "v2"]
"""Which reward the tasks pay: v2 is 0 to 10 in every task, v1 reaches thousands; they cannot be compared."""

NOW = 18
"""Width of one moment's observation; the previous moment's follows, then the goal's three numbers."""

OWN = (0, 1, 2, 3)
"""The dimensions that tell of the robot itself: its hand's position and how far the gripper is open."""


def task_names() -> list[str]:
    """The names of all tasks, "assembly-v3" and so on."""
    return sorted(require("metaworld.env_dict", extra="metaworld").ALL_V3_ENVIRONMENTS)


class MetaWorldTask(gymnasium.Env):
    """One Meta-World v3 task.

    `task` is its name ("drawer-open-v3"). Observation: float32 [39], this moment's hand, gripper and objects
    (18), the previous moment's (18), and the goal (3; zeros where not `goal_visible`). Action: float32 [4] in
    [-1, 1], the hand's displacement in centimetres and the gripper's effort. Reward: that of the version, in
    v2 from 0 to 10. `info["success"]` is 1.0 where the task is solved at this very step, else 0.0; the
    protocol counts an episode as solved if any step was.

    Episodes are truncated after `horizon` steps, and with `terminate_on_success` end at the first success.
    `sparse` pays for nothing else: 1.0 at the step that solves the task and so ends the episode, 0.0 at every
    other. An action is held for `hold` of the simulator's steps, 80 of which are a second, and is paid their
    sum; the horizon counts the simulator's steps.

    With `render_mode="rgb_array"`, `render` draws `height` x `width` pixels from `camera` (of the model:
    corner, corner2, corner3, corner4, topview, behindGripper, gripperPOV), with `shadows` where asked for.
    `picture` draws what a policy sees, without any render mode; `proprioception` are the dimensions of the
    observation that remain to it then.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 - Gymnasium's own declaration
    proprioception = OWN

    def __init__(
        self,
        task: str,
        *,
        horizon: int = 500,
        goal_visible: bool = True,
        terminate_on_success: bool = False,
        sparse: bool = False,
        hold: int = 1,
        reward_version: RewardVersion = "v2",
        render_mode: str | None = None,
        camera: str = "corner2",
        width: int = 256,
        height: int = 256,
        shadows: bool = False,
    ) -> None:
        for name, count in (("horizon", horizon), ("hold", hold)):
            if count < 1:
                raise SettingError(f"a {name} of {count} steps", expected="at least 1")
        if reward_version not in get_args(RewardVersion):
            raise SettingError(f"the reward version '{reward_version}'", expected="v2 or v1")
        self._mujoco = require("mujoco", extra="metaworld")
        self._simulator = _simulator(
            task, horizon=horizon, goal_visible=goal_visible, reward_version=reward_version
        )
        self.task = task
        self.goal_visible = goal_visible
        self.reward_version = reward_version
        self.sparse, self.hold = sparse, hold
        self.terminate_on_success = terminate_on_success or sparse
        self.render_mode = render_mode
        space = self._simulator.sawyer_observation_space
        self._low, self._high = space.low, space.high
        self.observation_space = Box(space.low.astype(np.float32), space.high.astype(np.float32))
        self.action_space = Box(-1.0, 1.0, (4,), np.float32)
        self._picture = {"camera": camera, "width": width, "height": height, "shadows": shadows}
        self._renderer: OffscreenRenderer | None = None
        self._cameras: dict[tuple[str, int, int], OffscreenRenderer] = {}
        self._over = True
        if render_mode == "rgb_array":
            camera_index(self._simulator.model, camera)
            configure()
        # What the tasks move in the model at a reset, as the file has it.
        model = self._simulator.model
        moved = (model.body_pos, model.body_quat, model.site_pos)
        self._untouched = [(array, array.copy()) for array in moved]

    @property
    def placement(self) -> np.ndarray:
        """The episode's random vector: where the task's object (and goal) was put; float64 [3] or [6]."""
        return np.array(self._simulator._last_rand_vec)

    @property
    def goal(self) -> np.ndarray:
        """The episode's goal, visible or not; float64 [3]."""
        return np.array(self._simulator._target_pos)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Start from a placement drawn from `seed` (else from the generator of earlier resets).

        `options={"placement": vector}` gives the placement instead; `SettingError` where it is not one.
        """
        super().reset(seed=seed)
        placement = (options or {}).get("placement")
        if placement is None:
            self._arrange(rng=self.np_random)
        else:
            self._arrange(placement=self._checked(placement))
        # Frozen, the vector is used again: objects then stand where the model has them from the beginning.
        simulator = self._simulator
        simulator._freeze_rand_vec = True
        self._mujoco.mj_resetData(simulator.model, simulator.data)
        observation = np.array(simulator.reset_model(), dtype=np.float64)
        observation[NOW : 2 * NOW] = observation[:NOW]
        simulator._prev_obs = observation[:NOW].copy()
        self._over = False
        return self._bounded(observation), {"success": 0.0}

    def draw_placement(self, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
        """A placement drawn from `rng` by the task's own rules, float64 [3] or [6]; no episode goes on."""
        self._over = True
        self._arrange(rng=rng)
        return self.placement

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, float]]:
        """Simulate five MuJoCo steps under `action`, `hold` times; every number in `info` is a float.

        `info` is that of the last of them, but for `success`, which is 1.0 where any of them had it.
        """
        if self._over:
            raise ResetNeeded("the episode is over, or none has begun: call reset() before step()")
        command = check_action(action, size=4)
        paid, success = 0.0, 0.0
        for _ in range(self.hold):
            observation, reward, _, truncated, details = self._simulator.step(command)
            success = max(success, float(details["success"]))
            paid += float(details["success"] if self.sparse else reward)
            terminated = self.terminate_on_success and success > 0
            if truncated or terminated:
                break
        self._over = truncated or terminated
        info = {name: float(value) for name, value in details.items()} | {"success": success}
        return self._bounded(observation), paid, terminated, bool(truncated and not terminated), info

    def render(self) -> np.ndarray | None:
        """The scene from the camera, uint8 [height, width, 3]; None without `render_mode="rgb_array"`."""
        if self.render_mode != "rgb_array":
            return None
        if self._renderer is None:
            self._renderer = OffscreenRenderer(self._simulator.model, **self._picture)
        return self._renderer.render(self._simulator.data)

    def picture(self, camera: str, height: int, width: int) -> np.ndarray:
        """The scene from `camera` as a policy sees it, drawn plainly and fast; uint8 [height, width, 3].

        Raises `UnknownNameError` with the cameras there are, `CapabilityError` where nothing can draw.
        """
        view = (camera, height, width)
        if view not in self._cameras:
            model = self._simulator.model
            camera_index(model, camera)
            configure()
            self._cameras[view] = OffscreenRenderer(
                model, camera=camera, width=width, height=height, plain=True
            )
        return self._cameras[view].render(self._simulator.data)

    def close(self) -> None:
        """Free the renderers; the environment can still be used, and draws again when asked."""
        for renderer in (self._renderer, *self._cameras.values()):
            if renderer is not None:
                renderer.close()
        self._renderer = None
        self._cameras.clear()

    def _arrange(self, *, rng: Any = None, placement: np.ndarray | None = None) -> None:
        """Move the bodies in the model, and nothing else, to `placement` or to one drawn from `rng`."""
        simulator, mujoco = self._simulator, self._mujoco
        self._forget()
        mujoco.mj_resetData(simulator.model, simulator.data)
        mujoco.mj_forward(simulator.model, simulator.data)
        simulator._freeze_rand_vec = placement is not None
        if placement is None:
            simulator.np_random = rng
        else:
            simulator._last_rand_vec = placement
        # The task's own code draws the vector and moves the bodies in the model. It would first bring the
        # hand to its place by 250 simulation steps, which this pass can do without.
        simulator._reset_hand = self._skip_hand
        try:
            simulator.reset_model()
        finally:
            del simulator._reset_hand

    def _checked(self, placement: Any) -> np.ndarray:
        """The placement as numbers; `SettingError` where the task could never have drawn it."""
        box = self._simulator._random_reset_space
        vector = np.array(placement, dtype=np.float64)
        if vector.shape != box.shape or not np.all((box.low <= vector) & (vector <= box.high)):
            raise SettingError(
                f"the placement {vector.tolist()} is not one of '{self.task}'",
                expected=f"{box.shape[0]} numbers between {box.low.tolist()} and {box.high.tolist()}",
            )
        return vector

    def _forget(self) -> None:
        """Undo what earlier episodes left in the model and in the simulator."""
        for array, original in self._untouched:
            array[:] = original
        self._simulator.curr_path_length = 0
        self._simulator._did_see_sim_exception = False
        self._simulator._prev_obs = np.zeros(NOW)

    def _skip_hand(self, steps: int = 0) -> None:
        self._simulator.init_tcp = self._simulator.tcp_center

    def _bounded(self, observation: np.ndarray) -> np.ndarray:
        return np.clip(observation, self._low, self._high).astype(np.float32)


class MetaWorldExpert:
    """The package's scripted controller for the task of `env`, acting within the action space.

    Where the goal is hidden from the observation the expert is told it, so that its demonstrations can teach
    a policy that has to do without.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        policies = require("metaworld.policies", extra="metaworld").ENV_POLICY_MAP
        self._task: MetaWorldTask = env.unwrapped  # type: ignore[assignment]
        self._make = policies[self._task.task]
        self._controller = self._make()

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode with a fresh controller; nothing in it is random."""
        self._controller = self._make()

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The controller's action for the observation [39]: float32 [4] in [-1, 1]."""
        seen = np.asarray(observation, dtype=np.float64)
        if not self._task.goal_visible:
            seen = np.concatenate([seen[:-3], self._task.goal])
        with warnings.catch_warnings():
            # The controllers ask for more than the action space holds, on purpose, and warn of it.
            warnings.simplefilter("ignore")
            action = self._controller.get_action(seen)
        return np.clip(action, -1.0, 1.0).astype(np.float32)


def _simulator(task: str, *, horizon: int, goal_visible: bool, reward_version: str) -> Any:
    """The package's environment of `task`, set up to draw its placement from its own generator."""
    classes = require("metaworld.env_dict", extra="metaworld").ALL_V3_ENVIRONMENTS
    if task not in classes:
        near = difflib.get_close_matches(task, classes, n=4) or sorted(classes)
        raise UnknownNameError(f"Meta-World has no task '{task}'", expected=", ".join(near))
    simulator = classes[task](reward_function_version=reward_version)
    simulator._set_task_called = True
    simulator.seeded_rand_vec = True
    simulator.max_path_length = horizon
    simulator._partially_observable = not goal_visible
    # Cached while the goal was hidden; its bounds would clip every goal to zero.
    simulator.__dict__.pop("sawyer_observation_space", None)
    return simulator
