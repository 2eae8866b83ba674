"""The experiment on unstable directions: what its comparisons make of diagnoses, and that it runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from policysmith.claims import unstable_directions as experiment
from policysmith.claims.unstable_directions import GAMES, OVERLAP, PLAIN, RETURN, ROBUST, STEP
from policysmith.common.stages import result_of
from policysmith.evaluation.record import from_json, to_json
from policysmith.systems import dqn, sa_dqn

torch.set_num_threads(1)
SEEDS = [0, 1, 2]


def diagnosis(
    seed, *, along=0.6, random=0.1, independent=0.99, moved=(0.5, 0.8), variation=0.4, places=(0, 1)
):
    """What a diagnosis says, a little different for every seed."""
    vector = torch.zeros(6)
    vector[list(places)] = torch.tensor([0.8, 0.6])
    vector[5] = 0.01 * seed
    return {
        "direction": vector.tolist(),
        "shape": [1, 2, 3],
        "probes": [{"size": STEP, "along": along + 0.01 * seed, "random": random}],
        "independent": {"quotient": independent},
        "moved": [
            {"name": name, "quotient": value - 0.01 * seed}
            for name, value in zip(("blur", "deepfool"), moved, strict=True)
        ],
        "variation": variation + 0.01 * seed,
        "concentration": 0.3,
        RETURN: 5.0,
    }


def found(plain=None, robust=None):
    plain, robust = plain or {}, {"variation": 0.8, "places": (2, 3)} | (robust or {})
    arms = {PLAIN: plain, ROBUST: robust}
    return {
        (game, name): [diagnosis(seed, **settings) for seed in SEEDS]
        for game in GAMES
        for name, settings in arms.items()
    }


def verdicts(results):
    claim = experiment.judged(results, SEEDS, seconds=1.0, episodes=10)
    return [one.verdict for one in claim.comparisons]


def test_it_holds_where_all_of_the_papers_statements_do():
    claim = experiment.judged(found(), SEEDS, seconds=1.0, episodes=10)
    assert [one.verdict for one in claim.comparisons] == ["holds"] * 4
    assert claim.verdict == "holds"
    assert from_json(to_json(claim)) == claim
    caption, figure = experiment.plot(claim)
    assert "direction" in caption
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "independent set", "blur", "deepfool",
    ]  # fmt: skip


def test_a_direction_has_to_change_three_times_what_random_ones_do():
    assert verdicts(found(plain={"along": 0.25}))[0] == "fails"
    assert verdicts(found(plain={"along": 0.6}))[0] == "holds"


def test_one_shift_that_moves_nothing_is_enough_for_the_second_to_fail():
    assert verdicts(found(plain={"moved": (0.1, 1.05)}))[1] == "fails"


def test_a_calmer_robust_policy_fails_the_third_and_one_in_the_same_places_the_fourth():
    assert verdicts(found(robust={"variation": 0.2}))[2] == "fails"
    assert verdicts(found(robust={"places": (0, 1)}))[3] != "holds"
    swapped = found(plain={"places": (0, 1)}, robust={"places": (0, 1)})
    for game in GAMES:  # every seed of DQN elsewhere, SA-DQN where its own seed is
        for seed, places in enumerate([(0, 1), (1, 2), (3, 4)]):
            for name in (PLAIN, ROBUST):
                swapped[game, name][seed] = diagnosis(0, places=places, variation=0.4 + (name == ROBUST))
    assert verdicts(swapped)[3] == "fails"


def test_a_single_seed_has_no_other_to_overlap_with():
    one = {key: rows[:1] for key, rows in found().items()}
    claim = experiment.judged(one, [0], seconds=1.0, episodes=10)
    assert len(claim.comparisons) == 3
    assert OVERLAP not in claim.arms[0].summary


def test_it_runs_from_training_to_verdict_and_takes_finished_runs_again(tmp_path, monkeypatch):
    pytest.importorskip("minatar")
    monkeypatch.setattr(experiment, "GAMES", GAMES[:1])
    monkeypatch.setattr(experiment, "LIMIT", 10)
    tiny = {
        PLAIN: (dqn, dqn.PRESETS["tiny"]),
        ROBUST: (sa_dqn, replace(sa_dqn.PRESETS["tiny"], robust=sa_dqn.PRESETS["minatar"].robust)),
    }
    monkeypatch.setattr(experiment, "arms", lambda: tiny)
    first = result_of(experiment.reproduce(seeds=[0], folder=tmp_path, evaluate=1))
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}
    assert len(made) > 1
    again = result_of(experiment.reproduce(seeds=[0], folder=tmp_path, evaluate=1))
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert again.arms == first.arms
    assert first.arms[2].settings == {"game": GAMES[0]}
