"""The language learner: a step is that of the whole batch, whoever shares it, and says what it learnt."""

import json
import os
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt, PromptSampler, from_rows
from policysmith.experience.rollouts import hung_on, sampled
from policysmith.objectives.averaging import sequence_mean_weight
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.scored import scored
from policysmith.rewards.scoring import Scoring
from policysmith.training.learners.group_relative import clipped, group_relative, with_entropy, with_kl
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_collect import gathered
from policysmith.training.learners.language_settings import LanguageSettings
from policysmith.training.learners.language_update import (
    frozen_reference,
    optimiser_batches,
    over_tokens,
    rescore,
)

torch.set_num_threads(1)

PROMPTS = from_rows({"prompt": f"{a}+{b}=", "answer": a + b} for a in range(4) for b in range(4))
SETTINGS = LanguageSettings(
    steps=3, prompts=4, group_size=4, answer_limit=6, optimizer_steps=2, learning_rate=1e-2
)


def parity(text: str, prompt: Prompt) -> float:
    return float(sum(map(ord, text)) % 2)


@pytest.fixture
def policy() -> LanguagePolicy:
    return small_decoder(0, width=32, layers=2, heads=2, context=64)


def fresh() -> LanguagePolicy:
    return small_decoder(0, width=32, layers=2, heads=2, context=64)


def trained(settings=SETTINGS, reward=parity, **options):
    options = {"label": group_relative(), "loss": clipped()} | options
    return list(language_run(fresh(), PROMPTS, reward, settings=settings, **options))


def weights_of(progress) -> torch.Tensor:
    module = progress.state.learners["policy"].module
    return torch.cat([p.detach().flatten() for p in module.parameters()])


# ---- invariance --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("weight", ["token", "sequence"])
def test_a_step_does_not_depend_on_the_micro_batch(rows, weight):
    made = {"weight": lambda batch: sequence_mean_weight(batch["mask"])} if weight == "sequence" else {}
    whole = trained(replace(SETTINGS, steps=1), **made)[-1]
    cut = trained(replace(SETTINGS, steps=1, micro_batch=rows), **made)[-1]
    assert whole.metrics["reward"] == cut.metrics["reward"]
    # Adam's first steps are signs of gradients: rounding shows where a gradient is nearly zero.
    assert abs(whole.metrics["loss"] - cut.metrics["loss"]) < 1e-6
    assert abs(whole.metrics["grad_norm"] - cut.metrics["grad_norm"]) < 1e-5
    assert abs(whole.metrics["entropy"] - cut.metrics["entropy"]) < 1e-5


RANKS = """
    import json, sys, torch

    def work():
        torch.set_num_threads(1)
        if sys.argv[1] == "accelerate":
            from accelerate import PartialState
            PartialState(cpu=True)
        from policysmith.training import processes
        processes.start()
        from tests.training.learners.test_language import trained, weights_of
        last = trained()[-1]
        if processes.number() == 0:
            total = weights_of(last).double().sum().item()
            print("RESULT" + json.dumps([processes.count(), last.metrics, total]), flush=True)

    if __name__ == "__main__":
        if sys.argv[1] == "accelerate":
            from accelerate import debug_launcher
            debug_launcher(work, num_processes=2)
        else:
            work()
"""


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_two_processes_learn_what_one_learns(launcher, tmp_path: Path):
    pytest.importorskip("accelerate")
    script = tmp_path / "ranks.py"
    script.write_text(textwrap.dedent(RANKS))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *(torchrun if launcher == "torchrun" else []), str(script), launcher]
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, done.stderr[-2000:]
    count, metrics, total = json.loads(lines[0].removeprefix("RESULT"))
    alone = trained()[-1]
    assert count == 2
    assert metrics["reward"] == alone.metrics["reward"]
    for name in ("loss", "grad_norm", "entropy"):
        assert metrics[name] == pytest.approx(alone.metrics[name], abs=2e-4), name
    assert total == pytest.approx(float(weights_of(alone).double().sum()), rel=1e-3)


# ---- what a step learns from -------------------------------------------------------------------------


def test_the_engine_and_the_learner_agree_before_the_first_step():
    assert all(now.metrics["gap"] < 1e-4 for now in trained())


def test_rescoring_finds_what_the_engine_recorded(policy):
    scores = trained(replace(SETTINGS, recompute_old=True))
    assert all(now.metrics["gap"] < 1e-4 for now in scores)


def test_importance_weights_are_one_where_sampler_and_learner_agree():
    plain = trained(replace(SETTINGS, recompute_old=True))[-1]
    weighed = trained(replace(SETTINGS, recompute_old=True, importance_limit=2.0))[-1]
    assert weighed.metrics["loss"] == pytest.approx(plain.metrics["loss"], abs=1e-4)


def test_every_row_of_an_optimiser_batch_is_used_once_with_its_group(policy):
    batch = TensorDict(
        {"group_id": torch.arange(5).repeat_interleave(3), "row": torch.arange(15)}, batch_size=[15]
    )
    parts = optimiser_batches(batch, 2, rng=torch.Generator().manual_seed(0))
    assert sorted(int(row) for part in parts for row in part["row"]) == list(range(15))
    assert not set(parts[0]["group_id"].tolist()) & set(parts[1]["group_id"].tolist())
    assert len(optimiser_batches(batch, 9, rng=torch.Generator())) == 5


def test_rewards_that_agree_move_nothing_and_are_warned_of():
    settings = replace(SETTINGS, steps=11, weight_decay=0.0)
    with pytest.warns(UserWarning, match="neither too hard nor too easy"):
        run = trained(settings, reward=lambda text, prompt: 1.0)
    assert run[-1].metrics["grad_norm"] == 0
    assert torch.equal(weights_of(run[-1]), torch.cat([p.detach().flatten() for p in fresh().parameters()]))


def test_a_run_learns_what_is_rewarded():
    settings = replace(SETTINGS, steps=15, prompts=8, group_size=8)
    run = trained(settings, reward=lambda text, prompt: float("7" in text))
    first, last = (sum(now.metrics["reward"] for now in part) / 3 for part in (run[:3], run[-3:]))
    assert last > first + 0.2


def test_the_reference_is_the_policy_as_it_was_given():
    run = trained(loss=with_kl(clipped(), 0.1), reference=True)
    assert 0 <= run[0].metrics["kl"] < run[-1].metrics["kl"]


def test_a_divergence_without_a_reference_says_what_is_missing():
    with pytest.raises(DataError, match="reference_log_prob"):
        trained(loss=with_kl(clipped(), 0.1))


def test_adapters_alone_are_trained_and_leave_the_reference_as_it_was():
    pytest.importorskip("peft")
    settings = replace(SETTINGS, lora_rank=2)
    run = list(
        language_run(
            fresh(), PROMPTS, parity, settings=settings, label=group_relative(),
            loss=with_kl(clipped(), 0.1), reference=True,
        )
    )  # fmt: skip
    policy = run[-1].state.learners["policy"].module
    assert all("lora" in name for name, p in policy.named_parameters() if p.requires_grad)
    assert run[-1].metrics["kl"] > 0
    batch = some_batch(policy)
    with policy.without_lora() as bare:
        assert torch.allclose(
            rescore(bare, batch, 1.0), frozen_reference(policy, temperature=1.0)(batch), atol=1e-6
        )


def test_terms_of_weight_zero_are_the_loss_itself():
    loss = clipped()
    assert with_kl(loss, 0.0) is loss
    assert with_entropy(loss, 0.0) is loss


def test_the_entropy_bonus_is_the_entropy(policy):
    batch = some_batch(policy)
    batch["advantage"] = torch.zeros(len(batch), 1)
    values, statistics = over_tokens(with_entropy(clipped(), 0.5), temperature=1.0)(policy, batch)
    assert torch.allclose(values, -0.5 * statistics["entropy"] * batch["mask"])


def some_batch(policy) -> TensorDict:
    samples = sampled(policy, LocalEngine(policy), Sampling(limit=4), copies=2)(
        {0: PROMPTS[0], 1: PROMPTS[1]}, rng=torch.Generator().manual_seed(0)
    )
    samples.batch["old_log_prob"] = samples.batch["behaviour_log_prob"]
    return samples.batch


# ---- the filter --------------------------------------------------------------------------------------


def sampler_of(policy, reward):
    return scored(sampled(policy, LocalEngine(policy), Sampling(limit=4), copies=4), Scoring({"r": reward}))


def draw(policy, reward, **settings):
    source = PromptSampler(PROMPTS, rng=torch.Generator().manual_seed(0))
    return gathered(
        source, sampler_of(policy, reward), replace(SETTINGS, filter_agreeing=True, **settings),
        rng=torch.Generator().manual_seed(0), version=3,
    )  # fmt: skip


def test_groups_that_agree_are_replaced_by_further_prompts(policy):
    easy = lambda text, prompt: 1.0 if prompt.answer % 2 else parity(text, prompt)  # noqa: E731
    samples = draw(policy, easy)
    groups = samples.batch["group_id"].unique()
    assert len(groups) == SETTINGS.prompts
    assert len(samples) == SETTINGS.prompts * 4
    assert float(samples.batch["log", "prompts_asked"][0]) > SETTINGS.prompts
    assert all(prompt.answer % 2 == 0 for prompt in samples.about)
    assert samples.batch["weights_version"].max() == 3


def test_where_everything_agrees_the_last_round_is_given_as_it_was(policy):
    samples = draw(policy, lambda text, prompt: 0.0, rounds=2)
    assert len(samples) == SETTINGS.prompts * 4
    assert float(samples.batch["log", "prompts_asked"][0]) == 2 * SETTINGS.prompts


# ---- answers behind another prompt -------------------------------------------------------------------


def test_answers_hung_on_another_prompt_keep_their_tokens_and_lose_their_likelihood(policy):
    plain = sampler_of(policy, parity)({0: PROMPTS[3]}, rng=torch.Generator().manual_seed(0))
    other = Prompt("a longer question: ", answer="x")
    moved = hung_on(plain, [other] * len(plain), policy)
    assert [moved.answer(row) for row in range(4)] == [plain.answer(row) for row in range(4)]
    assert moved.about == [other] * 4
    assert torch.equal(moved.batch["reward"], plain.batch["reward"])
    assert moved.batch["mask"].sum() == plain.batch["mask"].sum()
    assert moved.batch["off_policy"].all()
    assert not moved.batch["behaviour_log_prob"].any()
    for row in range(4):
        start = int(moved.batch["prompt_length"][row])
        assert moved.batch["token"][row, :start].tolist() == policy.encode_question(other.text)


def test_an_answer_that_does_not_fit_behind_its_prompt_names_it(policy):
    plain = sampler_of(policy, parity)({0: PROMPTS[3]}, rng=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match="does not fit behind") as error:
        hung_on(plain, [Prompt("x" * 63)] * 4, policy)
    assert "xxx" in error.value.where


# ---- bad input ---------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context_is_named():
    with pytest.raises(DataError, match="do not fit the context") as error:
        list(
            language_run(
                fresh(), from_rows([{"prompt": "y" * 70}]), parity,
                settings=replace(SETTINGS, prompts=1, optimizer_steps=1), label=group_relative(),
                loss=clipped(),
            )
        )  # fmt: skip
    assert "yyy" in error.value.where


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompts": 0}, "prompts is 0"),
        ({"temperature": 0.0}, "temperature"),
        ({"optimizer_steps": 9}, "9 optimiser steps on 4 prompts"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"importance_limit": 2.0}, "recompute_old"),
    ],
)
def test_settings_that_make_no_sense_are_named(change, words):
    with pytest.raises(SettingError, match=words):
        replace(SETTINGS, **change)


def test_a_model_too_large_for_memory_is_refused_before_anything_is_drawn(monkeypatch):
    monkeypatch.setattr("policysmith.policies.language.memory.free_memory", lambda device: 1000)
    with pytest.raises(SettingError, match="are free"):
        next(iter(trained()))


def test_a_reward_that_breaks_is_reported_with_its_sample():
    def broken(text, prompt):
        raise ValueError("no")

    with pytest.raises(DataError, match="raised ValueError") as error:
        trained(reward=broken)
    assert "prompt" in error.value.where
    run = trained(reward=Scoring({"r": broken}, on_error="replace"))
    assert run[-1].metrics["failed_rewards"] == 16


def test_a_run_goes_on_in_the_middle_of_a_pass_over_the_prompts():
    whole = trained()
    begun = list(islice(language_run(fresh(), PROMPTS, parity, settings=SETTINGS, label=group_relative(),
                                     loss=clipped()), 2))[-1]  # fmt: skip
    saved = begun.state.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rest = trained(state=saved)
    assert [now.metrics for now in rest] == [now.metrics for now in whole[2:]]
    assert torch.equal(weights_of(rest[-1]), weights_of(whole[-1]))


def test_answers_that_nobody_pays_for_are_not_learnt_from(policy):
    run = language_run(
        policy, PROMPTS, None, settings=SETTINGS, label=group_relative(), loss=clipped(low=0.2, high=0.2)
    )
    with pytest.raises(DataError, match="learning from answers needs 'reward'"):
        next(run)
