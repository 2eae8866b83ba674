"""What a trained policy is most easily upset by: its scores, the states it meets, and those states moved.

The mathematics is in `objectives.decisions`, `objectives.directions` and `objectives.attacks`, the shifts in
`experience.shifts`; here they meet policies and environments. Whether a direction means anything is checked
by playing with it: moved along it, a policy should change more decisions than moved as far at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.observations import STATE
from policysmith.experience import shifts
from policysmith.experience.environments import InThisProcess, Maker
from policysmith.experience.interaction import Interaction
from policysmith.objectives import attacks
from policysmith.objectives.decisions import Scores, greedy
from policysmith.policies.actors import NetworkPolicy
from policysmith.policies.heads import CategoricalHead, GreedyHead

KINDS = "a policy of one discrete action by Q values (DQN) or logits (a categorical actor), without a memory"


def scores_of(policy: Any) -> Scores:
    """The function from observations to the score of each action by which `policy` decides.

    Q values of a greedy policy, log-probabilities of a categorical one (logits up to a constant, which a
    softmax does not see). A function of that kind is returned as it is. Raises `CapabilityError` (a
    `TypeError`) for other kinds: continuous or several actions, memories, observations that are no vector.
    """
    if not isinstance(policy, NetworkPolicy):
        if callable(policy) and not isinstance(policy, torch.nn.Module):
            return policy  # type: ignore[return-value]
        raise CapabilityError(
            f"a {type(policy).__name__} has no scores of actions", expected=KINDS,
            cure="give the function from states [row, ...] to scores [row, action] itself",
        )  # fmt: skip
    head = policy.head
    if not isinstance(head, CategoricalHead | GreedyHead) or len(head.choices) != 1:
        raise CapabilityError(
            f"the policy acts by a {type(head).__name__} of {policy.action_size} numbers", expected=KINDS
        )
    if policy.memory_size or list(policy.parts) != [STATE]:
        seen = "a memory" if policy.memory_size else f"the parts {', '.join(policy.parts)}"
        raise CapabilityError(f"the policy reads {seen}", expected=f"{KINDS}, reading one vector")
    still = deepcopy(policy).eval().requires_grad_(False)

    def scores(states: Tensor) -> Tensor:
        found = still.distribution(states.flatten(1))
        return found.values if isinstance(head, GreedyHead) else found.log_p[:, 0]  # type: ignore[attr-defined]

    return scores


class Played(NamedTuple):
    """Episodes of a greedy policy: the states in which it decided, and the returns."""

    states: list[Float[Tensor, "step observation"]]
    returns: list[float]


def greedy_episodes(
    scores: Scores, make: Maker, *, episodes: int, seed: int, limit: int | None = None
) -> Played:
    """Episodes that the greedy policy of `scores` plays, whatever the reward.

    They are played side by side, each in an environment of its own, from seeds derived from `seed`; `limit`
    cuts them.
    """
    if episodes < 1:
        raise SettingError(f"{episodes} episodes", expected="1 or more")
    interaction = Interaction(InThisProcess([make] * episodes), seed=seed)
    interaction.start()
    seen: list[list[Tensor]] = [[] for _ in range(episodes)]
    returns = [0.0] * episodes
    playing = set(range(episodes))
    while playing and (limit is None or len(seen[min(playing)]) < limit):
        states = interaction.tensors
        assert isinstance(states, Tensor)
        step = interaction.step(greedy(scores, states)[:, None].numpy())
        for row in playing:
            seen[row].append(states[row])
            returns[row] += float(step.reward[row].sum())
        playing -= set(step.ended.nonzero()[0].tolist())
    interaction.close()
    return Played([torch.stack(one) for one in seen], returns)


def changed_decisions(
    scores: Scores, states: Float[Tensor, "row *shape"], moved: Float[Tensor, "row *shape"]
) -> float:
    """The share of states whose greedy decision is another where they were moved to."""
    return float((greedy(scores, states) != greedy(scores, moved)).float().mean())


def changed_along(
    scores: Scores, states: Float[Tensor, "row *shape"], direction: Float[Tensor, "*shape"], *, size: float
) -> float:
    """The share of decisions that change where all states move by `size` along a unit direction.

    The mean of both ways, since a direction has no sign.
    """
    step = (size * direction).to(states.dtype)
    return (
        changed_decisions(scores, states, states + step) + changed_decisions(scores, states, states - step)
    ) / 2


def changed_at_random(
    scores: Scores,
    states: Float[Tensor, "row *shape"],
    *,
    size: float,
    draws: int,
    rng: torch.Generator,
) -> float:
    """The same for random directions: uniform on the sphere, one for all states, the mean of `draws`."""
    total = 0.0
    for _ in range(draws):
        direction = torch.randn(states.shape[1:], generator=rng, dtype=states.dtype)
        total += changed_along(scores, states, direction / direction.norm(), size=size)
    return total / draws


# ---- states moved ------------------------------------------------------------------------------------

SHIFTS = ("translation", "rotation", "perspective", "blur", "compression", "brightness and contrast")
"""Shifts of planes; see `moved` for their sizes."""
ATTACKS = ("gradient sign", "nesterov", "carlini-wagner", "deepfool", "elastic net")
"""Attacks on the decision; the first two are bounded, the others move as little as they can."""


def moves_for(planes: Sequence[int], names: Sequence[str] = ()) -> list[str]:
    """The ways among `names` to move states of these planes, () for vectors; all that there are by default.

    `SettingError` for a name that there is not, or not for vectors.
    """
    there = (*SHIFTS, *ATTACKS) if planes else ATTACKS
    for name in names:
        if name not in there:
            shift = name in SHIFTS
            raise SettingError(
                f"vectors are not moved by '{name}'" if shift else f"states are not moved by '{name}'",
                expected=", ".join(there),
                cure="say the shape of the planes that a state holds" if shift else "",
            )
    return list(names or there)


def moved(
    name: str,
    scores: Scores,
    states: Float[Tensor, "row state"],
    *,
    planes: Sequence[int] = (),
    size: float = 0.05,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Tensor, "row state"]:
    """States moved in the way called `name`.

    Shifts read a state as `planes` [height, width, plane] and are: one cell to the right; five degrees; a top
    edge a tenth shorter; a blur of half a pixel; JPEG at quality 25; contrast 0.8 and brightness 0.1 of the
    range. Bounded attacks move every number by `size` of the range at most. Values stay in [low, high].
    """
    moves_for(planes, [name])
    span = high - low
    within: Any = {"low": low, "high": high}
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "translation": shifts.translate,
        "rotation": lambda s: shifts.rotate(s, degrees=5.0),
        "perspective": lambda s: shifts.perspective(s, tilt=0.1),
        "blur": lambda s: shifts.blur(s, sigma=0.5),
        "compression": lambda s: shifts.compress(s, quality=25, **within),
        "brightness and contrast": lambda s: shifts.brightness_contrast(
            s, contrast=0.8, brightness=0.1 * span, **within
        ),
        "gradient sign": lambda s: attacks.gradient_sign(scores, s, size=size * span, **within),
        "nesterov": lambda s: attacks.nesterov(scores, s, size=size * span, **within),
        "carlini-wagner": lambda s: attacks.carlini_wagner(scores, s, **within),
        "deepfool": lambda s: attacks.deepfool(scores, s, **within),
        "elastic net": lambda s: attacks.elastic_net(scores, s, **within),
    }
    if name in ATTACKS:
        return ways[name](states)
    return ways[name](states.view(len(states), *planes)).reshape(states.shape)
