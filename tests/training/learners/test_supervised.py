"""The supervised learner: which tokens are learnt, what each counts, and how a run goes on."""

from __future__ import annotations

import importlib.util
import itertools
import math
from dataclasses import replace

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.examples import Example, Examples
from policysmith.policies.language.small import small_decoder
from policysmith.training.learner import Learner
from policysmith.training.learners.supervised import (
    SupervisedSettings,
    mean_loss,
    supervised_batch,
    supervised_loss,
    supervised_run,
)
from policysmith.training.loop import finish

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs the extra 'language'"
)
torch.set_num_threads(1)

EXAMPLES = Examples(
    [Example("1+1=", "2"), Example("2+2=", "4!"), Example("3-3=", "0 of course"), Example("7-2=", "5")]
)
SETTINGS = SupervisedSettings(steps=6, batch_size=3, learning_rate=1e-2, warmup_steps=2)


def small():
    return small_decoder(0, width=32, layers=1, heads=2, context=32)


def test_a_batch_is_prompts_given_and_answers_learnt_with_their_end():
    policy = small()
    batch = supervised_batch(policy, EXAMPLES[:2])
    end, pad = policy.end_tokens[0], policy.tokenizer.pad_token_id
    assert batch["token"].tolist() == [
        [*policy.encode("1+1=2"), end, pad],
        [*policy.encode("2+2=4!"), end],
    ]
    assert batch["attended"].sum(1).tolist() == [6, 7]
    assert batch["mask"].int().tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1, 1]]


def test_the_loss_is_the_mean_over_the_batchs_answer_tokens_alone():
    policy = small()
    batch = supervised_batch(policy, EXAMPLES[:3])
    # By hand: the whole vocabulary's softmax, row by row, at each token of the answer and its end.
    errors = []
    for example in EXAMPLES[:3]:
        token = [*policy.encode(example.prompt + example.answer), policy.end_tokens[0]]
        with torch.no_grad():
            log_p = policy.causal(input_ids=torch.tensor([token])).logits[0].log_softmax(-1)
        errors += [-float(log_p[at - 1, token[at]]) for at in range(len(example.prompt), len(token))]
    assert len(errors) == 2 + 3 + 12
    learner = Learner(policy, supervised_loss, optimizer=torch.optim.SGD(policy.parameters(), lr=0.0))
    assert learner.step(batch)["loss"] == pytest.approx(sum(errors) / 17, rel=1e-5)
    for at_a_time in (1, 2, 64):
        found = mean_loss(policy, EXAMPLES[:3], at_a_time=at_a_time)
        assert found == pytest.approx(sum(errors) / 17, rel=1e-5)


def test_an_indifferent_policy_loses_the_log_of_the_vocabulary():
    policy = small()
    with torch.no_grad():
        policy.head.zero_()
    loss = next(supervised_run(policy, EXAMPLES, settings=SETTINGS, seed=0)).metrics
    assert loss["loss"] == pytest.approx(math.log(policy.head.shape[0]), rel=1e-5)
    assert loss["entropy"] == pytest.approx(math.log(policy.head.shape[0]), rel=1e-5)


def test_no_prompt_token_is_learnt():
    policy = small()
    batch = supervised_batch(policy, EXAMPLES)
    hidden = policy.hidden_before(batch["token"], batch["attended"], mask=batch["mask"])
    assert len(hidden) == int(batch["mask"].sum())  # nothing is predicted from elsewhere
    values, _ = supervised_loss(policy, batch)
    assert bool((values[~batch["mask"]] == 0).all())
    assert bool((values[batch["mask"]] > 0).all())
    assert float(batch["weight"][~batch["mask"]].sum()) == 0
    assert float(batch["weight"].sum()) == pytest.approx(1)


def test_the_step_does_not_depend_on_micro_batches():
    results = []
    for micro_batch in (None, 1, 2):
        policy = small()
        settings = replace(SETTINGS, micro_batch=micro_batch, steps=1, warmup_steps=0)
        metrics = finish_metrics(supervised_run(policy, EXAMPLES, settings=settings, seed=0))
        results.append((metrics["loss"], metrics["grad_norm"]))
    assert results[1] == pytest.approx(results[0], rel=1e-5)
    assert results[2] == pytest.approx(results[0], rel=1e-5)


def finish_metrics(progress):
    *_, last = progress
    return last.metrics


def test_a_run_that_was_cut_off_goes_on_to_the_same_numbers():
    whole = [step.metrics for step in supervised_run(small(), EXAMPLES, settings=SETTINGS, seed=1)]
    begun = list(itertools.islice(supervised_run(small(), EXAMPLES, settings=SETTINGS, seed=1), 3))
    saved = begun[-1].state.state_dict()
    rest = supervised_run(small(), EXAMPLES, settings=SETTINGS, seed=1, state=saved)
    assert [step.metrics for step in rest] == whole[3:]


def test_examples_are_learnt():
    policy = small()
    settings = replace(SETTINGS, steps=150, batch_size=4)
    losses = [step.metrics["loss"] for step in supervised_run(policy, EXAMPLES, settings=settings, seed=0)]
    assert losses[0] > 4
    assert losses[-1] < 0.2


def test_a_base_behind_adapters_stays_as_it_is():
    policy = small().with_lora(rank=2)
    before = policy.causal.model.embed_tokens.weight.clone()
    finish(supervised_run(policy, EXAMPLES, settings=SETTINGS, seed=0))
    assert torch.equal(policy.causal.model.embed_tokens.weight, before)
    assert any(bool(value.any()) for name, value in policy.named_parameters() if "lora_B" in name)


def test_an_example_beyond_the_context_is_named():
    with pytest.raises(DataError, match=r"2 and 41 tokens[\s\S]*'3='[\s\S]*at most 32"):
        supervised_batch(small(), [Example("3=", "x" * 40)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": math.nan},
        {"warmup_steps": -1},
        {"max_grad_norm": 0},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        SupervisedSettings(**wrong)
