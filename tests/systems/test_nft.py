"""NFT as a system: on policy it is Dr. GRPO, without negatives it is rejection fine-tuning."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.evaluation.conformance import check_system, language_inputs
from policysmith.objectives.averaging import fixed_weight
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.systems import nft
from policysmith.training.learners.group_relative import centred, clipped
from policysmith.training.learners.language import language_run

ONE_STEP = nft.Config(
    steps=1, prompts=4, group_size=8, answer_limit=4, optimizer_steps=1, learning_rate=1e-3, warmup_steps=0
)


def weights_after(run) -> torch.Tensor:
    (now,) = run
    return torch.cat([p.detach().flatten() for p in now.state.learners["policy"].module.parameters()])


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("nft", tmp_path)


def test_a_step_on_fresh_answers_is_that_of_dr_grpo(tmp_path: Path) -> None:
    model, prompts, reward = language_inputs(tmp_path)
    ours = weights_after(nft.train(model, prompts, reward, config=ONE_STEP, seed=3))
    theirs = weights_after(
        language_run(
            model,
            prompts,
            reward,
            settings=ONE_STEP,
            label=centred(),
            loss=clipped(),
            weight=lambda batch: fixed_weight(batch["mask"], denominator=ONE_STEP.denominator),
            seed=3,
        )
    )
    start = torch.cat([p.detach().flatten() for p in LanguagePolicy.load(model).parameters()])
    assert float((ours - start).abs().max()) > 1e-4  # Adam's first step is the learning rate
    # Adam divides by the gradient's size, so that where it is nothing but rounding its sign is too.
    close = (ours - theirs).abs() < 1e-6
    assert float(close.float().mean()) > 0.999


def test_nothing_has_moved_before_the_first_step_at_any_temperature(tmp_path: Path) -> None:
    model, prompts, reward = language_inputs(tmp_path)
    for recompute in (True, False):
        config = nft.Config(
            steps=2,
            prompts=4,
            group_size=8,
            answer_limit=4,
            optimizer_steps=1,
            temperature=0.7,
            recompute_old=recompute,
        )
        for now in nft.train(model, prompts, reward, config=config):
            assert now.metrics["gap"] < 1e-4


def test_without_the_filter_a_prompt_that_is_always_right_stops_the_run(tmp_path: Path) -> None:
    model, prompts, _ = language_inputs(tmp_path)
    config = nft.Config(steps=2, prompts=2, group_size=2, answer_limit=4, optimizer_steps=1, rounds=2)
    always = lambda text, prompt: 1.0  # noqa: E731
    with pytest.raises(DataError, match="all answers to a prompt are right"):
        next(nft.train(model, prompts, always, config=replace(config, filter_agreeing=False)))
    assert [now.metrics["loss"] for now in nft.train(model, prompts, always, config=config)] == [0, 0]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"negative_floor": 0.0}, "logarithm"),
        ({"group_size": 1}, "one right answer and one wrong"),
        ({"negative_weight": -1.0}, "0 or more"),
        ({"denominator": 0.0}, "above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, says) -> None:
    with pytest.raises(SettingError, match=says):
        nft.Config(**setting)
