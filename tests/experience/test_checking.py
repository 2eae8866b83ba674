"""The check of a data set: every fault is found, told once with its place, and stops nothing else."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from gymnasium.spaces import Box
from robot_files import SIZE, LeRobotWriter, picture, write_zarr, zarr_arrays

from policysmith.common.stages import result_of
from policysmith.evaluation.data_report import data_findings
from policysmith.experience.checking import Column, check
from policysmith.experience.episodes import Episodes
from policysmith.experience.files import load_data, open_data
from policysmith.experience.store import save_episodes

torch.set_num_threads(1)


def moving(lengths=(12, 9, 14), **settings):
    """A writer whose every column moves, so that nothing is wrong."""
    writer = LeRobotWriter(lengths, **settings)
    rng = np.random.default_rng(0)
    writer.columns["action"] = [rng.normal(size=(n, 3)).tolist() for n in lengths]
    for shown in writer.films.values():
        for e, n in enumerate(lengths):
            shown[e] = [picture(0, (3 * t + e) % 20) for t in range(n)]
    return writer


def checked(path, **settings):
    return result_of(check(open_data(path), **settings))


def written(tmp_path, writer, version="v3.0", **settings):
    return checked(writer.write(tmp_path / "set", version), **settings)


def only(found):
    (problem,) = found.problems
    return problem


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_nothing_is_wrong_with_a_sound_data_set(tmp_path, version):
    found = written(tmp_path, moving(stored=()), version)
    assert found.problems == []
    assert found.usable
    assert found.lengths == [12, 9, 14]
    assert found.rates == pytest.approx([10, 10, 10], rel=1e-4)
    assert found.succeeded == [True, False, True]
    assert found.returns == [66, 36, 91]
    assert found.seen["observation.images.front"].looked_at == 35
    assert found.seen["observation.images.front"].film.codec == "h264"


def test_statistics_are_those_of_all_steps_and_leave_out_what_is_not_finite():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 3))
    column = Column(3)
    for part in np.split(values, [7, 8, 30]):
        column.add(part)
    np.testing.assert_allclose(column.mean, values.mean(0))
    np.testing.assert_allclose(column.deviation, values.std(0))
    np.testing.assert_array_equal(column.low, values.min(0))
    column.add(np.array([[np.nan, np.inf, 1.0]]))
    assert column.not_finite == 2
    np.testing.assert_array_equal(column.high[:2], values.max(0)[:2])
    np.testing.assert_allclose(column.mean[:2], values.mean(0)[:2])
    np.testing.assert_allclose(column.deviation[:2], values.std(0)[:2])


def test_what_is_not_finite_is_told_once_with_its_first_place_and_stops(tmp_path):
    writer = moving(films=())
    writer.columns["action"][1][2][0] = np.nan
    writer.columns["action"][2][0][1] = np.inf
    writer.stats = False
    problem = only(written(tmp_path, writer))
    assert problem.what == "'action' is not finite (2 episodes: 1, 2)"
    assert problem.where == "first in episode 1, step 2, column 0 (a)"
    assert problem.stops


def test_what_is_not_finite_where_nothing_is_read_from_stops_nothing(tmp_path):
    writer = moving(films=())
    writer.add("observation.force", [[float(t) for t in range(n)] for n in (12, 9, 14)], "float32")
    writer.columns["observation.force"][0][3] = np.nan
    found = written(tmp_path, writer)
    assert not only(found).stops
    assert found.usable
    assert len(load_data(tmp_path / "set")) == 3


def test_a_table_cut_short_is_told_once_and_the_other_episodes_are_still_looked_at(tmp_path):
    folder = moving(films=()).write(tmp_path / "set", "v3.0")
    first = min(folder.glob("data/*/*.parquet"))
    first.write_bytes(first.read_bytes()[:200])
    found = checked(folder)
    problem = found.problems[0]
    assert "is damaged or cut short" in problem.what
    assert "2 episodes: 0, 1" in problem.what
    assert str(first) in problem.where
    assert [one.stops for one in found.problems] == [True, False]  # the episode left has a constant column
    assert not found.usable
    assert found.read == [2]
    assert found.columns["action"].steps == 14


def test_missing_and_damaged_films_are_told_and_the_numbers_still_looked_at(tmp_path):
    folder = moving().write(tmp_path / "set", "v2.1")
    films = sorted(folder.glob("videos/**/*.mp4"))
    films[1].unlink()
    films[2].write_bytes(films[2].read_bytes()[:300])
    found = checked(folder)
    said = [problem.what for problem in found.problems if problem.stops]
    assert "the film is missing" in said
    assert "the film is damaged or cut short" in said
    assert found.columns["action"].steps == 35
    assert not found.usable


def test_a_film_of_fewer_pictures_than_steps_is_told_with_its_episode(tmp_path):
    writer = moving()
    writer.films["front"][1] = writer.films["front"][1][:5]
    found = written(tmp_path, writer, "v2.1")
    problem = only(found)
    assert "the film has no picture at" in problem.what
    assert "episode_000001.mp4" in problem.where


def test_a_film_of_another_rate_is_told(tmp_path):
    folder = moving().write(tmp_path / "set", "v2.1")
    info = folder / "meta" / "info.json"
    info.write_text(info.read_text().replace('"fps": 10', '"fps": 20'))
    found = checked(folder)
    assert any("10 pictures a second and the data 20 steps (3 films)" in one.what for one in found.problems)


def test_time_stamps_of_another_rate_stop_and_gaps_and_standing_clocks_warn(tmp_path):
    writer = moving((6, 6, 6, 6), films=())
    writer.times[1] = [t / 5 for t in range(6)]
    writer.times[2] = [0, 0.1, 0.2, 0.6, 0.7, 0.8]
    writer.times[3] = [0, 0.1, 0.1, 0.3, 0.4, 0.5]
    found = written(tmp_path, writer)
    by_what = {problem.what: problem for problem in found.problems}
    rate = by_what["the time stamps run at another rate than the 10 steps a second of the data set"]
    assert (rate.stops, rate.where) == (True, "first in episode 1: 5 steps a second")
    gap = by_what["there are gaps in the time stamps"]
    assert (gap.stops, gap.where) == (False, "first in episode 2: 0.4 s between steps 2 and 3")
    still = by_what["time stands still or runs backwards"]
    assert (still.stops, still.where) == (False, "first in episode 3, step 2")
    assert found.problems[0] is rate  # what stops comes first


def test_columns_that_never_change_are_named(tmp_path):
    writer = moving(films=())
    for episode in writer.columns["action"]:
        for step in episode:
            step[2] = 0.25
    problem = only(written(tmp_path, writer))
    assert "'action' has columns that never change" in problem.what
    assert problem.where == "column 2 (c): 0.25"
    assert not problem.stops


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_values_beyond_the_declared_statistics_are_named(tmp_path, version):
    folder = moving(films=()).write(tmp_path / "set", version)
    for path in [*folder.glob("meta/stats.json"), *folder.glob("meta/episodes_stats.jsonl")]:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line.get("stats", line)["action"]["max"][1] = 0.01
        path.write_text("\n".join(map(json.dumps, lines)))
    problem = only(checked(folder))
    assert "'action' leaves its declared range in 1 of 3 columns" in problem.what
    assert "column 1 (b)" in problem.where
    assert "declared" in problem.where


def test_values_beyond_a_declared_space_are_named(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [
        {"observation": rng.normal(size=(5, 2)), "action": rng.uniform(-1, 1, (4, 1))} for _ in range(3)
    ]
    space = Box(-0.1, 0.1, (1,), np.float32)
    save_episodes(Episodes.from_arrays(arrays), tmp_path / "set", action_space=space)
    said = [problem.what for problem in checked(tmp_path / "set").problems]
    assert "'action' leaves its declared range in 1 of 1 columns" in said


def test_copies_of_an_episode_are_named(tmp_path):
    writer = moving((5, 5, 5), films=())
    for values in writer.columns.values():
        values[2] = values[0]
    problem = only(written(tmp_path, writer))
    assert (problem.what, problem.where) == ("episodes hold the same numbers", "2 episodes: 0, 2")


def test_odd_lengths_and_an_absent_success_are_told(tmp_path):
    writer = moving((1, 5, 5, 5, 60), films=())
    writer.columns["next.success"] = [[False] * n for n in (1, 5, 5, 5, 60)]
    said = {problem.what: problem.where for problem in written(tmp_path, writer).problems}
    assert said["episodes of a single step"] == "episode 0"
    assert said["episodes of more than five times the typical 5 steps"] == "episode 4"
    assert "no episode is flagged as a success" in said


def test_totals_that_contradict_the_list_are_told(tmp_path):
    writer = moving(films=())
    writer.info = {"total_episodes": 5}
    problem = only(written(tmp_path, writer))
    assert problem.what == "total_episodes is 5, and the list of episodes has 3"


# ---- pictures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["films", "stored"])
def test_dark_and_frozen_pictures_are_found_where_the_robot_moves(tmp_path, kept):
    names = {"films": {"films": ("front",)}, "stored": {"films": (), "stored": ("front",)}}[kept]
    writer = moving((14, 14, 14), **names)
    shown = getattr(writer, kept)["front"]
    for e in range(3):
        shown[e] = [picture(0, t) for t in range(14)]
    shown[1][3:6] = [np.zeros((*SIZE, 3), np.uint8)] * 3
    shown[2][4:12] = [shown[2][4]] * 8
    found = written(tmp_path, writer)
    said = {problem.what: problem.where for problem in found.problems}
    dark = said.pop("pictures are dark in 1 of the episodes looked at")
    frozen = said.pop("pictures stand still while the robot moves in 1 of the episodes looked at")
    assert not said
    assert "first in episode 1, 3 steps from step 3 on" in dark
    assert "first in episode 2, 7 steps from step 5 on" in frozen


def test_a_standing_picture_of_a_standing_robot_is_no_fault(tmp_path):
    writer = moving((14, 9), films=(), stored=("front",))
    writer.stored["front"] = [[picture(0, t) for t in range(n)] for n in (14, 9)]
    writer.stored["front"][0][4:12] = [writer.stored["front"][0][4]] * 8
    for step in range(4, 12):
        writer.columns["observation.state"][0][step] = [0, 4]
    assert written(tmp_path, writer).problems == []


def test_pictures_of_some_episodes_are_looked_at_or_of_all(tmp_path):
    writer = LeRobotWriter((2,) * 15, films=(), stored=("front",))
    folder = writer.write(tmp_path / "set", "v3.0")
    key = "observation.images.front"
    assert checked(folder).seen[key].looked_at == 20
    assert checked(folder, every_picture=True).seen[key].looked_at == 30


# ---- the page ------------------------------------------------------------------------------------------


def test_the_findings_hold_all_that_was_found_as_plain_data(tmp_path):
    writer = moving(stored=("wrist",))
    writer.columns["action"][0][0][0] = np.nan
    writer.stats = False
    found = data_findings(written(tmp_path, writer))
    data = json.loads(json.dumps(found.to_json()))
    assert found.tables[0].rows[0][:2] == ["stops", "'action' is not finite"]
    assert data["usable"] is False
    assert data["problems"][0]["stops"] is True
    assert data["lengths"] == [12, 9, 14]
    assert data["columns"]["action"]["not_finite"] == 1
    assert data["cameras"]["observation.images.wrist"]["looked_at"] == 35
    assert found.summary["usable"] == "no"
    assert found.summary["steps a second"] == 10
    uses = {row[0]: row[-1] for row in found.tables[1].rows}
    assert uses["observation.state"] == "state"
    assert uses["next.reward"] == "reward"
    assert uses["observation.images.front"] == "picture 'front', if asked for"


def test_a_zarr_data_set_is_checked_too(tmp_path):
    arrays, ends = zarr_arrays((12, 9))
    arrays["img"] = arrays["img"] % 200
    found = checked(write_zarr(tmp_path / "set", arrays, ends))
    assert found.usable
    assert found.seen["img"].looked_at == 21
    said = [problem.what for problem in found.problems]
    assert "'keypoint' has columns that never change" in said


def test_an_action_that_nobody_named_stops(tmp_path):
    arrays, ends = zarr_arrays()
    arrays["moves"] = arrays.pop("action")
    path = write_zarr(tmp_path / "set", arrays, ends)
    assert any(
        problem.stops and "which key is the action" in problem.what for problem in checked(path).problems
    )
    assert checked(path, action=["moves"]).usable


def test_a_table_that_holds_no_numbers_is_told(tmp_path):
    folder = moving(films=()).write(tmp_path / "set", "v2.1")
    path = min(folder.glob("data/*/*.parquet"))
    table = pq.read_table(path)
    place = table.column_names.index("action")
    pq.write_table(table.set_column(place, "action", [["up"] * len(table)]), path)
    assert "'action' does not hold numbers but string" in only(checked(folder)).what


def test_only_the_cameras_asked_for_have_to_be_sound(tmp_path):
    folder = moving(films=("front", "top")).write(tmp_path / "set", "v3.0")
    for path in folder.glob("videos/observation.images.top/**/*.mp4"):
        path.unlink()
    assert not checked(folder).usable
    found = checked(folder, cameras=["front"])
    assert found.problems == []
    assert set(found.seen) == {"observation.images.front"}


def test_a_depth_camera_is_told_as_unused_and_stops_nothing(tmp_path):
    folder = moving(stored=("wrist",)).write(tmp_path / "set", "v3.0")
    info = folder / "meta" / "info.json"
    info.write_text(info.read_text().replace('"video.is_depth_map": false', '"video.is_depth_map": true'))
    found = checked(folder)
    assert found.usable
    assert load_data(folder, cameras="all").pictures.keys() == {"wrist"}
    uses = {row[0]: row[-1] for row in data_findings(found).tables[1].rows}
    assert uses["observation.images.front"] == "not used: it is a depth map"


def test_an_episode_of_another_width_is_told_and_stops(tmp_path):
    folder = moving(films=()).write(tmp_path / "set", "v2.1")
    path = sorted(folder.glob("data/*/*.parquet"))[1]
    table = pq.read_table(path)
    place = table.column_names.index("action")
    pq.write_table(table.set_column(place, "action", [[[0.0, 1.0]] * len(table)]), path)
    problem = checked(folder).problems[0]
    assert problem.what == "'action' has another width than in the episodes before"
    assert problem.where == "first in episode 1: 2 columns, 3 before"
    assert problem.stops
