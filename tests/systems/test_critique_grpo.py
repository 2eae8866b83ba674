"""Critique-GRPO as a system: its loss over a run's batch by hand, critics, and what it refuses."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from tensordict import TensorDict

from policysmith.common.errors import DataError, SettingError
from policysmith.evaluation.conformance import check_system, language_inputs
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.systems import critique_grpo
from policysmith.systems.critique_grpo import Config, refinement_loss, with_bonus

TINY = replace(critique_grpo.PRESETS["tiny"], steps=1)


def metrics(inputs, config: Config = TINY, **options) -> dict[str, float]:
    return next(islice(critique_grpo.train(*inputs, config=config, seed=0, **options), 1)).metrics


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("critique-grpo", tmp_path)


def batch_of_three() -> tuple[torch.Tensor, TensorDict]:
    """The refinement and two answers, three tokens at most."""
    log_prob = torch.tensor([[-2.3, -0.1, -4.6], [-0.5, -1.0, -0.2], [-0.9, -0.4, 0]], dtype=torch.float64)
    batch = {
        "old_log_prob": torch.tensor([[-2.0, -0.2, -5.0], [-0.6, -0.9, -0.2], [-1.0, -0.5, 0]]).double(),
        "mask": torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0]], dtype=torch.bool),
        "advantage": torch.tensor([[2 / 3], [-1 / 3], [-1 / 3]], dtype=torch.float64),
        "off_policy": torch.tensor([True, False, False]),
    }
    return log_prob, TensorDict(batch, batch_size=[3])


def total(config: Config, entropy: float = 0.0) -> float:
    log_prob, batch = batch_of_three()
    batch = with_bonus(batch, config)
    values, _ = refinement_loss(config)(log_prob, torch.full_like(log_prob, entropy), batch)
    return float((values * (batch["mask"].float() / config.answer_limit)).sum())


def test_values_are_summed_over_tokens_and_divided_by_the_limit():
    assert total(replace(TINY, answer_limit=3)) == pytest.approx(0.248380, abs=1e-6)
    assert total(replace(TINY, answer_limit=6)) == pytest.approx(0.248380 / 2, abs=1e-6)


def test_the_entropy_bonus_is_a_mean_over_tokens_whatever_the_limit():
    for limit in (3, 6):
        config = replace(TINY, answer_limit=limit, entropy=0.1)
        assert total(config, entropy=2.0) - total(config) == pytest.approx(-0.1 * 2.0)


def test_the_bonus_does_not_depend_on_how_a_batch_is_cut():
    config = replace(TINY, entropy=0.1)
    log_prob, batch = batch_of_three()
    batch = with_bonus(batch, config)
    entropy = torch.rand(3, 3, dtype=torch.float64)
    whole, _ = refinement_loss(config)(log_prob, entropy, batch)
    parts = [
        refinement_loss(config)(log_prob[i : i + 1], entropy[i : i + 1], batch[i : i + 1])[0]
        for i in range(3)
    ]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_the_step_learns_the_mixed_group(tmp_path):
    """Answers are wrong and refinements right, so that the mean of a mixed pair lies between."""
    model, prompts, _ = language_inputs(tmp_path)

    def told(text: str, prompt: Prompt) -> float:
        return float("\n" in str(prompt.text))

    line = metrics((model, prompts, told))
    assert (line["unaided_reward"], line["refined_right"], line["replaced"]) == (0, 1, 1)
    assert line["reward"] == 0.5
    assert line["agreeing"] == 0
    assert line["grad_norm"] > 0
    assert line["gap"] == pytest.approx(0, abs=1e-3), "nothing is known of how refinements were sampled"


def test_a_critic_says_what_is_wrong(tmp_path):
    model, prompts, _ = language_inputs(tmp_path)
    asked = []

    def critic(text: str, prompt: Prompt) -> str:
        asked.append(prompt.text)
        return "mind the carry"

    config = replace(TINY, critique="text")
    line = metrics((model, prompts, lambda text, prompt: 0.0), config, critic=critic)
    assert len(asked) == 4
    assert line["failed_critiques"] == 0
    with pytest.raises(SettingError, match="'text' without a critic"):
        critique_grpo.train(model, prompts, told, config=config)
    with pytest.raises(SettingError, match="'simple_gt' with a critic"):
        critique_grpo.train(model, prompts, told, config=TINY, critic=critic)


def told(text: str, prompt: Prompt) -> float:
    return 0.0


def test_a_prompt_without_the_truth_that_is_to_be_told_is_named(tmp_path):
    model, prompts, _ = language_inputs(tmp_path)
    bare = Prompts([prompts[0], Prompt("9+9=")])
    with pytest.raises(DataError, match=r"(?s)row 1 '9\+9='.*'answer'"):
        critique_grpo.train(model, bare, told, config=TINY)
    assert metrics((model, bare, told), replace(TINY, critique="simple"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"group_size": 1}, "gives way to a refinement"),
        ({"gamma": 0.0}, "not defined at p = 0"),
        ({"critique": "harsh"}, "simple_gt or text"),
        ({"template": "{question}{answer}"}, "critique"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(SettingError, match=said):
        replace(TINY, **settings)
