"""Systems that maximise a return, compared from the command line under one budget."""

import json

import numpy as np
import pytest
import torch

from policysmith.cli.main import main
from policysmith.common.rng import generator
from policysmith.evaluation.comparison import Arm
from policysmith.evaluation.returns import ReturnsResult, training_returns
from policysmith.experience.transitions import episodes_of, save_transitions
from policysmith.training.runs import RunDirectory


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLICYSMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path


TINY = ["--preset", "tiny", "--seeds", "2", "--evaluate", "3", "--json"]


def test_systems_that_act_get_the_same_steps_and_their_runs_are_shared(home, capsys):
    words = ["--env", "CartPole-v1", "--environment-steps", "160", *TINY]
    assert main(["compare", "ppo", "dqn", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["systems"]) == ["ppo", "dqn"]
    assert all(one["settings"]["environment_steps"] == 160 for one in found["systems"].values())
    assert all(len(one["returns"]) == 2 and min(one["returns"]) > 0 for one in found["systems"].values())
    runs = sorted((home / "cache/runs").iterdir())
    last = [RunDirectory.open(path).metrics()[-1]["environment_steps"] for path in runs]
    assert last == [160] * 4
    page = (home / "runs/comparison/report.html").read_text()
    assert "minus ppo" in page
    assert "over environment steps" in page
    assert main(["compare", "ppo", "dqn", *words]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert sorted((home / "cache/runs").iterdir()) == runs


def test_offline_systems_learn_from_the_same_data_and_are_played_in_the_environment(capsys):
    data = "swings.safetensors"
    count, rng = 40, generator(0, "swings")
    transitions = {
        "observation": torch.randn(count, 3, generator=rng),
        "action": torch.rand(count, 1, generator=rng) * 2 - 1,
        "reward": -torch.rand(count, generator=rng),
        "next_observation": torch.randn(count, 3, generator=rng),
        "terminated": torch.zeros(count, dtype=torch.bool),
    }
    save_transitions(episodes_of(transitions), data)
    words = ["--env", "Pendulum-v1", "--limit", "12", "--data", data, "--steps", "4", *TINY]
    assert main(["compare", "iql", "td3-bc", *words]) == 0
    found = json.loads(capsys.readouterr().out)["systems"]
    assert all(one["settings"]["steps"] == 4 for one in found.values())
    assert all(-12 * 17 < value < 0 for one in found.values() for value in one["returns"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ppo", "iql", "--env", "Pendulum-v1"], "differ in what they take"),
        (["behaviour-cloning", "famo2o", "--env", "point-reach"], "learns by acting"),
        (["mt-sac", "mtmh-sac", "--env", "MT10"], "several tasks at once"),
        (["ppo", "rl2", "--env", "point-goal"], "trials of several episodes"),
        (["rl2", "recurrent-ppo", "--env", "point-goal"], "run metaworld --policy"),
        (["c-morl", "ppo", "--env", "point-effort"], "returns are vectors"),
        (["ppo", "c-morl", "--env", "point-effort"], "reproduce c-morl"),
        (["ppo", "sac"], "--env"),
        (["ppo"], "two systems or more"),
        (["ppo", "dqn", "--env", "CartPole-v1"], "'dqn' has no preset called 'bench'"),
        (["ppo", "sac", "--env", "Pendulum-v1", "--preset", "tiny", "bench", "paper"], "3 presets for 2"),
    ],
)
def test_what_cannot_be_compared_is_said_in_the_users_words(words, said, capsys):
    assert main(["compare", *words]) == 1
    assert said in capsys.readouterr().err


def test_differences_are_paired_by_run_and_episode():
    def result(*played):
        return ReturnsResult(Arm("any", json, None), [np.array(run, float) for run in played])

    first = result([0, 100], [50, 150])
    second = result([10, 110], [60, 160])
    assert (second.minus(first).value, second.minus(first).width) == pytest.approx((10, 0))
    assert first.mean.width > 100


def test_a_curve_begins_where_the_first_training_episode_has_ended():
    lines = [
        {"environment_steps": 8.0},
        {"environment_steps": 16.0, "return": 3.0},
        {"step": 3, "return": 1.0},
    ]
    assert training_returns(lines) == ([16.0], [3.0])
