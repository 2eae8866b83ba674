"""The experiment of BESO: which arms share a training, how ways are told apart, what decides the verdict."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensordict import TensorDict

pytest.importorskip("gymnasium_robotics")

from policysmith.claims import beso as experiment
from policysmith.claims.beso import WATCHED, Ways, arms, route_entropy, watch
from policysmith.evaluation import claim
from policysmith.evaluation.comparison import ArmResult
from policysmith.evaluation.rollouts import Rollouts
from policysmith.evaluation.statistics import Interval
from policysmith.policies.protocol import Policy

UP, DOWN = [(1, 1), (1, 5), (5, 5), (5, 1)], [(1, 1), (5, 1), (1, 5)]


def test_the_arms_whose_ways_are_watched_exist():
    assert set(WATCHED) <= {arm.label for arm in arms(ablations=False)}


def test_the_entropy_of_ways_is_that_of_the_corner_passed_first():
    assert route_entropy([UP, DOWN]) == 1.0
    assert route_entropy([UP] * 4) == 0.0
    assert route_entropy([UP, DOWN, DOWN, DOWN]) == pytest.approx(0.8112781)


def test_rollouts_that_get_nowhere_do_not_count_as_a_way():
    assert route_entropy([UP, DOWN, [(1, 1)], [(1, 2)]]) == 1.0
    assert route_entropy([[(1, 1)]] * 3) == 0.0


def test_samplers_and_strengths_share_their_training():
    runs = {(arm.module.__name__, str(arm.config)) for arm in arms(ablations=False)}
    assert len(arms(ablations=False)) == 16
    assert len(runs) == 5, (
        "score models without and with goals left out and with wide noise, regression, bins"
    )
    assert len({arm.label for arm in arms(ablations=True)}) == 20


def test_the_plot_colours_alike_what_shares_a_training():
    made = [
        claim.Arm(arm.label, {}, [], {"success": Interval(0.5, 0.4, 0.6)}) for arm in arms(ablations=True)
    ]
    bars = experiment.plot(SimpleNamespace(arms=made))[1].axes[0].patches  # type: ignore[arg-type]
    colour = {arm.name: bar.get_facecolor() for arm, bar in zip(made, bars, strict=True)}
    assert colour["BESO, 3 DDIM"] == colour["BESO, 50 DDIM"] != colour["CFG-BESO, 1"]
    assert len(set(colour.values())) == 5


class Pusher(Policy):
    """Pushes every row in a direction of its own, whatever it sees."""

    observation_size, goal_size, action_size = 4, 2, 2

    def act(self, observation, state, *, rng):
        rows = torch.arange(len(observation)) % 2
        push = torch.stack([rows.float(), rows.float() - 1], dim=-1)
        return push[:, None], state


class Sleeper(Policy):
    """Does nothing."""

    observation_size, goal_size, action_size = 4, 2, 2

    def act(self, observation: TensorDict, state, *, rng):
        return torch.zeros(len(observation), 1, 2), state


def test_watching_tells_ways_cells_and_standing():
    pushed = watch(Pusher(), seed=0, rollouts=2, steps=120)
    assert pushed.entropy == 1.0
    assert pushed.cells == 5.0
    assert pushed.standing < 0.5
    slept = watch(Sleeper(), seed=0, rollouts=2, steps=20)
    assert slept == Ways(0.0, 1.0, 1.0)


def made(rates: dict[str, float]) -> dict[str, ArmResult]:
    """Results of three runs of a hundred episodes, of which so large a share succeeds."""
    found = {}
    for arm in arms(ablations=False):
        success = np.arange(100) < 100 * rates.get(arm.label, 0.9)
        zeros = np.zeros(100)
        run = Rollouts(list(range(100)), success, zeros, zeros.astype(int), zeros.astype(int))
        found[arm.label] = ArmResult(arm, rollouts=[run] * 3)
    return found


def verdicts(rates: dict[str, float], ways: dict[str, Ways]) -> dict[str, str]:
    watched = {arm.label: [ways.get(arm.label, Ways(1.0, 10.0, 0.02))] * 3 for arm in arms(ablations=False)}
    return {one.name: one.verdict for one in experiment._comparisons(made(rates), watched)}


def test_the_claim_holds_where_all_that_it_says_is_seen():
    found = verdicts({"GC-BC": 0.5, "CFG-BESO, 0": 0.5}, {"GC-BC": Ways(0.0, 8.0, 0.1)})
    assert set(found.values()) == {"holds"}
    assert len(found) == 6


@pytest.mark.parametrize(
    ("rates", "ways", "failing"),
    [
        ({"BESO, 3 DDIM": 0.5}, {}, "3 steps as good as 50"),
        ({"GC-BC": 1.0, "BESO, 3 DDIM": 0.6}, {}, "above regression"),
        ({}, {"GC-BC": Ways(1.0, 10.0, 0.02)}, "more ways than regression"),
        ({"CFG-BESO, 0": 1.0, "CFG-BESO, 1": 0.5}, {}, "success rises with guidance from 0"),
        ({}, {"CFG-BESO, 0": Ways(1.0, 4.0, 0.02)}, "without a goal, cells are visited"),
        ({}, {"CFG-BESO, 0": Ways(1.0, 10.0, 0.5)}, "without a goal, it does not stand still"),
    ],
)
def test_each_part_of_the_claim_can_fail(rates, ways, failing):
    assert verdicts(rates, ways)[failing] == "fails"
