"""SynthER: what it finds, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.common.stages import result_of
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.experience.replay import transitions_of
from policysmith.systems.synther import PRESETS, Config, generate, upsample

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def recorded() -> Episodes:
    return Episodes.from_arrays(Demonstrations("point-reach", episodes=6, action_noise=0.1).record())


def test_what_is_found_and_what_is_made_are_the_same_transitions(recorded):
    found = result_of(generate(recorded, config=TINY))
    assert found.transitions is not None
    assert found.summary["made"] == len(found.transitions.steps) == TINY.count
    assert found.transitions.fingerprint == upsample(recorded, config=TINY).fingerprint
    assert 0 <= float(found.summary["marginal similarity"]) <= 1
    assert "observation 0" in [row[0] for row in found.tables[0].rows]


def test_constant_columns_are_told(recorded):
    given = transitions_of(recorded)
    given["action"][:, 0] = 0.25
    found = result_of(generate(given, config=TINY))
    assert found.data["constant"] == ["action 0"]
    assert "action 0" in found.notices[0]


def test_a_generator_that_was_not_trained_is_told_to_be_far_off(recorded):
    found = result_of(generate(recorded, config=replace(TINY, steps=1, churn=(0.0, 0.0, 1.0, 1.0))))
    assert any("far from what was recorded" in notice for notice in found.notices)


def test_the_defaults_are_the_papers():
    assert (Config().width, Config().depth, Config().steps, Config().count) == (2048, 6, 100_000, 5_000_000)
    assert Config().churn == (80.0, 0.05, 50.0, 1.003)


def test_discrete_actions_and_too_few_transitions_are_refused(recorded):
    given = transitions_of(recorded)
    with pytest.raises(DataError, match="discrete"):
        upsample(given | {"action": torch.zeros(len(given["action"]), 1, dtype=torch.long)}, config=TINY)
    with pytest.raises(DataError, match="a batch has 256"):
        upsample({key: value[:100] for key, value in given.items()}, config=replace(TINY, batch_size=None))
    with pytest.raises(SettingError, match="count is 0"):
        replace(TINY, count=0)
