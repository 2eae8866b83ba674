"""Tasks and demonstrations from words on the command line."""

import pytest

from policysmith.cli.acting_inputs import ActingInputs, TaskInputs
from policysmith.cli.environment import EnvironmentInputs
from policysmith.cli.inputs import Inputs
from policysmith.cli.runs import training_inputs
from policysmith.common.catalogue import find_system
from policysmith.common.errors import SettingError


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
