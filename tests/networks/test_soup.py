"""Soups of weights: worked numbers, what cannot be mixed, and whether two networks lie in one basin."""

import pytest
import torch
from torch import nn

from policysmith.common.errors import CapabilityError, SettingError, ShapeError
from policysmith.networks.soup import check_barrier, loss_barrier, soup

A = {"w": torch.tensor([[1.0, 2], [3, 4]]), "b": torch.tensor([0.5, -0.5])}
B = {"w": torch.tensor([[3.0, 0], [-1, 4]]), "b": torch.tensor([0.1, 0.9])}


def test_the_mean_of_two():
    mixed = soup([A, B], [0.5, 0.5])
    assert mixed["w"].tolist() == [[2, 1], [1, 4]]
    assert mixed["b"].tolist() == pytest.approx([0.3, 0.2])
    assert soup([A, B])["w"].tolist() == mixed["w"].tolist()


def test_shares_are_of_the_networks_in_order():
    assert soup([A, B], [1.0, 0.0])["b"].tolist() == pytest.approx(A["b"].tolist())
    assert soup([A, B, B], [0.5, 0.25, 0.25])["b"].tolist() == pytest.approx([0.3, 0.2])


def test_a_softmax_in_its_logits_and_how_far_policies_are_from_it():
    logits = soup([{"z": torch.tensor([2.0, 0, -1])}, {"z": torch.tensor([0.0, 1, 1])}])["z"]
    log_soup = logits.log_softmax(0)
    assert log_soup.tolist() == pytest.approx([-0.680270, -1.180270, -1.680270], abs=1e-6)
    log_p = torch.tensor([1.5, 0.5, 0.5]).log_softmax(0)
    gaps = [
        float((log_p.exp() * (log_p - other.log_softmax(0))).sum())
        for other in (torch.tensor([2.0, 0, -1]), torch.tensor([0.0, 1, 1]), logits)
    ]
    assert gaps == pytest.approx([0.254226, 0.462784, 0.022854], abs=1e-6)


def test_tied_weights_stay_tied():
    def tied(seed):
        torch.manual_seed(seed)
        table, out = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        out.weight = table.weight
        return nn.Sequential(table, out), table, out

    (net, table, out), (other, *_) = tied(0), tied(1)
    expected = (table.weight + other.state_dict()["0.weight"]) / 2
    net.load_state_dict(soup([net.state_dict(), other.state_dict()]))
    assert out.weight is table.weight
    assert torch.allclose(out.weight, expected)


def test_counters_are_the_first_networks_and_types_stay():
    parents = [{"w": torch.ones(2).half(), "n": torch.tensor(n)} for n in (3, 8)]
    parents[1]["w"] = torch.zeros(2).half()
    mixed = soup(parents)
    assert (mixed["w"].dtype, mixed["w"].tolist(), int(mixed["n"])) == (torch.float16, [0.5, 0.5], 3)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({**B, "c": torch.ones(1)}, "'c' is not there in the first network"),
        ({"w": B["w"]}, "'b' is of shape \\[2\\] in the first network and not there"),
        ({**B, "w": torch.ones(2, 3)}, "'w' is of shape \\[2, 2\\]"),
    ],
)
def test_the_first_entry_that_differs_is_named(other, says):
    with pytest.raises(ShapeError, match=says):
        soup([A, other])


def test_what_makes_no_mean_is_refused():
    for weights in ([0.5, 0.6], [1.0], [1.5, -0.5]):
        with pytest.raises(SettingError, match="weights"):
            soup([A, B], weights)
    assert soup([A, B], [1.5, -0.5], allow_extrapolation=True)["b"].tolist() == pytest.approx([0.7, -1.2])
    adapters = [{**one, "layer.lora_A.weight": torch.ones(1)} for one in (A, B)]
    with pytest.raises(CapabilityError, match="adapters"):
        soup(adapters)
    with pytest.raises(CapabilityError, match="adapters"):
        soup([A, adapters[1]])
    with pytest.raises(SettingError, match="soup of 1"):
        soup([A])
    with pytest.warns(UserWarning, match="all the same"):
        soup([A, dict(A)])


def test_a_barrier_tells_two_basins_from_one():
    module = nn.Linear(1, 1, bias=False)
    state = [{"weight": torch.tensor([[value]])} for value in (-1.0, 1.0, 2.0)]
    before = module.weight.clone()

    def double_well(net):
        return float((net.weight**2 - 1).square())

    apart = loss_barrier(module, state[0], state[1], double_well)
    assert apart == pytest.approx([0, 0.5625, 1, 0.5625, 0])
    assert torch.equal(module.weight, before)
    with pytest.raises(CapabilityError, match="one basin"):
        check_barrier(apart)
    check_barrier(loss_barrier(module, state[1], state[2], double_well))
