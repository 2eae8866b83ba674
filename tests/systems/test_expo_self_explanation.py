"""ExPO as a system: it is GRPO and a term, the term alone where nothing succeeds, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.evaluation.conformance import check_system, check_training, language_inputs
from policysmith.experience.prompts import Prompt, from_rows
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.small import small_decoder
from policysmith.systems import expo_self_explanation as expo
from policysmith.systems import grpo

PROMPTS = from_rows(
    {"prompt": f"{a}+{b}=", "answer": a + b, "solution": f"{a} and {b} make {a + b}"}
    for a in range(3)
    for b in range(3)
)
CONFIG = expo.Config(
    steps=3,
    prompts=3,
    group_size=4,
    answer_limit=6,
    learning_rate=1e-2,
    kl=0.0,
    explanation="{question}{answer}?",
)


def tiny() -> LanguagePolicy:
    return small_decoder(0, width=32, layers=2, heads=2, context=96)


def parity(text: str, prompt: Prompt) -> float:
    return float(sum(map(ord, text)) % 2)


def never(text: str, prompt: Prompt) -> float:
    return 0.0


def flat(policy: LanguagePolicy) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in policy.parameters()])


def weights(progress) -> torch.Tensor:
    return flat(progress[-1].state.learners["policy"].module)


def trained(config=CONFIG, reward=parity, **options):
    return list(expo.train(tiny(), PROMPTS, reward, config=config, **options))


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("expo-self-explanation", tmp_path)


def test_preferring_explanations_resumes_too(tmp_path: Path) -> None:
    tiny_pairs = replace(expo.PRESETS["tiny"], variant="dpo", round_steps=2, refresh_every=1)
    check_training(
        SimpleNamespace(train=expo.train, PRESETS={"tiny": tiny_pairs}), language_inputs(tmp_path), tmp_path
    )


def test_without_beta_it_is_grpo():
    shared = {"steps": 3, "prompts": 3, "group_size": 4, "answer_limit": 6, "learning_rate": 1e-2}
    plain = list(grpo.train(tiny(), PROMPTS, parity, config=grpo.Config(**shared, beta=0.0)))
    assert torch.equal(weights(trained(replace(CONFIG, beta=0.0))), weights(plain))


def test_where_every_answer_fails_grpo_stands_still_and_explanations_go_on():
    start = flat(tiny())
    assert torch.equal(weights(trained(replace(CONFIG, beta=0.0), never)), start)
    assert not torch.equal(weights(trained(CONFIG, never)), start)


@pytest.mark.filterwarnings("ignore:for 10 steps")
def test_what_was_explained_becomes_likely_without_the_answer():
    config = replace(CONFIG, steps=30, chains="solution", answer_limit=4)
    policy = tiny()
    progress = list(expo.train(policy, PROMPTS, never, config=config))
    question, solution = policy.encode("1+2="), policy.encode("1 and 2 make 3")
    token = torch.tensor([question + solution])
    mask = torch.zeros_like(token, dtype=torch.bool)
    mask[:, len(question) :] = True

    def log_prob(model: LanguagePolicy) -> float:
        with torch.no_grad():
            return float(model.log_prob(token, torch.ones_like(mask), mask=mask)[0].sum())

    assert log_prob(progress[-1].state.policy()) > log_prob(tiny()) + 10


def test_beta_falls_to_nothing_and_then_nothing_is_asked():
    config = replace(CONFIG, steps=4, beta=0.4, anneal_steps=2)
    assert [config.weight(step) for step in range(4)] == [0.4, 0.2, 0.0, 0.0]
    asked = [now.metrics["explanation/asked"] for now in trained(config)]
    assert asked == [1.0, 1.0, 0.0, 0.0]


def test_explaining_where_it_fails_asks_less():
    asked = [now.metrics["explanation/asked"] for now in trained(replace(CONFIG, only_failed=True))]
    assert all(share < 1 for share in asked)
    assert [now.metrics["explanation/asked"] for now in trained(CONFIG)] == [1.0] * 3


def test_rewards_that_are_reported_are_those_of_answers():
    progress = trained(replace(CONFIG, beta=0.5, closing=""), reward={"right": parity})
    plain = trained(replace(CONFIG, beta=0.0), reward={"right": parity})
    assert progress[0].metrics["reward"] == plain[0].metrics["reward"]


def test_the_sum_pulls_harder_than_the_mean():
    gradient = {
        name: trained(replace(CONFIG, steps=1, reduction=name), never)[0].metrics["grad_norm"]
        for name in expo.REDUCTIONS
    }
    assert gradient["sum"] > 2 * gradient["token_mean"]
    assert gradient["sequence_mean"] < gradient["sum"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"beta": -0.1},
        {"kl": float("nan")},
        {"refresh_every": -1},
        {"reduction": "mean"},
        {"chains": "expert"},
        {"variant": "ppo"},
        {"variant": "dpo", "beta": 0.0},
        {"variant": "dpo", "anneal_steps": 5},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingError):
        replace(CONFIG, **wrong)


def test_a_prompt_that_does_not_show_the_answer_is_refused():
    with pytest.raises(SettingError, match="answer"):
        trained(replace(CONFIG, explanation="{question} Why?"))


def test_questions_without_answer_or_solution_are_named():
    prompts = from_rows([{"prompt": "1+1=", "answer": 2}, {"prompt": "2+2="}])
    with pytest.raises(DataError, match="no answer"):
        expo.train(tiny(), prompts, parity, config=CONFIG)
    with pytest.raises(DataError, match="no solution"):
        expo.train(tiny(), prompts, parity, config=replace(CONFIG, chains="solution"))
