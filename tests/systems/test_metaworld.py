"""The benchmark's entry and its command."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("metaworld")

from dataclasses import replace

from policysmith.cli.main import main
from policysmith.common.errors import UnknownNameError
from policysmith.common.stages import result_of
from policysmith.policies.actors import gaussian_actor
from policysmith.systems.metaworld import PRESETS, Config, evaluate
from policysmith.worlds.metaworld import MetaWorldExpert

TINY = PRESETS["tiny"]


def test_defaults_are_the_published_protocol():
    config = Config()
    assert (config.suite, config.horizon, config.goals) == ("MT10", 500, None)
    assert (config.adaptation_steps, config.adaptation_episodes, config.evaluation_episodes) == (1, 10, 3)
    assert (config.meta_batch, config.reward_version) == (20, "v2")


def test_what_was_measured_says_with_which_rewards_and_rules():
    found = result_of(evaluate(gaussian_actor(39, 4), config=replace(TINY, reward_version="v1")))
    assert found.summary["reward version"] == "v1"
    assert found.summary["protocol"] == "one episode per goal; 2 goals per task, horizon 10"
    assert found.summary["suite"] == "MT1 reach-v3, goals of seed 0"


def test_meta_learning_suites_follow_the_other_protocol():
    config = replace(
        TINY, suite="ML1", horizon=80, adaptation_episodes=1, evaluation_episodes=1, meta_batch=2
    )
    found = result_of(evaluate(MetaWorldExpert, config=config))
    assert found.summary["success"] == 1.0
    assert found.summary["protocol"] == "1 x 1 episodes to explore, then 1; 2 goals per task, horizon 80"
    assert [table.rows for table in found.tables[1:]] == [[[1, 1.0], [2, 1.0]]]


def test_a_suite_that_is_not_there_is_answered_before_anything_runs():
    with pytest.raises(UnknownNameError, match="MT10"):
        next(evaluate(gaussian_actor(39, 4), config=replace(TINY, suite="MT11")))


def test_the_command_measures_a_saved_policy(tmp_path, capsys):
    gaussian_actor(39, 4, deterministic=True).save_pretrained(tmp_path / "policy")
    words = ["run", "metaworld", "--policy", str(tmp_path / "policy"), "--preset", "tiny", "--json"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "findings.json").read_text())
    assert printed["findings"]["results"]["policy"]["tasks"] == ["reach-v3"]
    assert "reach-v3" in (tmp_path / "out" / "report.html").read_text()
