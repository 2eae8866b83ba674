"""What a policy achieves in each of several objectives: mean discounted returns over fixed episodes.

    G_i = mean over episodes of sum_t discount^t r_{t,i}

The same starts for every policy: a set of policies is compared with itself over and over, and with fresh
episodes each time the lucky ones would be kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium
import numpy as np
from jaxtyping import Float

from policysmith.common.errors import SettingError
from policysmith.common.observations import each_part, stack
from policysmith.common.rng import generator
from policysmith.evaluation.playing import MakeEnvironment, check_spaces
from policysmith.policies.acting import Actor
from policysmith.policies.protocol import Policy


class VectorReturns:
    """Plays one episode per entry of `seeds`, side by side, in environments that are made once.

    `discount` 1 counts every step the same. Episodes end when the environment says so or after `limit` steps.
    `steps` counts the steps of all episodes played so far.
    """

    def __init__(
        self,
        make_environment: MakeEnvironment,
        *,
        seeds: Sequence[int],
        discount: float = 1.0,
        limit: int | None = None,
    ) -> None:
        if not seeds or not 0 < discount <= 1:
            raise SettingError(
                f"{len(seeds)} episodes, discounted by {discount}",
                expected="at least one, a discount above 0 and at most 1",
            )
        self.seeds, self.discount, self.limit = list(seeds), discount, limit
        self.environments: list[gymnasium.Env] = [make_environment() for _ in seeds]
        self.steps = 0

    def __call__(self, policy: Policy, *, seed: int = 0) -> Float[np.ndarray, "episode objective"]:
        """The discounted return of each episode; `seed` starts the policy's own random stream.

        Raises `ShapeError` where policy and environment do not fit.
        """
        check_spaces(policy, self.environments[0])
        count = len(self.seeds)
        actor = Actor(policy, count, rng=generator(seed, "policy"))
        seen = [env.reset(seed=start)[0] for env, start in zip(self.environments, self.seeds, strict=True)]
        low, high = self._limits()
        active, returns, step = np.ones(count, dtype=bool), None, 0
        while active.any() and (self.limit is None or step < self.limit):
            actions = np.clip(actor.act(stack(seen), active), low, high)
            for row in np.flatnonzero(active):
                found, paid, terminated, truncated, _ = self.environments[row].step(actions[row])
                reward = np.asarray(paid, dtype=float)
                # A copy, since environments may go on writing into what they showed.
                seen[row] = each_part(found, np.array)
                if returns is None:
                    returns = np.zeros((count, *reward.shape))
                returns[row] += self.discount**step * reward
                active[row] = not (terminated or truncated)
                self.steps += 1
            step += 1
        assert returns is not None
        return returns

    def close(self) -> None:
        """Close the environments."""
        for environment in self.environments:
            environment.close()

    def _limits(self) -> tuple[np.ndarray, np.ndarray]:
        space = self.environments[0].action_space
        return space.low, space.high  # type: ignore[attr-defined]
