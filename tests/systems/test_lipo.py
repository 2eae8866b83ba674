"""LiPO: with two answers it is the losses of pairs, weights of a batch, and labels that are none."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.preferences import Preference, Preferences, lists_from_rows, pairs_from_rows
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.small import small_decoder
from policysmith.systems import dpo, lipo, slic

PAIRS = pairs_from_rows(
    {"prompt": f"{a}+{b}=", "chosen": f"{a + b}", "rejected": "none"} for a in range(5) for b in range(4)
)
LISTS = lists_from_rows(
    {"prompt": f"{a}=", "answers": ["one", f"{a}", "none", "what"], "labels": [0.5, 1.0, 0.25, 0.0]}
    for a in range(12)
)
SAME = {"steps": 6, "batch_size": 4, "learning_rate": 3e-3, "beta": 0.1}


def tiny():
    return small_decoder(0, width=32, layers=1, heads=2, context=48)


def losses(module, data=PAIRS, **settings):
    config = replace(module.PRESETS["tiny"], **SAME, **settings)
    return [now.metrics["loss"] for now in module.train(tiny(), data, config=config)]


@pytest.mark.parametrize("kind", ["pair-logistic", "list-mle"])
def test_of_two_answers_it_is_dpo(kind):
    assert losses(lipo, kind=kind) == pytest.approx(losses(dpo, warmup_steps=0), rel=1e-5)


def test_the_hinge_of_two_answers_is_slic():
    plain = losses(slic, warmup_steps=0, imitation=0.0)
    assert losses(lipo, kind="pair-hinge") == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("kind", lipo.LOSSES)
def test_every_ranking_loss_brings_a_list_into_its_order(kind):
    config = replace(lipo.PRESETS["tiny"], **{**SAME, "steps": 40, "learning_rate": 1e-2}, kind=kind)
    progress = list(lipo.train(tiny(), LISTS, config=config))
    assert progress[0].metrics["margin"] == pytest.approx(0.0, abs=1e-3)
    assert progress[-1].metrics["ordered"] > 0.8


def test_the_mean_is_over_the_pairs_of_the_batch():
    batch = {
        "label": torch.tensor([[1.0, 0.5, 0.0], [1.0, 0.0, 0.0]]),
        "present": torch.tensor([[True, True, True], [True, True, False]]),
        "row_id": torch.arange(2),
    }
    weigh = {
        kind: lipo.terms_weight(lipo.Config(kind=kind))(batch).tolist()
        for kind in ("lambda", "point-mse", "list-mle")
    }
    assert weigh == {"lambda": [0.25, 0.25], "point-mse": pytest.approx([0.2, 0.2]), "list-mle": [0.5, 0.5]}
    assert lipo.terms_weight(lipo.Config(reduction="sum"))(batch).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("kind", lipo.LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_list_whose_labels_all_agree_counts_nothing_for_any_loss(kind, reduction):
    batch = {
        "label": torch.tensor([[1.0, 0.5, 0.0], [0.5, 0.5, 0.5]]),
        "present": torch.ones(2, 3, dtype=torch.bool),
        "row_id": torch.arange(2),
    }
    weigh = lipo.terms_weight(lipo.Config(kind=kind, reduction=reduction))
    alone = {name: value[:1] for name, value in batch.items()}
    assert weigh(batch).tolist() == [*weigh(alone).tolist(), 0.0]


@pytest.mark.parametrize("kind", lipo.LOSSES)
def test_a_batch_of_agreeing_lists_is_an_error_for_every_loss(kind):
    level = Preferences([Preference(Prompt(f"{n}"), ("a", "b"), (0.5, 0.5)) for n in range(4)])
    with pytest.raises(DataError, match="no preference pairs in a batch"):
        losses(lipo, level, kind=kind)


def test_answers_that_are_given_best_first_are_learnt_from_in_an_order_of_the_seeds(monkeypatch):
    given = Preferences(
        Preference(Prompt(f"{n}="), ("a", "b", "c", "d"), (1.0, 0.75, 0.25, 0.0)) for n in range(300)
    )
    seen = []
    monkeypatch.setattr(lipo, "preference_run", lambda policy, lists, **options: seen.append(lists))
    for seed in (0, 0, 1):
        lipo.train(tiny(), given, seed=seed)
    prints = [lists.fingerprint for lists in seen]
    assert prints[0] == prints[1] != prints[2]
    best = [row.labels.index(1.0) for row in seen[0]]
    assert all(50 < best.count(place) < 100 for place in range(4)), (
        "in no place more often than chance has it"
    )


def test_answers_given_twice_count_once_where_asked():
    with pytest.warns(UserWarning, match="more than once"):
        twice = lists_from_rows(
            {"prompt": f"{n}=", "answers": ["a", "b", "a", "c"], "labels": [1.0, 0.5, 1.0, 0.0]}
            for n in range(8)
        )
    once = lists_from_rows(
        {"prompt": f"{n}=", "answers": ["a", "b", "c"], "labels": [1.0, 0.5, 0.0]} for n in range(8)
    )
    assert losses(lipo, twice, deduplicate=True) == losses(lipo, once)
    assert losses(lipo, twice, deduplicate=False) != losses(lipo, once)


def test_labels_outside_zero_to_one_and_unknown_words_are_refused():
    lists = lists_from_rows([{"prompt": "1", "answers": ["2", "3", "4"], "labels": [3, 2, 1]}])
    with pytest.raises(DataError, match=r"labels \[3\.0, 2\.0, 1\.0\]"):
        lipo.train(tiny(), lists)
    for wrong in ({"kind": "map"}, {"weights": "ndcg"}, {"reduction": "max"}, {"beta": 0.0}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            lipo.Config(**wrong)
