"""Ensembles, critics, targets: batched products equal separate networks, targets follow, frozen weights r"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from policysmith.common.errors import SettingError
from policysmith.networks.bodies import Body
from policysmith.networks.critics import DuellingQ, QEnsemble, ValueNetwork
from policysmith.networks.ensembles import EnsembleLayerNorm, EnsembleLinear, EnsembleMLP
from policysmith.networks.targets import TargetNetwork, frozen


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


X = torch.randn(7, 4, generator=rng())


@pytest.mark.parametrize("layer_norm", [False, True])
def test_each_member_is_the_network_of_its_weights(layer_norm):
    ensemble = EnsembleMLP(3, (4, 8, 8, 2), layer_norm=layer_norm)
    found = ensemble(X)
    for member in range(3):
        hidden = X
        for layer in ensemble.layers:
            if isinstance(layer, EnsembleLinear):
                hidden = F.linear(hidden, layer.weight[member].t(), layer.bias[member, 0])
            elif isinstance(layer, EnsembleLayerNorm):
                hidden = F.layer_norm(hidden, (8,), layer.weight[member, 0], layer.bias[member, 0])
            else:
                hidden = layer(hidden)
        torch.testing.assert_close(found[member], hidden)


def test_members_start_apart_and_may_have_rows_of_their_own():
    ensemble = EnsembleMLP(3, (4, 8, 1))
    found = ensemble(X)
    assert len({float(one) for one in found[:, 0, 0]}) == 3
    own = torch.stack([X, X + 1, X - 1])
    torch.testing.assert_close(ensemble(own)[0], found[0])
    torch.testing.assert_close(ensemble(own)[1], ensemble(X + 1)[1])


def test_a_members_loss_moves_that_member_alone():
    ensemble = EnsembleMLP(3, (4, 8, 1))
    ensemble(X)[1].sum().backward()
    for weight in ensemble.parameters():
        assert weight.grad[[0, 2]].abs().sum() == 0
        assert weight.grad[1].abs().sum() > 0


def test_layers_start_as_pytorchs_do():
    ensemble = EnsembleMLP(50, (64, 64, 1))
    weight = ensemble.layers[0].weight
    assert float(weight.abs().max()) <= 1 / 8
    assert float(weight.std()) == pytest.approx(1 / 8 / 3**0.5, rel=0.01)


def test_early_dropout_comes_before_the_normalisation():
    kinds = [
        type(layer)
        for layer in EnsembleMLP(2, (4, 8, 1), layer_norm=True, dropout=0.5, early_dropout=True).layers
    ]
    assert kinds == [EnsembleLinear, nn.Dropout, EnsembleLayerNorm, nn.ReLU, EnsembleLinear]


def test_an_ensemble_of_nobody_is_refused():
    with pytest.raises(SettingError, match="0 MLPs"):
        EnsembleMLP(0, (4, 1))


def test_critics_see_actions_in_units_of_their_limits():
    torch.manual_seed(0)
    unit = QEnsemble(4, (-1.0,), (1.0,))
    torch.manual_seed(0)
    wide = QEnsemble(4, (0.0,), (10.0,))
    action = torch.rand(7, 1, generator=rng()) * 2 - 1
    torch.testing.assert_close(wide(X, 5 + 5 * action), unit(X, action))
    assert unit(X, action).shape == (2, 7)
    assert QEnsemble(4, (-1.0,), (1.0,), outputs=5)(X, action).shape == (2, 7, 5)


def test_values_may_be_vectors():
    assert ValueNetwork(Body(4))(X).shape == (7,)
    assert ValueNetwork(Body(4), outputs=3)(X).shape == (7, 3)


def test_the_mean_of_a_duelling_networks_values_is_its_state_value():
    q = DuellingQ(Body(4), 3)
    torch.testing.assert_close(q(X).mean(-1), q.value(q.body(X))[:, 0])
    assert DuellingQ(Body(4), 3, outputs=5)(X).shape == (7, 3, 5)


def test_targets_follow_by_their_rate():
    source = nn.Linear(2, 2)
    target = TargetNetwork(source, 0.1)
    before = target.module.weight.clone()
    with torch.no_grad():
        source.weight.add_(1.0)
    target.update()
    torch.testing.assert_close(target.module.weight, before + 0.1)
    again = TargetNetwork(source, 0.1)
    again.load_state_dict(target.state_dict())
    assert torch.equal(again.module.weight, target.module.weight)
    assert again.updates == 1


def test_a_target_may_be_copied_every_so_often():
    source = nn.Linear(2, 2)
    target = TargetNetwork(source, 1.0, every=3)
    with torch.no_grad():
        source.weight.add_(1.0)
    same = []
    for _ in range(3):
        target.update()
        same.append(torch.equal(target.module.weight, source.weight))
    assert same == [False, False, True]


@pytest.mark.parametrize(("rate", "every"), [(0, 1), (1.5, 1), (0.1, 0)])
def test_targets_that_cannot_be_are_refused(rate, every):
    with pytest.raises(SettingError):
        TargetNetwork(nn.Linear(1, 1), rate, every=every)


def test_frozen_weights_get_no_gradient_but_pass_it_on():
    network = nn.Linear(2, 1)
    x = torch.ones(3, 2, requires_grad=True)
    with frozen(network):
        y = network(x)
    y.sum().backward()
    assert network.weight.grad is None
    assert x.grad.abs().sum() > 0
    assert all(weight.requires_grad for weight in network.parameters())
