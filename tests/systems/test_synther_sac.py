"""SAC with SynthER: that the replay is refilled inside the run, that it resumes after that, its limits."""

from __future__ import annotations

import itertools
from dataclasses import replace

import gymnasium
import pytest

from policysmith.common.errors import CapabilityError, DataError, SettingError
from policysmith.common.saving import load_tree, save_tree
from policysmith.synthesis.diffusion import DiffusionSettings
from policysmith.systems.synther_sac import PRESETS, Config, train

TINY = PRESETS["tiny"]


def test_generators_are_fitted_as_the_replay_grows():
    steps = [now.step for now in train("point-reach", config=TINY) if "generator_loss" in now.metrics]
    assert steps == [11, 21]  # at the beginning of the steps after ten and twenty


def test_a_run_cut_off_after_a_filling_goes_on_to_the_same_numbers(tmp_path):
    whole = train("point-reach", config=TINY, seed=3)
    cut = list(itertools.islice(whole, 14))[-1]
    save_tree(tmp_path / "state", cut.state.state_dict())
    rest = [now.metrics for now in whole]
    again = train("point-reach", config=TINY, seed=3, state=load_tree(tmp_path / "state"))
    assert [now.metrics for now in again] == rest


def test_with_no_share_of_made_transitions_what_is_learnt_is_sacs():
    none = replace(TINY, made_share=0.0)
    other = replace(none, count=5)  # whatever is made then does not matter
    first, second = (
        [now.metrics.get("q") for now in train("point-reach", config=one)] for one in (none, other)
    )
    assert first == second
    assert first != [now.metrics.get("q") for now in train("point-reach", config=TINY)]


def test_the_actor_is_updated_once_per_step_of_the_environment():
    steps = list(train("point-reach", config=TINY))
    learners = steps[-1].state.learners
    assert learners["critic"].steps == TINY.policy_every * learners["policy"].steps


def test_the_defaults_are_the_papers():
    config = Config()
    assert (config.updates, config.policy_every, config.refill_every) == (20, 20, 10_000)
    assert (config.generator.width, config.generator.level_size) == (1024, 256)
    assert config.generator == DiffusionSettings(width=1024, level_size=256)
    assert not PRESETS["control"].generator.terminals


def test_what_does_not_fit_is_refused():
    with pytest.raises(CapabilityError, match="discrete"):
        train(gymnasium.make("CartPole-v1"), config=TINY)
    with pytest.raises(SettingError, match="made_share"):
        replace(TINY, made_share=1.5)
    with pytest.raises(SettingError, match="width is 0"):
        replace(TINY, generator_width=0)
    with pytest.raises(SettingError, match="n_step"):
        replace(TINY, n_step=3)
    with pytest.raises(DataError, match="10 transitions, and a batch has 64"):
        list(train("point-reach", config=replace(TINY, generator_batch_size=64)))
