"""What critics are fitted to, how their errors count, and how a policy follows them: values per row.

A critic Q moves towards a target that it says itself, one step on, and a policy imitates the actions of data
in proportion to how much better than expected they were:

    y = r + discount V(s'),    loss = |tau - 1(y < Q)| (y - Q)^2,    weight = exp(beta (Q - V))

with tau = 0.5 for the mean, and no V(s') behind a step that terminated. Nothing here averages over rows; what
is called a target or a weight carries no gradient.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from policysmith.common.errors import SettingError


def td_target(
    reward: Float[Tensor, "row *shape"],
    next_value: Float[Tensor, "row *shape"],
    *,
    terminated: Bool[Tensor, "row"],
    discount: float | Float[Tensor, "row"],
) -> Float[Tensor, "row *shape"]:
    """reward + discount next_value, and the reward alone where `terminated`.

    A `discount` per row is for rows of several steps: the discount to the power of their number. Further axes
    (objectives) are taken as they come.
    """
    behind = (1,) * (reward.dim() - 1)
    discount = torch.as_tensor(discount, dtype=reward.dtype, device=reward.device)
    follows = discount.reshape(discount.shape + behind * discount.dim()) * next_value
    return (reward + torch.where(terminated.reshape(terminated.shape + behind), 0.0, follows)).detach()


def clipped_double_q(
    q: Float[Tensor, "member *shape"], members: Int[Tensor, "subset"] | None = None
) -> Float[Tensor, "*shape"]:
    """The least of an ensemble's opinions, over all `members` or those given, drawn anew at every update.

    Sources: Fujimoto et al. 2018 (TD3), equation 10, for two; Chen et al. 2021 (REDQ), algorithm 1, for a
    random subset of many.
    """
    return (q if members is None else q[members]).amin(0)


def double_q(
    next_q: Float[Tensor, "row choice"], target_next_q: Float[Tensor, "row choice"]
) -> Float[Tensor, "row"]:
    """What the target network says of the action that the network itself would take.

    Source: van Hasselt et al. 2016 (double DQN), equation 4.
    """
    return target_next_q.gather(1, next_q.argmax(1, keepdim=True)).squeeze(1)


def smoothed_action(
    action: Float[Tensor, "row action"],
    noise: Float[Tensor, "row action"],
    *,
    clip: float | Float[Tensor, "action"],
    low: Float[Tensor, "action"] | float,
    high: Float[Tensor, "action"] | float,
) -> Float[Tensor, "row action"]:
    """The action with `noise` that is clipped to +-`clip`, all held within `low` and `high`.

    The target policy's actions are smoothed so, that a critic's narrow peaks do not count.
    Source: Fujimoto et al. 2018 (TD3), section 5.3.
    """
    clip, low, high = (torch.as_tensor(bound, dtype=action.dtype) for bound in (clip, low, high))
    return torch.clamp(action + torch.clamp(noise, -clip, clip), low, high)


def soft_value(
    q: Float[Tensor, "*shape"],
    log_prob: Float[Tensor, "*shape"],
    *,
    temperature: float | Float[Tensor, ""],
) -> Float[Tensor, "*shape"]:
    """Q - temperature log pi of an action drawn from the policy: its value, and the pay for being random.

    Source: Haarnoja et al. 2018 (SAC), equation 3.
    """
    return q - temperature * log_prob


def expectile_loss(error: Float[Tensor, "*shape"], *, expectile: float) -> Float[Tensor, "*shape"]:
    """|expectile - 1(error < 0)| error^2, the error being target - prediction.

    Above 0.5 it is worse to say too little: the prediction moves from the mean of the targets towards their
    maximum; 0.5 is half the squared error. Raises `SettingError` for an `expectile` outside (0, 1).
    Source: Kostrikov et al. 2022 (IQL), equation 5.
    """
    return _asymmetry(error, expectile) * error.square()


def quantile_loss(error: Float[Tensor, "*shape"], *, quantile: float) -> Float[Tensor, "*shape"]:
    """|quantile - 1(error < 0)| |error|, the error being target - prediction: 0.5 finds the median.

    Raises `SettingError` for a `quantile` outside (0, 1). Source: Koenker and Bassett 1978.
    """
    return _asymmetry(error, quantile) * error.abs()


def huber_loss(error: Float[Tensor, "*shape"], *, threshold: float = 1.0) -> Float[Tensor, "*shape"]:
    """Half the squared error up to `threshold`, and a line of that slope beyond.

    Raises `SettingError` where the threshold is not above 0. Source: Huber 1964.
    """
    if not threshold > 0:
        raise SettingError(f"a threshold of {threshold}", expected="above 0")
    size = error.abs()
    near = size.clamp(max=threshold)
    return near * (size - 0.5 * near)


def quantile_huber_loss(
    predicted: Float[Tensor, "row quantile"],
    target: Float[Tensor, "row sample"],
    *,
    threshold: float = 1.0,
) -> Float[Tensor, "row"]:
    """How far N predictions are from the N quantiles (2i + 1) / 2N of the targets.

    |tau_i - 1(u < 0)| Huber(u) / threshold for u = target_j - predicted_i: the sum over the quantiles of the
    mean over the targets. Gradient flows through `predicted` alone.
    Sources: Dabney et al. 2018 (QR-DQN), equation 10 and algorithm 1; the division as in their IQN.
    """
    count = predicted.shape[1]
    fraction = (torch.arange(count, dtype=predicted.dtype, device=predicted.device) + 0.5) / count
    error = target.detach()[:, None, :] - predicted[:, :, None]
    asymmetry = (fraction[:, None] - (error < 0).to(error.dtype)).abs()
    return (asymmetry * huber_loss(error, threshold=threshold) / threshold).mean(2).sum(1)


def conservative_penalty(
    q: Float[Tensor, "*member row sample"],
    log_density: Float[Tensor, "row sample"],
    data_q: Float[Tensor, "*member row"],
) -> Float[Tensor, "*member row"]:
    """log of the integral of exp Q over the actions, less Q of the action in the data.

    `q` is of sampled actions, and `log_density` how densely each was sampled (uniform ones from a box: minus
    the logarithm of its volume); samples of several origins may lie side by side. Minimised, it lowers Q
    where the data has no actions and raises it where it has. Gradient flows through both Q.
    Source: Kumar et al. 2020 (CQL), equation 4, the integral by importance sampling as in appendix F.
    """
    integral = (q - log_density.detach()).logsumexp(-1) - math.log(q.shape[-1])
    return integral - data_q


def advantage_weight(
    advantage: Float[Tensor, "row"],
    *,
    beta: float | Float[Tensor, "row"],
    cap: float = 100.0,
) -> Float[Tensor, "row"]:
    """min(exp(beta advantage), cap), without gradient: what an action of the data counts when imitated.

    `beta` 0 is plain imitation; a large one takes the best actions only. It may differ between rows. Raises
    `SettingError` where `cap` is not above 0.
    Sources: Peng et al. 2019 (AWR) and Nair et al. 2020 (AWAC), equation 13, with beta = 1 / lambda;
    Kostrikov et al. 2022 (IQL), equation 7.
    """
    if not cap > 0:
        raise SettingError(f"a cap of {cap}", expected="above 0")
    # The exponent is capped, not its result, which may not be finite.
    return (beta * advantage.detach()).clamp(max=math.log(cap)).exp()


def relative_advantage_weight(advantage: Float[Tensor, "row"], *, temperature: float) -> Float[Tensor, "row"]:
    """The softmax of advantage / temperature over the rows, times their number: `advantage_weight` of mean 1.

    It depends on the batch: make it of all rows, before they are cut into micro-batches. Raises
    `SettingError` where the temperature is not above 0. Source: Nair et al. 2020 (AWAC), the authors' code.
    """
    if not temperature > 0:
        raise SettingError(f"a temperature of {temperature}", expected="above 0")
    return (advantage.detach() / temperature).softmax(0) * len(advantage)


def improvement_scale(q: Float[Tensor, "row"], *, alpha: float) -> Float[Tensor, ""]:
    """alpha / mean |Q|, without gradient: what Q is multiplied by to be compared with the error of imitating.

    So the balance does not depend on the size of rewards. Like all means of a batch it is made of all rows.
    Source: Fujimoto and Gu 2021 (TD3+BC), equation 5.
    """
    return alpha / q.detach().abs().mean()


def advantage_weighted_loss(
    log_prob: Float[Tensor, "row"], weight: Float[Tensor, "row"]
) -> Float[Tensor, "row"]:
    """-weight log pi of the data's actions; with `advantage_weight` it is advantage-weighted regression.

    Gradient flows through `log_prob` alone. Source: Peng et al. 2019 (AWR), algorithm 1.
    """
    return -weight.detach() * log_prob


def _asymmetry(error: Tensor, level: float) -> Tensor:
    if not 0 < level < 1:
        raise SettingError(f"a level of {level}", expected="above 0 and below 1")
    return torch.where(error < 0, 1 - level, level)
