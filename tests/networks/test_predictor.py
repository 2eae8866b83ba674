"""The one-step model: a change is learnt, in units that do not depend on the action's limits."""

from __future__ import annotations

import torch

from policysmith.common.saving import from_pretrained, save_pretrained
from policysmith.networks.predictor import NextObservation


def test_a_network_of_zeros_expects_no_change():
    model = NextObservation(3, (-1.0,), (1.0,), hidden=(4,))
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    observation = torch.randn(5, 3)
    assert torch.equal(model(observation, torch.ones(5, 1)), observation)


def test_actions_are_scaled_by_their_limits():
    narrow = NextObservation(2, (-1.0,), (1.0,))
    wide = NextObservation(2, (0.0,), (10.0,))
    wide.load_state_dict(narrow.state_dict())
    observation = torch.randn(2, 2)
    unit = torch.tensor([[-1.0], [0.5]])
    torch.testing.assert_close(narrow(observation, unit), wide(observation, 5 * (unit + 1)))


def test_a_linear_world_is_learnt_and_saved(tmp_path):
    torch.manual_seed(0)
    model = NextObservation(2, (-1.0,), (1.0,), hidden=(16,))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    observation, action = torch.randn(256, 2), torch.rand(256, 1) * 2 - 1
    after = observation + 0.1 * torch.cat([action, -action], 1)
    for _ in range(300):
        loss = (model(observation, action) - after).abs().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02  # of 0.1 on average without a model
    save_pretrained(model, tmp_path / "model")
    again = from_pretrained(tmp_path / "model", expected=NextObservation)
    assert torch.equal(again(observation, action), model(observation, action))
