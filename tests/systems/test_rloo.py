"""RLOO: the whole answer as one action, its baseline and the divergence in its reward."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from language_seams import gradient, made_samples, seams

from policysmith.common.errors import DataError, SettingError
from policysmith.evaluation.conformance import check_system
from policysmith.systems import dr_grpo, rloo

PLAIN = rloo.Config(beta=0.0)


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("rloo", tmp_path)


def test_defaults_are_the_published_settings():
    config = rloo.Config()
    assert config.prompts * config.group_size == 512
    assert (config.optimizer_steps, config.steps, config.warmup_steps) == (2, 600, 36)
    assert (config.learning_rate, config.beta) == (1e-6, 0.03)
    assert seams(rloo, config)["reference"]
    assert not seams(rloo, PLAIN)["reference"]


def test_the_gradient_is_the_whole_answers_by_hand():
    """Of answers rewarded 4, 1, 1: A = 4 - 1, 1 - 2.5, 1 - 2.5; every token of a row counts a third."""
    found = gradient(seams(rloo, PLAIN), made_samples([4.0, 1.0, 1.0], lengths=[1, 2, 3], group_size=3))
    assert found.sum(1).tolist() == pytest.approx([-3 / 3, 2 * 1.5 / 3, 3 * 1.5 / 3])


def test_the_divergence_is_part_of_the_reward_by_hand():
    """Each token is 0.1 likelier than under the reference: answers of 1 and 3 tokens lose 0.05 and 0.15."""
    samples = seams(rloo, replace(PLAIN, beta=0.5))["label"](made_samples([1.0, 1.0], lengths=[1, 3]))
    assert samples.batch["reward"].tolist() == pytest.approx([0.95, 0.85])
    assert samples.batch["advantage"][:, 0].tolist() == pytest.approx([0.1, -0.1], abs=1e-6)
    assert float(samples.batch["log", "kl"].mean()) == pytest.approx(0.2)


def test_its_first_step_goes_dr_grpos_way():
    rewards, lengths = [1.0, 0.0, 0.3, 0.4], [2, 4, 3, 1]
    ours = gradient(seams(rloo, PLAIN), made_samples(rewards, lengths=lengths))
    theirs = gradient(seams(dr_grpo, dr_grpo.Config(answer_limit=8)), made_samples(rewards, lengths=lengths))
    # two answers to a prompt: the others' mean is twice as far as the group's; no division by the limit
    torch.testing.assert_close(ours, 2 * 8 * theirs)


def test_nothing_is_clipped_however_far_it_has_moved():
    rewards, lengths = [1.0, 0.0], [2, 4]
    still, moved = (
        gradient(seams(rloo, PLAIN), made_samples(rewards, lengths=lengths), moved=by) for by in (0.0, 3.0)
    )
    torch.testing.assert_close(still, moved)


def test_a_group_of_one_has_no_others():
    with pytest.raises(SettingError, match="group_size is 1"):
        rloo.Config(group_size=1)
    with pytest.raises(SettingError, match="beta is -1"):
        rloo.Config(beta=-1)


def test_a_divergence_needs_its_reference():
    samples = made_samples([1.0, 0.0], lengths=[2, 2])
    del samples.batch["reference_log_prob"]
    with pytest.raises(DataError, match="reference_log_prob"):
        seams(rloo, rloo.Config())["label"](samples)
