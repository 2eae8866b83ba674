"""`data check` and `data convert`, and `--data` with any format: words in, exit code and words out."""

import json

import numpy as np
import pytest
import torch
from robot_files import LeRobotWriter, picture, write_zarr, zarr_arrays

from policysmith.cli.inputs import Inputs, episode_numbers
from policysmith.cli.main import main
from policysmith.common.errors import SettingError
from policysmith.experience.store import load_episodes

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    writer = LeRobotWriter((12, 9), stored=("wrist",))
    writer.columns["action"] = [
        np.random.default_rng(e).normal(size=(n, 3)).tolist() for e, n in enumerate((12, 9))
    ]
    for shown in (writer.films["front"], writer.stored["wrist"]):
        for e, n in enumerate((12, 9)):
            shown[e] = [picture(0, 3 * e + t) for t in range(n)]
    return writer.write(tmp_path_factory.mktemp("sets") / "sound", "v3.0")


@pytest.fixture
def broken(tmp_path):
    writer = LeRobotWriter(films=())
    writer.columns["action"][1][0][0] = np.nan
    writer.stats = False
    return writer.write(tmp_path / "broken", "v2.1")


def test_a_sound_data_set_is_usable_and_a_broken_one_is_not(sound, broken, capsys):
    assert main(["data", "check", str(sound)]) == 0
    said = capsys.readouterr().out
    assert "LeRobot v3.0" in said
    assert "0 stop loading" in said
    assert main(["data", "check", str(broken)]) == 1
    said = capsys.readouterr().out
    assert said.startswith(
        "stops: 'action' is not finite\n  where: first in episode 1, step 0, column 0 (a)\n"
    )
    assert "what to do: repair" in said


def test_the_check_prints_json_and_nothing_else(broken, capsys):
    assert main(["data", "check", str(broken), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is False
    assert found["problems"][0]["what"] == "'action' is not finite"
    assert found["summary"]["episodes"] == 3


def test_a_usable_data_set_is_graded_and_where_that_is_impossible_it_says_so(sound, tmp_path, capsys):
    assert main(["data", "check", str(sound), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["quality"]["summary"]["action variance"] == found["summary"]["action variance"] > 0
    assert main(["data", "check", str(sound), "--json", "--no-quality"]) == 0
    assert "quality" not in json.loads(capsys.readouterr().out)
    short = LeRobotWriter((1, 4, 4), films=()).write(tmp_path / "short", "v2.1")
    assert main(["data", "check", str(short), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "It was not graded" in " ".join(found["notices"])


def test_the_page_tells_the_problems_first(broken, sound, tmp_path, capsys):
    assert main(["data", "check", str(broken), "--out", str(tmp_path / "page.html")]) == 1
    page = (tmp_path / "page.html").read_text()
    assert page.index("is not finite") < page.index("steps a second") < page.index("What is recorded")
    assert main(["data", "check", str(sound), "--out", str(tmp_path / "pages")]) == 0
    page = (tmp_path / "pages" / "report.html").read_text()
    assert "No problems were found" in page
    assert "observation.images.front" in page


def test_what_cannot_be_opened_is_reported_and_not_raised(tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "absent"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["problems"][0]["what"] == "there is nothing at this path"
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"codebase_version": "v2.0"}')
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "version v2.0" in capsys.readouterr().out


def test_a_choice_of_keys_makes_a_data_set_usable(tmp_path, capsys):
    arrays, ends = zarr_arrays()
    arrays["moves"] = arrays.pop("action")
    path = str(write_zarr(tmp_path / "set", arrays, ends))
    assert main(["data", "check", path]) == 1
    assert main(["data", "check", path, "--action-keys", "moves"]) == 0


def test_a_data_set_is_converted_to_minari_with_the_pictures_asked_for(sound, tmp_path, capsys):
    out = tmp_path / "minari"
    words = ["--cameras", "eye=wrist", "--picture-size", "12", "16", "--data-episodes", "1"]
    assert main(["data", "convert", str(sound), str(out), *words]) == 0
    episodes = load_episodes(out)
    assert episodes.lengths.tolist() == [9]
    assert episodes.pictures == {"eye": (12, 16)}
    assert episodes.provenance["tasks"] == {"pull": [0]}
    assert episodes.provenance["episodes"] == [1]
    assert main(["data", "check", str(out)]) == 0
    assert main(["data", "convert", str(sound), str(out)]) == 1
    assert "something at this path already" in capsys.readouterr().err


def test_training_inputs_read_any_format_and_say_what_was_read(sound, tmp_path, capsys):
    episodes = Inputs(data=str(sound)).load()
    assert episodes.lengths.tolist() == [12, 9]
    assert episodes.pictures == {}
    said = " ".join(capsys.readouterr().err.split())
    assert "LeRobot v3.0: 2 episodes, 21 steps" in said
    assert "pictures left out: front, wrist" in said
    assert Inputs(data=str(sound), cameras=("all",)).load().pictures.keys() == {"front", "wrist"}
    arrays = Inputs(data=str(write_zarr(tmp_path / "set", *zarr_arrays()))).load()
    assert arrays.lengths.tolist() == [4, 3, 5]


def test_inputs_survive_the_round_trip_that_resuming_makes(sound):
    inputs = Inputs(data=str(sound), cameras=("eye=front",), picture_size=(12, 16), data_episodes="0")
    again = Inputs(**json.loads(json.dumps(inputs.to_json())))
    assert again.load().fingerprint == inputs.load().fingerprint
    assert again.load().pictures == {"eye": (12, 16)}


def test_reading_options_without_data_are_refused():
    with pytest.raises(SettingError, match=r"give --data PATH"):
        Inputs(env="point", state_keys=("hand",)).load()


@pytest.mark.parametrize(
    ("text", "numbers"), [("", None), ("3", [3]), ("0-2,5", [0, 1, 2, 5]), (" 4 , 1-1", [4, 1])]
)
def test_episodes_are_chosen_by_number_and_range(text, numbers):
    assert episode_numbers(text) == numbers


@pytest.mark.parametrize("text", ["a", "3-1", "1-", "-1", "1..3"])
def test_ranges_that_cannot_be_meant_are_refused(text):
    with pytest.raises(SettingError, match="range of episodes"):
        episode_numbers(text)


def test_the_verb_alone_tells_its_words(capsys):
    assert main(["data"]) == 0
    assert "data check PATH" in capsys.readouterr().out
    assert main(["data", "eat"]) == 2
