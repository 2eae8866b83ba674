"""GHPO as a system: its advantages and loss by hand, what it reduces to, and what it refuses."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from tensordict import TensorDict

from policysmith.common.errors import DataError, SettingError
from policysmith.evaluation.conformance import check_system, language_inputs
from policysmith.experience.prompts import Prompts, from_rows
from policysmith.objectives.advantages import group_advantage
from policysmith.objectives.averaging import token_mean_weight
from policysmith.rewards.scoring import Scoring
from policysmith.systems import ghpo
from policysmith.training.learners.group_relative import clipped

TINY = replace(ghpo.PRESETS["tiny"], steps=2, template="{question}|{hint}|")


def metrics(inputs, config: ghpo.Config = TINY, steps: int = 2) -> list[dict[str, float]]:
    return [now.metrics for now in islice(ghpo.train(*inputs, config=config, seed=0), steps)]


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("ghpo", tmp_path)


def test_advantages_of_weighted_rewards_by_hand():
    rewards = torch.tensor([1.5, 0.5, 0.5, 0.0])
    found = group_advantage(rewards, torch.zeros(4, dtype=torch.long), eps=1e-4)
    torch.testing.assert_close(
        found, torch.tensor([1.390538, -0.198648, -0.198648, -0.993241]), atol=1e-6, rtol=0
    )
    alike = group_advantage(torch.full((4,), 0.5), torch.zeros(4, dtype=torch.long), eps=1e-4)
    assert alike.tolist() == [0, 0, 0, 0]


def test_the_loss_by_hand():
    log_prob = torch.tensor([[-0.2, -0.9, -1.0], [-0.5, -0.7, 0]], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([[-0.3, -0.5, -1.5], [-0.4, -0.9, 0]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.bool)
    advantage = torch.tensor([[0.8], [-0.8]], dtype=torch.float64)
    batch = TensorDict({"old_log_prob": old, "advantage": advantage}, batch_size=[2])
    values, _ = clipped(low=0.2, high=0.2)(log_prob, torch.zeros_like(log_prob), batch)
    loss = (values * token_mean_weight(mask)).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-0.135880, abs=1e-6)
    gradient = torch.tensor([[-0.176827, -0.107251, 0], [0.144774, 0.195424, 0]], dtype=torch.float64)
    torch.testing.assert_close(log_prob.grad, gradient, atol=1e-6, rtol=0)


def test_hints_are_given_where_all_answers_fail_and_nowhere_else(tmp_path):
    model, prompts, _ = language_inputs(tmp_path)
    failing = metrics((model, prompts, lambda text, prompt: 0.0))[0]
    assert (failing["hard"], failing["hint"], failing["hint/0.75"]) == (1, 0.75, 1)
    assert failing["sampled_tokens"] > failing["answer_tokens"]
    fine = metrics((model, prompts, lambda text, prompt: 1.0))[0]
    assert (fine["hard"], fine["hint"]) == (0, 0)
    assert fine["sampled_tokens"] == fine["answer_tokens"]


def test_hints_wait_for_their_step(tmp_path):
    model, prompts, _ = language_inputs(tmp_path)
    lines = metrics((model, prompts, lambda text, prompt: 0.0), replace(TINY, hint_from=1))
    assert [line["hint"] for line in lines] == [0, 0.75]


def test_a_group_that_fails_with_every_hint_teaches_nothing(tmp_path):
    model, prompts, _ = language_inputs(tmp_path)
    assert metrics((model, prompts, lambda text, prompt: 0.0))[0]["grad_norm"] == 0


def test_a_mix_of_forms_teaches_even_where_all_answers_are_wrong(tmp_path):
    model, prompts, parity = language_inputs(tmp_path)
    scoring = Scoring({"accuracy": lambda text, prompt: 0.0, "form": parity}, weights={"form": 0.5})
    config = replace(TINY, accuracy="accuracy", group_size=8)
    line = metrics((model, prompts, scoring), config)[0]
    assert line["hard"] == 1
    assert line["grad_norm"] > 0


def test_a_question_without_a_solution_is_named_before_anything_is_sampled(tmp_path):
    model, prompts, parity = language_inputs(tmp_path)
    bare = Prompts([*prompts[:2], *from_rows([{"prompt": "9+9=", "answer": "18"}])])
    with pytest.raises(DataError, match=r"(?s)no solution.*row 2 '9\+9='"):
        ghpo.train(model, bare, parity, config=TINY)
    assert metrics((model, bare, parity), replace(TINY, skip_unsolved=True, prompts=3))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stages": (0.5, 0.25)}, "stages"),
        ({"template": "{question}"}, "hint"),
        ({"group_size": 1}, "compared with each other"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(SettingError, match=said):
        replace(ghpo.PRESETS["tiny"], **settings)
