"""TON as a system: two stages in one run, its loss worked by hand, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.evaluation.conformance import check_system
from policysmith.experience.prompts import Prompt, from_rows
from policysmith.experience.thoughts import Layout
from policysmith.objectives.advantages import group_advantage
from policysmith.objectives.averaging import sequence_mean_weight
from policysmith.objectives.divergences import kl_k3
from policysmith.objectives.policy_gradient import importance_ratio
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.scoring import Scoring
from policysmith.systems import ton
from policysmith.training.learners.group_relative import reinforce, with_kl

PROMPTS = from_rows(
    {"prompt": f"{a}+{b}=", "answer": a + b, "thought": f"{a} and {b}"} for a in range(3) for b in range(3)
)
CONFIG = ton.Config(
    steps=5,
    imitation_steps=2,
    imitation_batch=4,
    imitation_learning_rate=1e-2,
    imitation_warmup=1,
    prompts=3,
    group_size=4,
    answer_limit=6,
    learning_rate=1e-2,
    beta=0.1,
    think_tags=("<", ">"),
    answer_tags=("#", ""),
)


def tiny() -> LanguagePolicy:
    return small_decoder(0, width=32, layers=2, heads=2, context=64)


def parity(text: str, prompt: Prompt) -> float:
    return float(sum(map(ord, text)) % 2)


def trained(config=CONFIG, prompts=PROMPTS, reward=parity, **options):
    return list(ton.train(tiny(), prompts, reward, config=config, **options))


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("ton", tmp_path)


# ---- check values ------------------------------------------------------------------------------------

LOG_PROB = torch.tensor([[-0.5, -1.0], [-0.3, 0.0]])
REFERENCE = torch.tensor([[-0.6, -0.8], [-0.3, 0.0]])
ADVANTAGE = torch.tensor([[0.7], [-0.7]])
MASK = torch.tensor([[True, True], [True, False]])


def test_the_value_of_the_loss_is_worked_by_hand():
    # The advantages of two answers of one group cancel: what is left is the divergence.
    divergence = kl_k3(LOG_PROB, REFERENCE)
    assert float(divergence[MASK].sum() / 2 / 2) == pytest.approx(0.006560, abs=1e-6)
    values = -ADVANTAGE * importance_ratio(LOG_PROB, LOG_PROB) + 0.04 * divergence
    assert float((values * sequence_mean_weight(MASK)).sum()) == pytest.approx(0.000262, abs=1e-6)


def test_the_gradient_of_the_loss_is_worked_by_hand():
    log_prob = LOG_PROB.clone().requires_grad_()
    batch = TensorDict({"advantage": ADVANTAGE, "reference_log_prob": REFERENCE}, batch_size=[2])
    values, _ = with_kl(reinforce(), 0.04)(log_prob, LOG_PROB, batch)
    (gradient,) = torch.autograd.grad((values * sequence_mean_weight(MASK)).sum(), log_prob)
    # The second answer has one token, which carries the answer's whole weight of 1/2.
    expected = torch.tensor([[-0.174048, -0.177214], [0.35, 0.0]])
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_rewards_of_a_group_become_advantages():
    found = group_advantage(torch.tensor([2.0, 1.0, 1.0, 0.0]), torch.zeros(4, dtype=torch.long), eps=1e-4)
    assert found.tolist() == pytest.approx([1.224595, 0, 0, -1.224595], abs=1e-5)


def test_a_completion_without_tokens_does_not_divide_by_its_length():
    weight = sequence_mean_weight(torch.tensor([[True, True], [False, False]]))
    assert weight.tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_a_short_answer_pushes_harder_per_token_than_a_long_one():
    mask = torch.tensor([[True, False, False, False], [True, True, True, True]])
    by_answer = ton.AVERAGES["sequence"](mask)
    by_token = ton.AVERAGES["token"](mask)
    assert float(by_answer[0, 0] / by_answer[1, 0]) == 4.0
    assert float(by_token[0, 0] / by_token[1, 0]) == 1.0


# ---- the run -----------------------------------------------------------------------------------------


def test_examples_come_first_and_rewards_after():
    progress = trained()
    assert ["skipped" in now.metrics for now in progress] == [False, False, True, True, True]
    assert progress[-1].state.phase == ton.REWARDS
    assert progress[2].metrics["kl"] == pytest.approx(0, abs=1e-6), "the reference is the end of stage one"
    assert progress[-1].metrics["kl"] > 0


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_run_goes_on_from_either_stage(cut):
    whole = trained()
    run = ton.train(tiny(), PROMPTS, parity, config=CONFIG)
    for _ in range(cut):
        state = next(run).state
    resumed = trained(state=state.state_dict())
    assert [now.metrics for now in resumed] == [now.metrics for now in whole[cut:]]


def test_with_dropout_the_model_comes_to_skip_thoughts():
    long = replace(
        CONFIG,
        imitation_steps=60,
        imitation_batch=9,
        imitation_learning_rate=1e-2,
        imitation_warmup=5,
        steps=61,
        answer_limit=16,
    )
    skipped = {p: trained(replace(long, dropout=p))[-1].metrics["skipped"] for p in (0.0, 0.5)}
    assert skipped[0.0] == 0.0
    assert skipped[0.5] > 0.1


def test_the_form_is_rewarded_beside_the_answer():
    layout = Layout()
    scoring = ton.with_form(Scoring({"right": parity}, weights={"right": 2.0}), layout)
    text = layout.write("", "3")
    scores = scoring([text, "3"], [Prompt("?")] * 2)
    assert scores.columns["form"].tolist() == [1.0, 0.0]
    assert scores.total.tolist() == [2 * parity(text, Prompt("?")) + 1, 2 * parity("3", Prompt("?"))]


def test_a_form_of_ones_own_stays():
    scoring = ton.with_form({"right": parity, "form": lambda text, prompt: 7.0}, Layout())
    assert scoring(["x"], [Prompt("?")]).columns["form"].tolist() == [7.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"dropout": -0.1},
        {"dropout": 1.5},
        {"average": "batch"},
        {"optimizer_steps": 2},
        {"steps": 2},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingError):
        replace(CONFIG, **wrong)


def test_a_question_without_thought_is_named():
    with pytest.raises(DataError) as caught:
        trained(replace(CONFIG, thought="reasoning"))
    assert caught.value.where.startswith("row 0")
    assert "reverse_thoughts" in caught.value.cure
