"""MinAtar: five small arcade games on a grid of ten by ten, as ordinary Gymnasium environments.

The package keeps a game's generator between episodes, its sticky action too, and shows planes of booleans.
Here `reset(seed=s)` determines the episode, and an observation is one float vector, [10 x 10 x planes] row by
row, whose space says what planes it holds, so that a policy can read it as either. Source: Young and Tian
2019, MinAtar (1903.03176).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete

from policysmith.common.errors import SettingError, UnknownNameError
from policysmith.common.extras import require
from policysmith.common.spaces import Planes
from policysmith.worlds.cameras import CAMERA

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space-invaders")
"""The games by our names."""
SIDE = 10
"""Rows and columns of every game's grid."""
PICTURE_SIZE = 160
"""Side of the picture in pixels."""
COLOURS = (
    (230, 80, 60), (70, 130, 220), (90, 180, 90), (240, 190, 60), (160, 100, 200),
    (80, 200, 200), (240, 140, 190), (150, 150, 150), (200, 230, 120), (250, 250, 250),
)  # fmt: skip
"""Of the planes in their order, on black; where planes overlap, the last one is seen."""


class MinAtarGame(gymnasium.Env):
    """One of the games.

    Observation: float32 [100 * planes], 0 or 1, of a `Planes` space [row, column, plane]. Action: an index
    of `actions`, the moves that do something in this game (all six with `all_actions`). With probability
    `sticky` the last action is repeated instead; the games get harder over time where `ramping`. Episodes
    end as the game does, and after `horizon` steps as a truncation where one is given.

    Raises `UnknownNameError` for another game, `SettingError` for a probability or a horizon that is none.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(
        self,
        *,
        game: str,
        sticky: float = 0.1,
        ramping: bool = True,
        all_actions: bool = False,
        horizon: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if game not in GAMES:
            raise UnknownNameError(f"MinAtar has no game '{game}'", expected=", ".join(GAMES))
        if not 0 <= sticky < 1:
            raise SettingError(f"sticky is {sticky}", expected="a probability below 1")
        if horizon is not None and horizon < 1:
            raise SettingError(f"horizon is {horizon}", expected="1 or more steps")
        package = require("minatar", extra="minatar")
        self._game = package.Environment(
            game.replace("-", "_"), sticky_action_prob=sticky, difficulty_ramping=ramping
        )
        self.actions: list[int] = list(range(6)) if all_actions else self._game.minimal_action_set()
        self.horizon = horizon
        self.render_mode = render_mode
        self.observation_space = Planes(0.0, 1.0, (SIDE, SIDE, self._game.n_channels))
        self.action_space = Discrete(len(self.actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the episode that `seed` determines, or the next one of this environment's generator."""
        super().reset(seed=seed)
        self._game.seed(int(self.np_random.integers(2**31)))
        self._game.last_action = 0  # the package would repeat the last episode's
        self._game.reset()
        self._steps = 0
        return self._observation(), {}

    def step(self, action: int | np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Play the action with that index for one frame."""
        reward, terminated = self._game.act(self.actions[int(action)])
        self._steps += 1
        cut = self.horizon is not None and self._steps >= self.horizon
        return self._observation(), float(reward), bool(terminated), cut and not terminated, {}

    def render(self) -> np.ndarray | None:
        """The grid in colours; uint8 [160, 160, 3]. None without `render_mode="rgb_array"`."""
        return self.picture(CAMERA, PICTURE_SIZE, PICTURE_SIZE) if self.render_mode == "rgb_array" else None

    def picture(self, camera: str, height: int, width: int) -> np.ndarray:
        """The grid in colours; uint8 [height, width, 3]. The only camera is "camera"."""
        if camera != CAMERA:
            raise UnknownNameError(f"the world has no camera '{camera}'", expected=f"'{CAMERA}'")
        planes = self._game.state()
        colours = np.array([(0, 0, 0), *COLOURS], dtype=np.uint8)
        grid = colours[(planes * np.arange(1, planes.shape[2] + 1)).max(axis=2)]
        rows, columns = (np.arange(size) * SIDE // size for size in (height, width))
        return grid[rows[:, None], columns]

    def _observation(self) -> np.ndarray:
        return self._game.state().astype(np.float32).reshape(-1)
