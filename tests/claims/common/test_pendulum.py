"""The pendulum as a function is Gymnasium's."""

from __future__ import annotations

import gymnasium
import torch

from policysmith.claims.common.pendulum import PENDULUM, pendulum_step


def test_what_follows_is_what_gymnasium_says_follows():
    environment = gymnasium.make(PENDULUM)
    environment.action_space.seed(0)
    seen, _ = environment.reset(seed=0)
    said, paid, given = [torch.as_tensor(seen)], [], []
    for _ in range(199):
        action = environment.action_space.sample()
        seen, reward, *_ = environment.step(action)
        said.append(torch.as_tensor(seen))
        paid.append(float(reward))
        given.append(torch.as_tensor(action))
    following, reward = pendulum_step(torch.stack(said[:-1]), torch.stack(given))
    assert torch.allclose(following, torch.stack(said[1:]), atol=1e-5)
    assert torch.allclose(reward, torch.tensor(paid), atol=1e-4)


def test_only_the_direction_of_the_angle_counts_and_torque_is_limited():
    state, far = torch.tensor([[0.6, 0.8, 1.0]]), torch.tensor([[1.2, 1.6, 1.0]])
    first, second = (pendulum_step(one, torch.tensor([[5.0]])) for one in (state, far))
    assert torch.allclose(first[0], second[0])
    assert torch.allclose(first[1], pendulum_step(state, torch.tensor([[2.0]]))[1])
