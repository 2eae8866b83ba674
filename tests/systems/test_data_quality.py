"""Grading demonstrations: which metric sees what, what is refused, and what curation drops."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.common.stages import result_of
from policysmith.experience.episodes import Episodes
from policysmith.experience.store import save_episodes
from policysmith.systems.data_quality import PRESETS, Config, curated, measure

torch.set_num_threads(1)


def demonstrations(count=12, *, noise=0.0, length=40, seed=0, widen=0.0, success=True):
    """A walk along a line answered by its sine, with noise in the actions or in the states."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        state = np.linspace(0, 3, length)[:, None] + widen * rng.standard_normal((length, 1))
        action = np.sin(state) + noise * rng.standard_normal(state.shape)
        ended = np.zeros(length)
        ended[-1] = success
        rows.append({"observation": state, "action": action, "success": ended})
    return rows


def episodes(*parts):
    return Episodes.from_arrays([row for part in parts for row in part])


def found(data, **settings):
    reference = settings.pop("reference", None)
    if "folder" in settings:
        settings["reference"] = settings.pop("folder")
    return result_of(measure(data, config=Config(**settings), reference=reference))


def test_five_samples_by_hand_through_the_public_entry():
    state = [[[0.0], [0.15]], [[0.3], [0.45], [2.0]]]
    action = [[[1.0], [2.0]], [[-1.0], [0.5], [3.0]]]
    data = Episodes.from_arrays([{"observation": s, "action": a} for s, a in zip(state, action, strict=True)])
    # Scaled by this reference the states stay as they are.
    unit = Episodes.from_arrays([{"observation": [[-1.0], [1.0]], "action": [[0.0], [0.0]]}])
    summary = found(data, radius=0.2, reference=unit).summary
    assert summary["action variance"] == pytest.approx(0.968056, abs=1e-6)
    assert summary["variance within neighbourhoods"] == pytest.approx(0.773611, abs=1e-6)
    assert summary["state similarity"] == pytest.approx(0.44)
    assert summary["mean length"] == 2.5
    assert summary["length, standard deviation"] == 0.5


def test_noise_in_the_actions_raises_action_variance_alone():
    clean, noisy = episodes(demonstrations()), episodes(demonstrations(noise=0.3))
    ours, theirs = (found(data, radius=0.1).summary for data in (clean, noisy))
    assert theirs["action variance"] > 20 * ours["action variance"]
    assert theirs["state similarity"] == pytest.approx(ours["state similarity"])


def test_noise_in_the_states_lowers_similarity_alone():
    narrow, wide = episodes(demonstrations()), episodes(demonstrations(widen=1.0))
    both = episodes(demonstrations(), demonstrations(widen=1.0))
    ours, theirs = (found(data, radius=0.1, reference=both).summary for data in (narrow, wide))
    assert theirs["state similarity"] < 0.9 * ours["state similarity"]
    assert theirs["action variance"] == pytest.approx(ours["action variance"], abs=0.003)


def test_a_reference_can_be_a_folder(tmp_path):
    narrow, wide = episodes(demonstrations(widen=0.1)), episodes(demonstrations(widen=1.0))
    save_episodes(wide, tmp_path / "wide", action_space=gymnasium.spaces.Box(-9, 9, (1,)))
    by_folder = found(narrow, radius=0.1, reference=None, folder=str(tmp_path / "wide"))
    assert by_folder.summary == found(narrow, radius=0.1, reference=wide).summary
    assert by_folder.summary != found(narrow, radius=0.1).summary


def test_units_of_the_state_do_not_matter():
    rows = demonstrations(noise=0.2, widen=0.1)
    scaled = [{**row, "observation": 1000 * row["observation"] + 7} for row in rows]
    ours, theirs = (found(episodes(part)).summary for part in (rows, scaled))
    assert theirs["action variance"] == pytest.approx(ours["action variance"], rel=1e-3)


def test_dimensions_and_weights_can_be_chosen():
    rows = [
        {
            "observation": np.concatenate([row["observation"], 1e3 * rng.standard_normal((40, 1))], 1),
            "action": np.concatenate([row["action"], 5 * rng.standard_normal((40, 1))], 1),
        }
        for row, rng in zip(demonstrations(), map(np.random.default_rng, range(12)), strict=True)
    ]
    data = episodes(rows)
    plain = found(episodes(demonstrations()), radius=0.1).summary["action variance"]
    chosen = found(data, radius=0.1, state=(0,), action_weights=(1.0, 0.0)).summary["action variance"]
    assert chosen == pytest.approx(plain, rel=1e-6)
    grouped = found(data, radius=0.1, state=(0,), action_groups=(1, 1)).data["weights"]
    assert grouped == pytest.approx([1 / np.var(part) for part in data.steps["action"].numpy().T], rel=1e-4)


def test_nearest_neighbours_instead_of_a_ball():
    noisy = found(episodes(demonstrations(noise=0.3)), neighbours=12)
    assert noisy.summary["neighbourhood"] == "12 nearest"
    # The mean of twelve contains the sample itself, which takes a twelfth of the deviation away.
    assert noisy.summary["action variance"] == pytest.approx(0.09 * 11 / 12, rel=0.15)


def test_transition_spread_is_measured_where_asked_for_and_ends_with_the_episode():
    data = episodes(demonstrations(widen=0.05))
    assert "transition spread" not in found(data).summary
    assert found(data, radius=0.2, transitions=True).summary["transition spread"] > 1e-4
    # A walk of equal steps, the last one to the final observation and not to the next episode's start.
    walk = {"observation": np.linspace(0, 3, 41)[:, None], "action": np.zeros((40, 1))}
    even = episodes([walk] * 5)
    assert found(even, radius=0.2, transitions=True).summary["transition spread"] < 1e-9


def test_curation_drops_the_inconsistent_and_the_slow():
    good = demonstrations(8, noise=0.01, seed=1)
    inconsistent = demonstrations(2, noise=1.0, seed=2)
    slow = demonstrations(2, noise=0.02, length=160, seed=3)
    data = episodes(good, inconsistent, slow)
    assert curated(data, config=Config(drop=4 / 12, radius=0.1)) == list(range(8))
    assert len(data.select(curated(data, config=Config(drop=0.25)))) == 9
    assert curated(data, config=Config(drop=0.0)) == list(range(12))


def test_an_inconsistent_episode_is_seen_though_its_own_steps_are_its_neighbours():
    """A single odd demonstrator agrees with itself; against the others it does not."""
    odd = [{**row, "action": row["action"] + 3.0} for row in demonstrations(1, seed=5)]
    rows = found(episodes(demonstrations(8, noise=0.05), odd), radius=0.1).data["per_episode"]
    assert rows[8]["variance against the others"] == pytest.approx(9.0, rel=0.1)
    assert max(row["variance against the others"] for row in rows[:8]) < 2.0


def test_episodes_near_no_other_are_told_and_rank_in_the_middle():
    far = [{**row, "observation": row["observation"] + 50} for row in demonstrations(1)]
    rows = found(episodes(demonstrations(4), far), radius=0.05).data["per_episode"]
    assert rows[4]["variance against the others"] is None
    assert rows[4]["steps with no other episode near"] == 1.0


def test_a_large_set_is_compared_by_a_share_of_its_samples():
    data = episodes(demonstrations(30, noise=0.3))
    whole, part = found(data, radius=0.1), found(data, radius=0.1, samples=400)
    assert part.summary["action variance"] == pytest.approx(whole.summary["action variance"], rel=0.2)
    assert any("400 of 1200" in notice for notice in part.notices)


def test_stages_say_how_far_it_has_come():
    stages = list(measure(episodes(demonstrations()), config=PRESETS["tiny"]))
    assert {stage.label for stage in stages} == {"check", "compare states"}
    assert stages[-1].done == stages[-1].total


def test_a_radius_too_small_is_said_and_not_hidden():
    for radius in (1e-6, 0.0, -1.0):
        result = found(episodes(demonstrations(widen=0.1)), radius=radius)
        assert result.summary["action variance"] == 0.0
        assert any("0 by construction" in notice for notice in result.notices)


def test_states_that_are_all_equal_are_refused():
    rows = [{**row, "observation": np.ones((40, 2))} for row in demonstrations()]
    with pytest.raises(DataError, match="cannot choose eps"):
        found(episodes(rows))


def test_episodes_of_one_step_are_refused_by_number():
    with pytest.raises(DataError, match=r"2 of 5 episodes[\s\S]*episodes 1, 4"):
        found(episodes(*(demonstrations(1, length=n) for n in (40, 1, 40, 40, 1))))


def test_unsuccessful_episodes_are_listed_or_refused():
    data = episodes(demonstrations(3), demonstrations(2, success=False))
    assert any("2 episodes did not succeed: 3, 4" in notice for notice in found(data).notices)
    with pytest.raises(DataError, match=r"2 of 5 episodes did not succeed[\s\S]*episodes 3, 4"):
        found(data, keep="success")
    found(data.select(data.succeeded), keep="success")


def test_dimensions_weights_and_references_that_do_not_fit_are_refused():
    data = episodes(demonstrations(3))
    with pytest.raises(SettingError, match=r"state is \[4\]"):
        found(data, state=(4,))
    with pytest.raises(SettingError, match="action_weights"):
        found(data, action_weights=(1.0, 1.0))
    wide = Episodes.from_arrays([{"observation": np.zeros((2, 2)), "action": np.zeros((2, 1))}])
    with pytest.raises(DataError, match="width 2"):
        found(data, reference=wide)


@pytest.mark.parametrize(
    "wrong",
    [
        {"radius": 0.1, "neighbours": 5},
        {"radius": float("nan")},
        {"neighbours": 1},
        {"drop": 1.0},
        {"samples": 0},
        {"action_weights": (1.0,), "action_groups": (1,)},
    ],
)
def test_settings_that_contradict_each_other_or_are_out_of_range(wrong):
    with pytest.raises(SettingError):
        replace(PRESETS["paper"], **wrong)


def test_of_observations_in_parts_the_state_is_compared():
    plain = demonstrations(noise=0.2)
    camera = np.zeros((40, 8, 8, 3), np.uint8)
    parts = [{**row, "observation": {"state": row["observation"], "camera": camera}} for row in plain]
    assert (
        found(episodes(parts), transitions=True).summary == found(episodes(plain), transitions=True).summary
    )
    blind = [{**row, "observation": {"camera": camera}} for row in plain]
    with pytest.raises(DataError, match="no state"):
        found(episodes(blind))
