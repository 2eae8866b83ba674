"""LeRobot data sets of both versions: what is read is what was written, and every fault has a name."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from robot_files import FPS, SIZE, LeRobotWriter, grey, png

from policysmith.common.errors import DataError, FileError
from policysmith.experience.files import load_data, open_data

torch.set_num_threads(1)

VERSIONS = ["v2.1", "v3.0"]


@pytest.fixture(scope="module", params=VERSIONS)
def whole(request, tmp_path_factory):
    """A data set of three episodes with a film and a camera stored as PNG."""
    return LeRobotWriter(stored=("wrist",)).write(tmp_path_factory.mktemp("sets") / "set", request.param)


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "set")


def version_of(folder):
    return open_data(folder).version


def films(folder):
    return sorted(folder.glob("videos/**/*.mp4"))


def tables(folder):
    return sorted(folder.glob("data/**/*.parquet"))


# ---- what is read --------------------------------------------------------------------------------------


def test_numbers_and_marks_are_read_as_written(whole):
    episodes = load_data(whole)
    assert episodes.lengths.tolist() == [4, 3, 5]
    steps = [(e, t) for e, n in enumerate((4, 3, 5)) for t in range(n)]
    assert episodes.steps["observation"].tolist() == [[e, t] for e, t in steps]
    assert episodes.steps["action"].tolist() == [[t, -e, 0.5] for e, t in steps]
    assert episodes.steps["reward"].tolist() == [t for _, t in steps]
    assert episodes.succeeded.tolist() == [True, False, True]


def test_done_is_a_termination_where_the_task_succeeded_and_a_cut_elsewhere(whole):
    episodes = load_data(whole)
    last = (episodes.starts + episodes.lengths - 1).tolist()
    assert episodes.steps["terminated"].nonzero()[:, 0].tolist() == [last[0], last[2]]
    assert episodes.steps["truncated"].nonzero()[:, 0].tolist() == [last[1]]


def test_pictures_are_those_of_their_step_from_films_and_from_files(whole):
    episodes = load_data(whole, cameras="all")
    shown = [grey(e, t) for e, n in enumerate((4, 3, 5)) for t in range(n)]
    assert episodes.pictures == {"front": SIZE, "wrist": SIZE}
    assert episodes.steps["observation"]["wrist"].dtype == torch.uint8
    assert episodes.steps["observation"]["wrist"][:, 5, 5, 0].tolist() == shown
    film = episodes.steps["observation"]["front"]
    assert film[:, 5, 5, 0].tolist() == pytest.approx(shown, abs=3)
    assert film[:, -5, 5].min() > 250  # upright: the lower half is white
    assert episodes.final_observation["wrist"][:, 5, 5, 0].tolist() == [grey(0, 3), grey(1, 2), grey(2, 4)]


def test_only_the_cameras_asked_for_are_read_at_the_size_asked_for_under_the_name_asked_for(folder):
    for one in films(folder):
        one.unlink()  # not needed for the other camera
    episodes = load_data(folder, cameras={"eye": "wrist"}, picture_size=(6, 8), episodes=[2])
    assert episodes.pictures == {"eye": (6, 8)}
    assert episodes.steps["observation"]["eye"][:, 1, 1, 0].tolist() == [grey(2, t) for t in range(5)]
    assert load_data(folder).pictures == {}


def test_av1_is_decoded(tmp_path):
    writer = LeRobotWriter((2, 3))
    writer.codec = "libaom-av1"
    episodes = load_data(writer.write(tmp_path / "set", "v3.0"), cameras=["front"])
    shown = [grey(0, 0), grey(0, 1), grey(1, 0), grey(1, 1), grey(1, 2)]
    assert episodes.steps["observation"]["front"][:, 5, 5, 0].tolist() == pytest.approx(shown, abs=3)


def test_robot_rate_and_the_tasks_of_the_episodes_are_kept(whole):
    kept = load_data(whole).provenance
    assert kept["rate"] == FPS
    assert kept["robot"] == "so101"
    assert kept["tasks"] == {"push": [0, 2], "pull": [1]}
    assert kept["format"] == f"LeRobot {version_of(whole)}"
    json.dumps(kept)


@pytest.mark.parametrize("version", VERSIONS)
def test_parts_of_the_state_are_joined_by_default_and_by_choice(tmp_path, version):
    writer = LeRobotWriter((2, 3), films=())
    state = writer.columns.pop("observation.state")
    del writer.features["observation.state"]
    writer.add("observation.state.arm", state, "float32", (2,))
    writer.add("observation.state.hand", [[7.0] * n for n in (2, 3)], "float32")
    writer.add("observation.force", [[9.0] * n for n in (2, 3)], "float32")
    folder = writer.write(tmp_path / "set", version)
    assert load_data(folder).steps["observation"][1].tolist() == [0, 1, 7]
    chosen = load_data(folder, state=["observation.force", "observation.state.arm"])
    assert chosen.steps["observation"][1].tolist() == [9, 0, 1]
    goal = load_data(folder, goal=["observation.force"])
    assert goal.steps["observation"]["goal"].tolist() == [[9]] * 5


def test_the_order_of_rows_of_several_episodes_in_a_file_does_not_matter(tmp_path):
    folder = LeRobotWriter(films=()).write(tmp_path / "set", "v3.0")
    path = tables(folder)[0]
    table = pq.read_table(path)
    pq.write_table(table.take([6, 0, 5, 1, 4, 2, 3]), path)
    with pytest.raises(DataError, match="out of order"):  # within an episode it does
        load_data(folder)
    pq.write_table(table.take([0, 4, 1, 5, 2, 6, 3]), path)
    assert load_data(folder).steps["observation"][:7, 1].tolist() == [0, 1, 2, 3, 0, 1, 2]


# ---- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1.6", "v2.0", "v3.1", "v4.0", "unknown"])
def test_other_versions_are_refused_by_name(folder, version):
    path = folder / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"codebase_version": version}))
    with pytest.raises(FileError, match=rf"version v?{version}\n(.|\n)*v2.1 and v3.0(.|\n)*what to do"):
        load_data(folder)


def test_the_layout_of_version_1_is_refused_by_name(tmp_path):
    (tmp_path / "meta_data").mkdir()
    (tmp_path / "meta_data" / "info.json").write_text("{}")
    with pytest.raises(FileError, match=r"version v1\.x"):
        load_data(tmp_path)


def test_a_missing_film_is_named_with_its_camera_and_episode(folder):
    films(folder)[-1].unlink()
    with pytest.raises(FileError, match=r"film of camera 'observation.images.front' in episode 2 is missing"):
        load_data(folder, cameras="all")


def test_a_film_that_git_lfs_left_as_a_pointer_says_how_to_get_it(folder):
    films(folder)[0].write_text("version https://git-lfs.example/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(FileError, match=r"only points at it(.|\n)*git lfs pull"):
        load_data(folder, cameras="all")


def test_an_unknown_codec_is_named(folder):
    for one in films(folder):
        one.write_bytes(one.read_bytes().replace(b"avc1", b"zzz9"))
    with pytest.raises(FileError, match=r"codec 'zzz9'"):
        load_data(folder, cameras=["front"])


def test_a_camera_that_is_not_there_is_an_error_that_lists_those_that_are(folder):
    with pytest.raises(DataError, match=r"camera 'top' is not in the data(.|\n)*front, wrist"):
        load_data(folder, cameras=["top"])
    with pytest.raises(DataError, match=r"'action' holds a number and no pictures"):
        load_data(folder, cameras=["action"])
    with pytest.raises(DataError, match=r"cannot be called 'state'"):
        load_data(folder, cameras={"state": "front"})


def test_a_depth_camera_is_refused_as_no_policy_takes_it(folder):
    path = folder / "meta" / "info.json"
    info = json.loads(path.read_text())
    info["features"]["observation.images.front"]["info"]["video.is_depth_map"] = True
    path.write_text(json.dumps(info))
    with pytest.raises(DataError, match="no policy takes the camera 'front': it is a depth map"):
        load_data(folder, cameras=["front"])


def test_keys_that_are_not_there_or_no_numbers_are_refused(folder):
    with pytest.raises(
        DataError, match=r"'observation.velocity' is not in the data(.|\n)*observation.state, action"
    ):
        load_data(folder, state=["observation.velocity"])
    with pytest.raises(DataError, match="is a picture and cannot be the action"):
        load_data(folder, action=["observation.images.front"])
    with pytest.raises(DataError, match=r"there is no episode 3(.|\n)*0 to 2"):
        load_data(folder, episodes=[0, 3])
    with pytest.raises(DataError, match="nothing to observe"):
        load_data(folder, state=[])


@pytest.mark.parametrize("version", VERSIONS)
def test_an_episode_of_another_rate_is_an_error_that_says_both(tmp_path, version):
    writer = LeRobotWriter(films=())
    writer.times[1] = [0.0, 0.2, 0.4]
    folder = writer.write(tmp_path / "set", version)
    with pytest.raises(DataError, match=r"run at 5 steps a second, the data set at 10\n(.|\n)*episode 1"):
        load_data(folder)
    assert len(load_data(folder, episodes=[0, 2])) == 2


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf, None])
def test_a_value_that_is_not_finite_is_named_with_episode_step_and_column(tmp_path, version, value):
    writer = LeRobotWriter(films=())
    writer.columns["action"][2][3][1] = value
    writer.stats = False
    folder = writer.write(tmp_path / "set", version)
    with pytest.raises(DataError, match=r"'action' is not finite\n.*episode 2, step 3, column 1 \(b\)"):
        load_data(folder)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.95])
def test_a_table_cut_short_is_named(folder, share):
    path = tables(folder)[-1]
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        FileError, match=rf"the file with episode 2 is (damaged or cut short|empty)(.|\n)*{path.name}"
    ):
        load_data(folder)


def test_a_missing_table_is_named(folder):
    tables(folder)[0].unlink()
    with pytest.raises(FileError, match=r"the file with episode 0 is missing"):
        load_data(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"codebase_version": "v3.0"}'])
def test_a_damaged_description_is_refused(folder, content):
    (folder / "meta" / "info.json").write_text(content)
    with pytest.raises(FileError):
        load_data(folder)


def test_damaged_lists_of_episodes_are_refused(folder):
    for path in [*folder.glob("meta/episodes.jsonl"), *folder.glob("meta/episodes/*/*.parquet")]:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match="episodes is damaged or cut short"):
        open_data(folder)


def test_steps_that_are_missing_are_named(tmp_path):
    folder = LeRobotWriter(films=()).write(tmp_path / "set", "v2.1")
    path = tables(folder)[2]
    table = pq.read_table(path)
    pq.write_table(table.take([0, 1, 3, 4]), path)
    with pytest.raises(DataError, match="4 steps are there and 5 are declared"):
        load_data(folder)
    pq.write_table(table.take([0, 1, 3, 4, 4]), path)
    with pytest.raises(DataError, match=r"missing or out of order(.|\n)*step 2"):
        load_data(folder)


def test_vectors_of_unequal_length_are_refused(tmp_path):
    writer = LeRobotWriter(films=())
    writer.columns["action"][1][0] = [1.0, 2.0]
    writer.stats = False
    with pytest.raises(DataError, match="'action' has lists of unequal lengths"):
        load_data(writer.write(tmp_path / "set", "v2.1"))


def test_a_stored_picture_that_is_damaged_is_named(tmp_path):
    folder = LeRobotWriter((2,), films=(), stored=("wrist",)).write(tmp_path / "set", "v2.1")
    (path,) = tables(folder)
    table = pq.read_table(path)
    good = png(np.zeros((*SIZE, 3), np.uint8))
    cells = pa.array([{"bytes": good, "path": None}, {"bytes": good[:50], "path": None}])
    place = table.column_names.index("observation.images.wrist")
    pq.write_table(table.set_column(place, "observation.images.wrist", cells), path)
    with pytest.raises(FileError, match=r"cannot be decoded(.|\n)*episode 0, step 1"):
        load_data(folder, cameras="all")


def test_pictures_that_cannot_fit_into_memory_are_refused_before_they_are_read(whole, monkeypatch):
    monkeypatch.setattr("policysmith.experience.reading.memory_bytes", lambda: 12 * 48 * 64 * 3)
    with pytest.raises(DataError, match=r"pictures need(.|\n)*--picture-size"):
        load_data(whole, cameras=["front"])
    assert load_data(whole, cameras=["front"], picture_size=(12, 16)).pictures == {"front": (12, 16)}
