"""Learning from preferences: what a row is worth, which rows are learnt from, and what comes of it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from tensordict import TensorDict

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, FileError, SettingError
from policysmith.experience.preferences import lists_from_rows, pairs_from_rows
from policysmith.objectives.preferences import dpo_loss, robust_loss, smoothed_loss
from policysmith.objectives.reward_models import bradley_terry_loss
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.preference_model import PreferenceModel
from policysmith.rewards.reward_model import RewardModel, outcome_scores
from policysmith.training.learners.reward_models import (
    RewardModelSettings,
    best_cross_entropy,
    outcome_loss,
    outcome_run,
    preference_model_run,
    reward_model_run,
)
from policysmith.training.loop import finish

SETTINGS = RewardModelSettings(steps=4, batch_size=4, learning_rate=3e-3, warmup_steps=0)


class Fixed(torch.nn.Module):
    """Scores that are its parameters, one per outcome of every row."""

    def __init__(self, scores):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.tensor(scores, dtype=torch.float64))

    def score_outcomes(self, batch):
        return self.scores[batch["row_id"]]


class Segments(torch.nn.Module):
    """A linear reward of a robot's states, summed over a stretch of trajectory."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))

    def score_outcomes(self, batch):
        return (batch["observation"] @ self.weight).sum(-1)


def rows_of(labels, present=None, **entries):
    label = torch.tensor(labels, dtype=torch.float32)
    there = torch.ones_like(label, dtype=torch.bool) if present is None else torch.tensor(present)
    entries |= {"label": label, "present": there, "row_id": torch.arange(len(label))}
    return TensorDict(entries, batch_size=[len(label)])


def values_of(loss, model, rows):
    """The value of the first row."""
    with torch.no_grad():
        return float(loss(model, rows)[0][0])


def small(seed=0):
    return small_decoder(seed, width=32, layers=1, heads=2, context=48)


def pairs(count=12):
    """The chosen answer has as many x as the prompt asks for, the rejected one has y."""
    return pairs_from_rows(
        {"prompt": f"{n % 4 + 1} please ", "chosen": "x" * (n % 4 + 1), "rejected": "y" * (n % 3 + 1)}
        for n in range(count)
    )


# ---- the loss of rows --------------------------------------------------------------------------------


def test_a_row_is_worth_the_mean_of_its_pairs():
    rows = rows_of([[1, 0, 0.5], [1, 0, 0]], [[True, True, True], [True, True, False]])
    values, statistics = outcome_loss()(Fixed([[1.0, -0.5, 0.4], [0.2, 0.2, 9.0]]), rows)
    margins = [1.5, 0.6, 0.9]
    assert float(values[0].detach()) == pytest.approx(sum(math.log(1 + math.exp(-m)) for m in margins) / 3)
    assert float(values[1].detach()) == pytest.approx(math.log(2))
    assert statistics["accuracy"].tolist() == [1, 0.5]
    assert statistics["margin"].tolist() == pytest.approx([1, 0])


def test_an_absent_outcome_gets_no_gradient():
    model = Fixed([[0.2, 0.1, 9.0]])
    values, _ = outcome_loss()(model, rows_of([[1, 0, 0]], [[True, True, False]]))
    values.sum().backward()
    assert model.scores.grad[0].tolist()[2] == 0
    half = 1 / (1 + math.exp(0.1))
    assert model.scores.grad[0].tolist()[:2] == pytest.approx([-half, half])


def test_any_loss_of_a_margin_can_be_put_in():
    def hinge(margin):
        return (1 - margin).clamp(min=0)

    rows = rows_of([[1, 0]])
    assert values_of(outcome_loss(hinge), Fixed([[0.3, 0.1]]), rows) == pytest.approx(0.8)
    bounded = outcome_loss(lambda margin: bradley_terry_loss(margin, floor=1e-5))
    assert values_of(bounded, Fixed([[-50.0, 50.0]]), rows) == pytest.approx(-math.log(1e-5))


def test_wrong_labels_are_allowed_for_by_the_losses_of_pairs():
    rows, model = rows_of([[1, 0]]), Fixed([[1.5, 0.0]])
    right, wrong = math.log(1 + math.exp(-1.5)), math.log(1 + math.exp(1.5))
    smoothed = outcome_loss(partial(smoothed_loss, dpo_loss, beta=1.0, rate=0.1))
    assert values_of(smoothed, model, rows) == pytest.approx(0.9 * right + 0.1 * wrong)
    robust = outcome_loss(partial(robust_loss, dpo_loss, beta=1.0, rate=0.1))
    assert values_of(robust, model, rows) == pytest.approx((0.9 * right - 0.1 * wrong) / 0.8)
    plain = outcome_loss(partial(dpo_loss, beta=1.0))
    assert values_of(plain, model, rows) == pytest.approx(values_of(outcome_loss(), model, rows))


# ---- rows that cannot be learnt from -----------------------------------------------------------------


def test_rows_in_which_nothing_is_better_are_left_out():
    rows = rows_of([[1, 1], [1, 0], [0, 1]], [[True, True], [True, True], [True, False]])
    run = outcome_run(Fixed([[0.0, 0.0]] * 3), rows, settings=replace(SETTINGS, steps=3), seed=0)
    module = finish(run).learners["policy"].module
    assert bool((module.scores[1] != 0).all())
    assert not module.scores[0].any()
    assert not module.scores[2].any()
    with pytest.raises(DataError, match="in no row"):
        outcome_run(Fixed([[0.0, 0.0]]), rows[:1], settings=SETTINGS, seed=0)


def language_rows(tokens, labels):
    token = torch.tensor(tokens)
    attended = token > 0
    mask = attended.clone()
    mask[..., 0] = False
    return rows_of(labels, token=token, attended=attended, mask=mask)


def test_answers_are_cut_as_those_that_will_be_scored_and_have_to_differ_then():
    long = pairs_from_rows([{"prompt": "go ", "chosen": "xxxxy", "rejected": "xxxxz"}])
    next(reward_model_run(RewardModel(small()), long, settings=replace(SETTINGS, answer_limit=5), seed=0))
    with pytest.raises(DataError, match=r"the same in their first 4(.|\n)*row 0"):
        reward_model_run(RewardModel(small()), long, settings=replace(SETTINGS, answer_limit=4), seed=0)


@pytest.mark.parametrize(
    "wrong", [{"language_weight": -1.0}, {"language_weight": math.inf}, {"answer_limit": -1}, {"steps": 0}]
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        RewardModelSettings(**wrong)


# ---- not only text -----------------------------------------------------------------------------------


def test_a_reward_of_a_robots_states_is_found_from_preferences_over_stretches_of_trajectory():
    rng = torch.Generator().manual_seed(0)
    observation = torch.randn(200, 2, 5, 2, generator=rng)
    returns = (observation @ torch.tensor([1.0, -2.0])).sum(-1)
    first = returns[:, :1] > returns[:, 1:]
    label = torch.cat([first, ~first], dim=1).float()
    rows = TensorDict(
        {"observation": observation, "label": label, "present": torch.ones(200, 2, dtype=torch.bool)},
        batch_size=[200],
    )
    settings = replace(SETTINGS, steps=150, batch_size=64, learning_rate=5e-2)
    *_, last = outcome_run(Segments(), rows, settings=settings, seed=0)
    weight = last.state.learners["policy"].module.weight.detach()
    assert last.metrics["accuracy"] > 0.95
    assert float(weight[0] / weight[1]) == pytest.approx(-0.5, abs=0.1)
    scores = outcome_scores(last.state.learners["policy"].module, rows)
    assert scores.shape == (200, 2)


# ---- language ----------------------------------------------------------------------------------------


def test_a_reward_model_learns_to_tell_the_chosen_answers():
    model = RewardModel(small())
    *_, last = reward_model_run(model, pairs(), settings=replace(SETTINGS, steps=60), seed=0)
    assert last.metrics["accuracy"] == 1
    assert last.metrics["loss"] < 0.2
    fresh = pairs_from_rows([{"prompt": "3 please ", "chosen": "xxx", "rejected": "yy"}])
    scores = model(fresh[0].answers, [fresh[0].prompt] * 2)
    assert float(scores[0]) > float(scores[1]) + 1


def test_it_begins_at_the_loss_of_chance():
    first = next(reward_model_run(RewardModel(small()), pairs(), settings=SETTINGS, seed=0))
    assert first.metrics["loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert first.metrics["accuracy"] == 0.5


def test_lists_of_unequal_length_are_learnt_from_by_all_their_pairs():
    lists = lists_from_rows(
        [
            {"prompt": "how many? ", "answers": ["xxx", "xx", "x", "y"], "labels": [1.0, 0.7, 0.3, 0.0]},
            {"prompt": "how many? ", "answers": ["y", "xxxx"], "labels": [0.0, 1.0]},
        ]
    )
    model = RewardModel(small())
    finish(reward_model_run(model, lists, settings=replace(SETTINGS, steps=80, batch_size=2), seed=0))
    scores = model(list(lists[0].answers), [lists[0].prompt] * 4).tolist()
    assert scores == sorted(scores, reverse=True)


def test_the_step_does_not_depend_on_micro_batches():
    found = []
    for micro_batch in (None, 1, 3):
        settings = replace(SETTINGS, steps=2, micro_batch=micro_batch)
        *_, last = reward_model_run(RewardModel(small()), pairs(), settings=settings, seed=0)
        found.append(last.metrics)
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)


def test_a_run_that_was_cut_off_goes_on_to_the_same_numbers():
    def begin(state=None):
        return reward_model_run(RewardModel(small()), pairs(), settings=SETTINGS, seed=1, state=state)

    whole = [now.metrics for now in begin()]
    saved = list(itertools.islice(begin(), 2))[-1].state.state_dict()
    assert [now.metrics for now in begin(saved)] == whole[2:]
    with pytest.raises(FileError, match="not those of the saved run"):
        reward_model_run(RewardModel(small()), pairs(8), settings=SETTINGS, seed=1, state=saved)


def test_the_body_can_go_on_as_a_language_model_of_the_best_answers():
    def language_loss(weight):
        model = RewardModel(small())
        settings = replace(SETTINGS, steps=40, language_weight=weight)
        first, *_, last = reward_model_run(model, pairs(), settings=settings, seed=0)
        return model, first.metrics["loss"], last.metrics["loss"]

    model, first, _ = language_loss(1.0)
    plain, chance, _ = language_loss(0.0)
    assert first > chance + 3  # about the logarithm of 99 tokens
    rows = language_rows([[[40, 60, 1], [40, 61, 1]]], [[1, 0]])
    rows["token"] = torch.tensor([[[*model.policy.encode("1 please x"), 1]] * 2])
    rows["attended"] = torch.ones_like(rows["token"], dtype=torch.bool)
    rows["mask"] = rows["attended"].clone()
    rows["mask"][..., :9] = False
    with torch.no_grad():
        assert float(best_cross_entropy(model.policy, rows)) < 0.5 * float(
            best_cross_entropy(plain.policy, rows)
        )


def test_the_best_answer_is_the_one_that_is_imitated_wherever_it_stands():
    policy = small()
    rows = language_rows([[[40, 60, 1], [40, 61, 1], [40, 62, 63]]], [[0, 2, 1]])
    with torch.no_grad():
        log_prob, _ = policy.log_prob(torch.tensor([[40, 61, 1]]), torch.ones(1, 3, dtype=torch.bool))
        found = best_cross_entropy(policy, rows)
    assert float(found) == pytest.approx(-float(log_prob.sum()) / 2, rel=1e-5)


# ---- models that compare -----------------------------------------------------------------------------


def test_a_preference_model_learns_to_compare_in_either_order():
    model = PreferenceModel(small())
    run = preference_model_run(model, pairs(), settings=replace(SETTINGS, steps=120, batch_size=8), seed=0)
    first, *_, last = run
    assert first.metrics["loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert last.metrics["accuracy"] == 1
    held = pairs(12)
    prompts = [one.prompt for one in held]
    better, worse = zip(*(one.answers for one in held), strict=True)
    assert float(model(prompts, better, worse).min()) > 0.7


def test_both_orders_are_seen_and_a_cut_run_draws_the_same_ones():
    def begin(state=None):
        return preference_model_run(PreferenceModel(small()), pairs(), settings=SETTINGS, seed=1, state=state)

    whole = [now.metrics for now in begin()]
    saved = list(itertools.islice(begin(), 2))[-1].state.state_dict()
    assert [now.metrics for now in begin(saved)] == whole[2:]
