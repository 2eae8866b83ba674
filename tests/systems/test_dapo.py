"""DAPO: each of its four changes alone, and that without them it is GRPO."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from language_seams import gradient, made_samples, seams

from policysmith.common.errors import SettingError
from policysmith.evaluation.conformance import check_system
from policysmith.systems import dapo, grpo
from policysmith.training.learners.group_relative import overlong

PLAIN = dapo.Config(overlong_buffer=0)


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("dapo", tmp_path)


def test_defaults_are_the_published_settings():
    config = dapo.Config()
    assert (config.prompts, config.group_size, config.optimizer_steps) == (512, 16, 16)
    assert (config.answer_limit, config.overlong_buffer) == (16384 + 4096, 4096)
    assert (config.clip_low, config.clip_high, config.filter_agreeing) == (0.2, 0.28, True)
    assert config.warmup_steps == 20 * config.optimizer_steps
    assert not seams(dapo, config).get("reference", False)


def test_with_one_clip_and_answers_of_equal_length_it_is_grpo():
    rewards, lengths = [1.0, 0.0, 2.0, 1.5], [3, 3, 3, 3]
    ours = seams(dapo, replace(PLAIN, clip_high=0.2))
    for moved in (0.0, 0.1, 0.3):
        torch.testing.assert_close(
            gradient(ours, made_samples(rewards, lengths=lengths), moved=moved),
            gradient(seams(grpo, grpo.Config(beta=0.0)), made_samples(rewards, lengths=lengths), moved=moved),
        )


def test_of_a_conversation_the_longest_turn_is_what_may_be_too_long():
    mask = torch.tensor([[0, 1, 1, 0, 1, 1, 1, 0, 1], [0, 1, 1, 0, 1, 1, 0, 0, 0]], dtype=torch.bool)
    turn = torch.tensor([[0, 1, 1, 0, 2, 2, 2, 0, 3], [0, 1, 1, 0, 2, 2, 0, 0, 0]])
    samples = made_samples([1.0, 1.0], lengths=[4, 4])
    samples.batch["mask"], samples.batch["turn"] = mask, turn
    label = overlong(limit=4, buffer=2)
    assert label(samples).batch["reward"].tolist() == [0.5, 1.0]  # three tokens of four, two of four
    samples = made_samples([1.0, 1.0], lengths=[4, 4])
    samples.batch["mask"] = mask  # the same tokens as one answer each
    assert label(samples).batch["reward"].tolist() == [0.0, 0.0]


def test_a_token_may_become_likelier_by_28_per_cent_and_less_likely_by_20():
    parts = seams(dapo, PLAIN)
    right, wrong = [1, 0], [0, 1]

    def learns(ratio: float, row: int, rewards: list[int]) -> bool:
        samples = made_samples([float(r) for r in rewards], lengths=[2, 2])
        moved = float(torch.tensor(ratio).log())
        return bool(gradient(parts, samples, moved=moved)[row].abs().sum() > 0)

    assert learns(1.27, 0, right)
    assert not learns(1.29, 0, right)
    assert learns(0.81, 0, wrong)
    assert not learns(0.79, 0, wrong)


def test_all_tokens_count_alike():
    found = gradient(seams(dapo, PLAIN), made_samples([1.0, 0.0], lengths=[2, 6]))
    size = found.abs()[found != 0]
    assert len(size) == 8
    assert float(size.max()) == pytest.approx(float(size.min()))


def test_answers_near_the_limit_lose_reward():
    config = replace(PLAIN, answer_limit=8, overlong_buffer=4)
    samples = seams(dapo, config)["label"](made_samples([1.0, 1.0, 1.0, 1.0], lengths=[4, 5, 8, 2]))
    assert samples.batch["reward"].tolist() == [1.0, 0.75, 0.0, 1.0]
    assert samples.batch["advantage"][:, 0].tolist() == pytest.approx(
        [0.5**0.5, -(0.5**0.5), -(0.5**0.5), 0.5**0.5], abs=1e-4
    )


def test_answers_that_were_cut_off_teach_nothing_where_asked():
    samples = {"lengths": [2, 2, 3, 3], "finished": [True, False, True, True]}
    rewards = [1.0, 0.0, 1.0, 0.0]
    plain = gradient(seams(dapo, PLAIN), made_samples(rewards, **samples))
    only = gradient(seams(dapo, replace(PLAIN, finished_only=True)), made_samples(rewards, **samples))
    assert (only[1] == 0).all()
    torch.testing.assert_close(only[[0, 2, 3]], plain[[0, 2, 3]])


def test_the_bonus_pays_for_entropy():
    config = replace(PLAIN, entropy_bonus=0.5)
    samples = seams(dapo, config)["label"](made_samples([1.0, 0.0], lengths=[1, 1]))
    entropy = torch.full(samples.batch["mask"].shape, 2.0, requires_grad=True)
    values, _ = seams(dapo, config)["loss"](samples.batch["old_log_prob"], entropy, samples.batch)
    values.sum().backward()
    assert entropy.grad is not None
    torch.testing.assert_close(entropy.grad, -0.5 * samples.batch["mask"].float())


@pytest.mark.parametrize("buffer", [-1, 9])
def test_a_buffer_that_is_no_part_of_the_answer_is_refused(buffer):
    with pytest.raises(SettingError, match=f"overlong_buffer is {buffer} for answers of at most 8"):
        dapo.Config(answer_limit=8, overlong_buffer=buffer)
