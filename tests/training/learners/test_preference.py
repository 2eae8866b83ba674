"""Preference learning: sums of whole answers, what the reference said, rounds, and what is no preference."""

from dataclasses import replace
from functools import partial

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.common.saving import load_tree, save_tree
from policysmith.experience.outcomes import picked, preference_rows
from policysmith.experience.pairing import best_worst
from policysmith.experience.preferences import lists_from_rows, pairs_from_rows
from policysmith.experience.prompts import Prompt, from_rows
from policysmith.objectives.preferences import dpo_loss
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.small import small_decoder
from policysmith.training.learners.language_settings import LanguageSettings
from policysmith.training.learners.preference import (
    PreferenceSettings,
    on_pairs,
    outcome_log_prob,
    preference_run,
    reference_log_prob,
    standing,
)
from policysmith.training.learners.preference_rounds import preference_rounds, replayed

PAIRS = pairs_from_rows(
    {"prompt": f"{a}+{b}=", "chosen": f"{a + b}", "rejected": "no" * (1 + a)}
    for a in range(4)
    for b in range(5)
)
SETTINGS = PreferenceSettings(steps=6, batch_size=4, learning_rate=3e-3)
DPO = on_pairs(partial(dpo_loss, beta=0.5))
PROMPTS = from_rows({"prompt": f"{a}+{b}=", "answer": a + b} for a in range(3) for b in range(3))
ROUNDS = LanguageSettings(steps=4, prompts=3, group_size=4, answer_limit=5, learning_rate=1e-2)


def tiny() -> LanguagePolicy:
    return small_decoder(0, width=32, layers=1, heads=2, context=48)


def parity(text: str, prompt: Prompt) -> float:
    return float(sum(map(ord, text)) % 2)


def trained(settings=SETTINGS, **options):
    options = {"preferences": PAIRS, "loss": DPO} | options
    return list(preference_run(tiny(), settings=settings, **options))


def in_rounds(settings=ROUNDS, **options):
    options = {"build": picked(best_worst), "loss": DPO} | options
    return list(preference_rounds(tiny(), PROMPTS, parity, settings=settings, **options))


# ---- stored preferences --------------------------------------------------------------------------------


def test_an_outcome_is_as_likely_as_its_answer_tokens_and_its_end_together():
    policy = tiny()
    rows = preference_rows(policy, PAIRS[:3])
    with torch.no_grad():
        found = outcome_log_prob(policy, rows)
        for row, pair in enumerate(PAIRS[:3]):
            for place, text in enumerate(pair.answers):
                prompt = policy.encode_question(pair.prompt.text)
                token = torch.tensor([[*prompt, *policy.encode(text), policy.end_tokens[0]]])
                whole = policy.log_prob(token, torch.ones_like(token, dtype=torch.bool))[0]
                assert torch.allclose(found[row, place], whole[0, len(prompt) :].sum(), atol=1e-4)


def test_a_missing_outcome_counts_for_nothing():
    lists = lists_from_rows(
        [
            {"prompt": "1+1=", "answers": ["2", "3", "4"], "labels": [1, 0.5, 0]},
            {"prompt": "1+2=", "answers": ["3", "44"], "labels": [1, 0]},
        ]
    )
    policy = tiny()
    rows = preference_rows(policy, lists)
    log_prob = reference_log_prob(policy, rows)
    assert rows["present"].tolist() == [[True, True, True], [True, True, False]]
    assert float(log_prob[1, 2]) == 0
    assert bool((log_prob[rows["present"]] < 0).all())
    alone = reference_log_prob(policy, preference_rows(policy, lists[1:]))
    assert torch.allclose(alone[0], log_prob[1, :2], atol=1e-4)


def test_at_first_a_policy_is_its_reference_and_then_pairs_come_apart_the_right_way_round():
    progress = trained(replace(SETTINGS, steps=40))
    assert progress[0].metrics["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert progress[0].metrics["margin"] == pytest.approx(0.0, abs=1e-3)
    assert progress[-1].metrics["ordered"] > 0.9
    assert progress[-1].metrics["margin"] > 1
    assert progress[-1].metrics["chosen"] > progress[-1].metrics["rejected"]


def test_another_reference_is_asked_in_place_of_the_start():
    other = small_decoder(1, width=32, layers=1, heads=2, context=48)
    run = preference_run(tiny(), PAIRS, loss=DPO, settings=SETTINGS, reference=other)
    first = next(run)
    rows = first.state.sources["preferences"].rows(range(len(PAIRS)))
    known = ~rows["reference_log_prob"][:, 0].isnan()
    expected = reference_log_prob(other, rows)
    assert int(known.sum()) == len(PAIRS)
    assert torch.allclose(rows["reference_log_prob"], expected, atol=1e-4)


def test_the_step_does_not_depend_on_the_micro_batch():
    whole, cut = (trained(replace(SETTINGS, micro_batch=size)) for size in (None, 2))
    for a, b in zip(whole, cut, strict=True):
        assert a.metrics["loss"] == pytest.approx(b.metrics["loss"], rel=1e-4)


def test_an_interrupted_run_goes_on_to_the_same_numbers_without_its_reference(tmp_path):
    whole = trained()
    run = preference_run(tiny(), PAIRS, loss=DPO, settings=SETTINGS)
    next(run)
    save_tree(tmp_path / "state.safetensors", next(run).state.state_dict())
    saved = load_tree(tmp_path / "state.safetensors")
    resumed = list(preference_run(tiny(), PAIRS, loss=DPO, settings=SETTINGS, state=saved))
    assert [now.metrics for now in resumed] == [now.metrics for now in whole[2:]]


def test_adapters_are_compared_with_the_model_without_them():
    progress = trained(replace(SETTINGS, lora_rank=2, steps=12, learning_rate=3e-2))
    assert progress[0].metrics["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert progress[-1].metrics["margin"] > 0.1


def test_the_rate_falls_as_it_is_asked_to():
    rates = {}
    for decay in ("constant", "linear", "cosine"):
        progress = trained(replace(SETTINGS, decay=decay, warmup_steps=2))
        group = progress[-1].state.learners["policy"].optimizer.param_groups[0]
        rates[decay] = group["lr"] / SETTINGS.learning_rate
    assert rates["constant"] == 1
    assert rates["linear"] == pytest.approx(0.25)
    assert 0 < rates["cosine"] < 0.25


def test_what_cannot_be_a_reference_or_a_pair_is_said():
    policy = tiny()
    with pytest.raises(SettingError, match="one object"):
        preference_run(policy, PAIRS, loss=DPO, settings=SETTINGS, reference=policy)
    lists = lists_from_rows([{"prompt": "1", "answers": ["2", "3", "4"], "labels": [1, 0.5, 0]}] * 2)
    with pytest.raises(DataError, match="lists of 3 outcomes"):
        trained(preferences=lists)
    for wrong in ({"decay": "slow"}, {"batch_size": 0}, {"learning_rate": -1.0}, {"max_grad_norm": 0.0}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            replace(SETTINGS, **wrong)


def test_standing_counts_pairs_of_unequal_labels_only():
    ratio = torch.tensor([[3.0, 1.0, 2.0]])
    rows = {"label": torch.tensor([[1.0, 1.0, 0.0]]), "present": torch.ones(1, 3, dtype=torch.bool)}
    found = standing(ratio, rows)
    assert float(found["ordered"]) == 0.5, "3 > 2 is right, 1 < 2 is wrong, the first two are equal"
    assert float(found["margin"]) == pytest.approx(0.0)
    assert (float(found["chosen"]), float(found["rejected"])) == (3.0, 2.0)


# ---- rounds ---------------------------------------------------------------------------------------------


def test_answers_of_the_policy_come_apart_the_right_way_round():
    progress = in_rounds(replace(ROUNDS, steps=12), take_every=100, writer="reference")
    assert progress[0].metrics["loss"] == pytest.approx(0.6931, abs=1e-4)
    later = [now.metrics for now in progress[-4:]]
    assert sum(metrics["margin"] for metrics in later) > 0.2
    assert sum(metrics["ordered"] for metrics in later) > 2


def test_the_reference_is_taken_anew_where_it_is_asked_to():
    losses = [now.metrics["loss"] for now in in_rounds(replace(ROUNDS, steps=5), take_every=2)]
    assert [abs(loss - 0.693147) < 1e-4 for loss in losses] == [True, False, True, False, True]


def test_a_round_learns_several_steps_from_its_rows():
    progress = in_rounds(replace(ROUNDS, steps=6, prompts=8), round_steps=3, batch_size=2)
    assert ["rows" in now.metrics for now in progress] == [True, False, False, True, False, False]


@pytest.mark.parametrize("options", [{}, {"mix": replayed([1.0, 0.5], pad=0), "kept": 2}])
def test_a_run_killed_within_a_round_goes_on_to_the_same_numbers(tmp_path, options):
    options = {"round_steps": 3, "batch_size": 2, "take_every": 3, **options}
    settings = replace(ROUNDS, steps=8, prompts=6)
    whole = in_rounds(settings, **options)
    run = preference_rounds(
        tiny(), PROMPTS, parity, settings=settings, build=picked(best_worst), loss=DPO, **options
    )
    for _ in range(4):
        now = next(run)
    save_tree(tmp_path / "state.safetensors", now.state.state_dict())
    saved = load_tree(tmp_path / "state.safetensors")
    resumed = in_rounds(settings, state=saved, **options)
    assert [now.metrics for now in resumed] == [now.metrics for now in whole[4:]]


def test_old_rows_are_replayed_in_their_shares():
    progress = in_rounds(
        replace(ROUNDS, steps=2, prompts=6), mix=replayed([1.0, 0.5], pad=0), kept=2, take_every=1
    )
    first, second = (now.metrics for now in progress)
    assert first["learnt_rows"] == first["rows"]
    assert second["learnt_rows"] == second["rows"] + min(first["rows"], round(0.5 * second["rows"]))


def test_rounds_without_a_preference_are_an_error_and_not_silence():
    with pytest.raises(DataError, match="gave a preference"):
        list(
            preference_rounds(
                tiny(), PROMPTS, lambda *_: 1.0, settings=ROUNDS, build=picked(best_worst), loss=DPO
            )
        )
    with pytest.raises(SettingError, match="replay shares"):
        replayed([1.0, 1.5], pad=0)
