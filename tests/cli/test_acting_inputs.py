"""Tasks and demonstrations from words on the command line."""

import json

import pytest

from policysmith.cli.acting_inputs import ActingInputs, TaskInputs
from policysmith.cli.environment import EnvironmentInputs
from policysmith.cli.inputs import Inputs
from policysmith.cli.main import main
from policysmith.cli.runs import training_inputs
from policysmith.common.catalogue import find_system
from policysmith.common.errors import SettingError
from policysmith.policies.protocol import load_policy


def test_tasks_are_named_with_commas_between():
    (makers,) = TaskInputs(env="point-reach,Pendulum-v1", limit=7).arguments()
    first, second = (make() for make in makers)
    assert first.action_space.shape == (2,)
    assert second.action_space.shape == (1,)
    assert TaskInputs(env="point-reach,Pendulum-v1").subject == "2-tasks"


def test_a_suite_names_all_its_tasks():
    pytest.importorskip("metaworld")
    (makers,) = TaskInputs(env="MT10").arguments()
    assert len(makers) == 10
    with pytest.raises(SettingError, match="are what they are"):
        TaskInputs(env="MT10", limit=5).arguments()


def test_demonstrations_are_of_the_environment_that_is_acted_in(monkeypatch, tmp_path):
    monkeypatch.setattr("policysmith.cli.inputs.cache_folder", lambda: tmp_path)
    inputs = ActingInputs(env="point-reach", env_option=("horizon=12",), episodes=3)
    make, episodes = inputs.arguments()
    assert len(episodes) == 3
    assert make().unwrapped.horizon == 12
    assert episodes.lengths.max() <= 12
    other = ActingInputs(env="point-reach", env_option=("horizon=13",), episodes=3)
    assert inputs.fingerprint((make, episodes)) != other.fingerprint((make, episodes))


def test_nothing_to_act_in_is_an_error():
    for inputs in (TaskInputs(), ActingInputs()):
        with pytest.raises(SettingError, match="which"):
            inputs.arguments()


def test_each_system_is_brought_what_it_takes():
    wanted = {
        "serl": ActingInputs,
        "mt-sac": TaskInputs,
        "sac": EnvironmentInputs,
        "behaviour-cloning": Inputs,
        "iql": Inputs,
    }
    assert {name: training_inputs(find_system(name)) for name in wanted} == wanted


def test_pictures_take_the_place_of_the_state_and_the_last_few_are_seen_at_once():
    (make,) = EnvironmentInputs(env="point-reach", pictures=20, frames=2).arguments()
    shapes = {name: space.shape for name, space in make().observation_space.items()}
    assert shapes == {"state": (2,), "camera": (2, 20, 20, 3)}
    plain, seen = (EnvironmentInputs(env="point-reach", pictures=side) for side in (0, 20))
    assert plain.options == {}
    assert plain.fingerprint(()) != seen.fingerprint(())
    with pytest.raises(SettingError, match="2 frames are asked for, but no pictures"):
        EnvironmentInputs(env="point-reach", frames=2).arguments()
    with pytest.raises(SettingError, match="frames is 0"):
        EnvironmentInputs(env="point-reach", pictures=20, frames=0).arguments()


def test_the_command_line_learns_resumes_and_plays_from_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(
        [
            "run",
            "sac",
            "--env",
            "point-reach",
            "--pictures",
            "16",
            "--frames",
            "2",
            "--preset",
            "tiny",
            "--out",
            "run",
        ]
    )
    main(["resume", "run"])
    capsys.readouterr()
    main(["eval", "run", "--episodes", "2", "--limit", "3", "--json"])
    assert json.loads(capsys.readouterr().out)["environment"] == "point-reach"
    assert load_policy("run").pictures == {"camera": (2, 16, 16)}
