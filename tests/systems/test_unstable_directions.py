"""Diagnosing a policy: what it finds in scores whose weak place is known, and what it refuses."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from policysmith.common.errors import CapabilityError, DataError, SettingError, ShapeError
from policysmith.common.stages import result_of
from policysmith.evaluation.conformance import check_system
from policysmith.networks.bodies import Body
from policysmith.networks.critics import DuellingQ
from policysmith.policies.actors import NetworkPolicy, gaussian_actor
from policysmith.policies.heads import GreedyHead
from policysmith.systems.unstable_directions import Config, measure

torch.set_num_threads(1)
needs_minatar = pytest.mark.skipif(importlib.util.find_spec("minatar") is None, reason="needs minatar")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def leans_on_one_cell(states):
    """Scores of planes [row, 6, 6, 1] that hang on the cell in row 2, column 4, and hardly on the others."""
    flat = states.flatten(1)
    return torch.stack([20 * (flat[:, 16] - 0.5) + 0.1 * flat.sum(1), -0.1 * flat.sum(1) + 3.6], dim=1)


def planes(count=40, seed=0):
    return torch.rand(count, 6, 6, 1, generator=rng(seed))


def found(policy, states=None, **settings):
    return result_of(measure(policy, states, config=Config(**settings)))


def test_it_conforms(tmp_path):
    torch.manual_seed(0)
    policy = NetworkPolicy(DuellingQ(Body(4, hidden=(8,)), 2), GreedyHead(2))
    check_system("unstable-directions", tmp_path, inputs=(policy, torch.rand(20, 4, generator=rng())))


def test_the_cell_that_decisions_hang_on_is_the_direction():
    report = found(leans_on_one_cell, planes(), steps=(0.05, 0.2))
    direction = torch.tensor(report.data["direction"]).view(6, 6, 1)
    assert report.data["shape"] == [6, 6, 1]
    assert int(direction.abs().argmax()) == 16
    assert float(direction[2, 4, 0]) > 0.99
    assert report.data["independent"]["quotient"] == pytest.approx(1.0, abs=1e-3)
    for probe in report.data["probes"]:
        assert probe["along"] > 3 * probe["random"]
    assert not report.notices
    json.dumps(report.to_json(), allow_nan=False)


def test_every_shift_and_attack_has_its_row_and_minimal_attacks_change_decisions():
    rows = {one["name"]: one for one in found(leans_on_one_cell, planes()).data["moved"]}
    assert set(rows) == {
        "translation", "rotation", "perspective", "blur", "compression", "brightness and contrast",
        "gradient sign", "nesterov", "carlini-wagner", "deepfool", "elastic net",
    }  # fmt: skip
    assert rows["carlini-wagner"]["changed"] > 0.9
    assert rows["deepfool"]["changed"] > 0.9
    assert rows["deepfool"]["distance"] < rows["translation"]["distance"]


def test_a_shift_that_brings_another_cell_into_play_lowers_the_quotient():
    """Scores hang on the first cell where the picture is dim, and on the last where it is bright."""

    def either(states):
        flat = states.flatten(1)
        cell = torch.where(flat.mean(1) > 0.32, flat[:, 35], flat[:, 0])
        return torch.stack([cell, 0.3 - cell], dim=1)

    dim = 0.22 + 0.1 * planes(60)  # a mean of 0.27, which the shift makes 0.8 x 0.27 + 0.1 = 0.316
    settings = {"moves": ("brightness and contrast", "gradient sign"), "size": 0.001, "steps": (0.1,)}
    still = found(either, dim, **settings).data
    assert still["independent"]["quotient"] > 0.99
    assert all(one["quotient"] > 0.99 for one in still["moved"])
    report = found(either, dim + 0.02, **settings).data
    by_name = {one["name"]: one for one in report["moved"]}
    assert by_name["gradient sign"]["quotient"] > 0.99
    assert by_name["brightness and contrast"]["quotient"] < 0.01
    mirrored = found(either, dim + 0.02, reference="base", **settings).data["moved"][0]
    assert mirrored["mirrored"] == by_name["brightness and contrast"]["quotient"]


def test_episodes_are_two_sets_by_turns_and_their_lengths_are_traced():
    episodes = [planes(count, seed).flatten(1) for seed, count in enumerate([5, 7, 9, 11])]
    report = found(leans_on_one_cell, episodes, planes=(6, 6, 1), moves=("blur",))
    assert [len(one) for one in report.data["lengths"]] == [5, 9]
    assert report.summary["states"] == 32


@needs_minatar
def test_without_states_the_greedy_policy_is_played_and_planes_are_the_environments():
    torch.manual_seed(0)
    policy = NetworkPolicy(DuellingQ(Body(400, planes=(10, 10, 4), hidden=(8,)), 3), GreedyHead(3))
    report = found(
        policy, environment="minatar/breakout", episodes=2, limit=10, moves=("translation",), draws=2
    )
    assert report.data["shape"] == [10, 10, 4]
    assert report.data["moved"][0]["distance"] > 1


def test_a_saturated_policy_is_told_a_temperature_and_has_a_direction_with_it():
    def sure(states):
        return 1e5 * leans_on_one_cell(states)

    with pytest.raises(DataError, match="temperature"):
        found(sure, planes().clamp(min=0.8))
    assert found(sure, planes().clamp(min=0.8), temperature=1e5, moves=("blur",)).data["explained"] > 0.9


def test_a_direction_no_better_than_random_ones_is_said_to_be():
    generator = rng(1)
    weight = torch.randn(2, 36, generator=generator)

    def flat(states):
        return 1e-6 * states.flatten(1) @ weight.T + torch.tensor([5.0, 0.0])

    report = found(flat, planes(), moves=("blur",))
    assert any("says little" in notice for notice in report.notices)


def test_what_cannot_be_diagnosed_is_refused():
    with pytest.raises(CapabilityError, match="discrete action"):
        found(gaussian_actor(4, 2), torch.rand(9, 4))
    with pytest.raises(DataError, match="two or more"):
        found(leans_on_one_cell, planes(1))
    with pytest.raises(DataError, match="no states"):
        found(leans_on_one_cell, planes(0))
    with pytest.raises(DataError, match="floats"):
        found(leans_on_one_cell, planes().round().long())
    with pytest.raises(ShapeError, match="different shapes"):
        found(leans_on_one_cell, [torch.rand(5, 36), torch.rand(5, 35)])
    with pytest.raises(DataError, match="low and high"):
        found(leans_on_one_cell, 2 * planes())
    with pytest.raises(SettingError, match="environment"):
        found(leans_on_one_cell)
    with pytest.raises(ShapeError, match="two actions"):
        found(lambda s: s.flatten(1)[:, :1], planes())


@pytest.mark.parametrize(
    "settings", [{"planes": (6, 6)}, {"steps": ()}, {"steps": (0.0,)}, {"draws": 0}, {"low": 1.0}]
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(SettingError):
        Config(**settings)


def test_planes_that_do_not_fit_a_state_are_refused():
    with pytest.raises(SettingError, match="36 numbers"):
        found(leans_on_one_cell, planes().flatten(1), planes=(5, 5, 1))
