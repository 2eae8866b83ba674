"""Pictures as parts of the observation: what a robot sees in place of what a simulator knows.

An environment that can draw gets a part per camera. Its vector shrinks to what a robot knows of itself (the
environment's `proprioception`: where its hand is, not where the objects are), so that the rest has to be read
from the pictures. Experts go on acting on the whole vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from PIL import Image

from policysmith.common.errors import SettingError, UnknownNameError
from policysmith.common.observations import STATE, parts_of

CAMERA = "camera"
"""What the view of an environment with a single view is called."""

SMALLEST = 8
"""The least side of a picture in pixels; below it nothing can be recognised, and drivers refuse."""

Draw = Callable[[str, int, int], np.ndarray]
"""(camera, height, width) -> uint8 [height, width, 3]."""


class WithCameras(gymnasium.ObservationWrapper):
    """Adds a picture per entry of `pictures`, camera -> (height, width), to the observation.

    Of a camera with the size (frames, height, width) the last so many pictures are shown, the newest last; an
    episode begins with copies of its first.

    An environment with a method `picture(camera, height, width)` is asked for each; any other must have been
    made with `render_mode="rgb_array"`, has the one camera "camera", and is drawn by `render`, brought to the
    size. Where an environment says which dimensions of its vector are its own body's (`proprioception`, a
    tuple of numbers), the part `state` holds those alone; where there are none, pictures are all it shows.

    `whole` is the newest observation of the environment without cameras. Raises `UnknownNameError` for a
    camera that there is not, and `SettingError` for pictures too small to see anything.
    """

    def __init__(self, env: gymnasium.Env, pictures: Mapping[str, Sequence[int]]) -> None:
        super().__init__(env)
        self.pictures = {camera: tuple(map(int, size)) for camera, size in pictures.items()}
        for camera, size in self.pictures.items():
            if len(size) not in (2, 3) or min(size) < 1:
                raise SettingError(
                    f"pictures of the size {list(size)} from '{camera}'",
                    expected="height and width, or frames, height and width",
                )
            if min(size[-2:]) < SMALLEST:
                raise SettingError(
                    f"pictures of {size[-2]} x {size[-1]} pixels from '{camera}'",
                    expected=f"at least {SMALLEST} x {SMALLEST}",
                )
        self.whole: Any = None
        self._shown: dict[str, np.ndarray] = {}
        self._draw: Draw = getattr(env.unwrapped, "picture", None) or _Rendering(env, self.pictures)
        self._own = _own_dimensions(env)
        vectors = parts_of(env.observation_space)
        if self._own is not None:
            vectors = {STATE: _chosen(vectors[STATE], self._own)} if self._own else {}
        views = {name: Box(0, 255, (*size, 3), np.uint8) for name, size in self.pictures.items()}
        self.observation_space = Dict({**vectors, **views})

    def reset(self, **kwargs: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode, which shows nothing of the one before."""
        self._shown = {}
        return super().reset(**kwargs)

    def observation(self, observation: Any) -> dict[str, np.ndarray]:
        """The parts of one observation, drawn now."""
        self.whole = observation
        seen = dict(parts_of(observation))
        if self._own:
            seen[STATE] = seen[STATE][self._own]
        elif self._own is not None:
            del seen[STATE]
        self._shown = {name: self._view(name, size) for name, size in self.pictures.items()}
        return seen | self._shown

    def _view(self, name: str, size: tuple[int, ...]) -> np.ndarray:
        picture = self._draw(name, size[-2], size[-1])
        if len(size) == 2:
            return picture
        before = self._shown.get(name)
        # A new array, for whoever keeps the last one.
        return np.stack([picture] * size[0] if before is None else [*before[1:], picture])


class SeesWhole:
    """An expert that is shown the environment's whole observation, whatever the policy is to see."""

    def __init__(self, expert: Any, cameras: WithCameras) -> None:
        self._expert, self._cameras = expert, cameras

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode."""
        self._expert.reset(seed)

    def act(self, observation: Any) -> np.ndarray:
        """The expert's action; `observation` is what the policy would see of the same moment."""
        return self._expert.act(self._cameras.whole)


def cameras_of(env: gymnasium.Env) -> WithCameras | None:
    """The wrapper that adds pictures to `env`; None where there is none."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, WithCameras):
            return env
        env = env.env
    return None


def _own_dimensions(env: gymnasium.Env) -> list[int] | None:
    """The dimensions to keep; None for all, as where the observation has parts already."""
    own = getattr(env.unwrapped, "proprioception", None)
    return None if own is None or isinstance(env.observation_space, Dict) else list(own)


def _chosen(space: Box, dimensions: list[int]) -> Box:
    return Box(space.low[dimensions], space.high[dimensions], dtype=space.dtype.type)  # type: ignore[arg-type]


class _Rendering:
    """Draws by `render`, whose size is the environment's own choice."""

    def __init__(self, env: gymnasium.Env, pictures: Mapping[str, Sequence[int]]) -> None:
        self._env = env
        for camera in pictures:
            if camera != CAMERA:
                raise UnknownNameError(
                    f"the environment has no camera '{camera}'",
                    where=str(env.spec.id if env.spec else env.unwrapped),
                    expected=f"'{CAMERA}', its one view",
                )

    def __call__(self, camera: str, height: int, width: int) -> np.ndarray:
        picture = np.asarray(self._env.render(), dtype=np.uint8)
        if picture.shape[:2] == (height, width):
            return picture
        # Averages over the pixels that become one, so that small things do not vanish.
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
