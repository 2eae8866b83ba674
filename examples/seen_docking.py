"""The docking cart of docking.py as a camera sees it: the same task, learnt from pictures.

Nothing but `picture` and `proprioception` is new. Where pictures are asked for, the environment shows these
and what the robot knows of itself; this one knows nothing of itself.

    policysmith run sac --env seen_docking:SeenDocking-v0 --pictures 48 --frames 3
"""

from __future__ import annotations

import gymnasium
import numpy as np
from docking import Docking

EDGE = 2.0
"""The camera sees the rail from minus this to this."""
WIDTH = 0.2
"""Half the width of what is drawn."""


class SeenDocking(Docking):
    """Push a cart along a rail until it rests at a mark; both can be seen."""

    proprioception = ()
    """Which numbers of its observation the robot knows without looking: where it is has to be seen."""

    def picture(self, camera: str, height: int, width: int) -> np.ndarray:
        """The cart, red, above the mark, green; edges are soft, so that less than a pixel can be told."""
        rail = np.linspace(-EDGE, EDGE, width)
        picture = np.zeros((height, width, 3), np.uint8)
        for rows, colour, place in (
            (slice(height // 2), 0, self.position),
            (slice(height // 2, None), 1, self.mark),
        ):
            picture[rows, :, colour] = 255 * np.clip(2 - 2 * abs(rail - place) / WIDTH, 0, 1)
        return picture


# Once: a file that runs as a program is imported a second time, by its name.
if "SeenDocking-v0" not in gymnasium.registry:
    gymnasium.register(id="SeenDocking-v0", entry_point="seen_docking:SeenDocking")
