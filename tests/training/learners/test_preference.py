"""Preference optimisation on pairs: the loss of whole answers, rounds, and what is no pair."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt, from_rows
from policysmith.objectives.preferences import dpo_loss
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.policies.language.small import small_decoder
from policysmith.training.learners.language_collect import usual_sampler
from policysmith.training.learners.language_settings import LanguageSettings
from policysmith.training.learners.preference import check_rejected, pair_batch, pair_loss, preference_run
from policysmith.training.learners.references import MovableReference

PROMPTS = from_rows({"prompt": f"{a}+{b}=", "answer": a + b} for a in range(3) for b in range(3))
SETTINGS = LanguageSettings(steps=4, prompts=3, group_size=4, answer_limit=5, learning_rate=1e-2)


def tiny() -> LanguagePolicy:
    return small_decoder(0, width=32, layers=1, heads=2, context=32)


def parity(text: str, prompt: Prompt) -> float:
    return float(sum(map(ord, text)) % 2)


def best_and_worst(samples: Samples) -> tuple[Samples, Samples]:
    """The first right and the first wrong answer of each group that has both."""
    chosen, rejected = {}, {}
    for row, (group, reward) in enumerate(
        zip(samples.batch["group_id"].tolist(), samples.batch["reward"].tolist(), strict=True)
    ):
        (chosen if reward > 0 else rejected).setdefault(group, row)
    both = sorted(set(chosen) & set(rejected))
    return samples.select([chosen[g] for g in both]), samples.select([rejected[g] for g in both])


def trained(settings=SETTINGS, **options):
    options = {"pairs": best_and_worst, "beta": 0.5} | options
    return list(preference_run(tiny(), PROMPTS, parity, settings=settings, **options))


def pairs_of(policy: LanguagePolicy) -> tuple[Samples, Samples]:
    sampler = usual_sampler(policy, parity, SETTINGS)
    return best_and_worst(sampler(dict(enumerate(PROMPTS)), rng=torch.Generator().manual_seed(0)))


def test_the_loss_is_that_of_the_sums_over_whole_answers():
    policy = tiny()
    reference = MovableReference(policy, temperature=1.0)
    chosen, rejected = pairs_of(policy)
    batch = pair_batch(chosen, rejected, reference)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(1.1)
        values, statistics = pair_loss(beta=0.5)(policy, batch)
        sums = [
            policy.log_prob(s.batch["token"], s.batch["attended"], mask=s.batch["mask"])[0].sum(1)
            for s in (chosen, rejected)
        ]
    # Before the weights moved the reference was the policy: what was sampled says how likely it was.
    before = [s.batch["behaviour_log_prob"].sum(1) for s in (chosen, rejected)]
    assert torch.allclose(values, dpo_loss(*sums, *before, beta=0.5), atol=1e-4)
    margin = 0.5 * ((sums[0] - before[0]) - (sums[1] - before[1]))
    assert torch.allclose(statistics["margin"], margin, atol=1e-4)


def test_pairs_come_apart_the_right_way_round():
    progress = trained(replace(SETTINGS, steps=12))
    first, later = progress[0].metrics, [now.metrics for now in progress[-4:]]
    assert first["loss"] == pytest.approx(0.6931, abs=1e-4), "at first the policy is its reference"
    assert first["pairs"] >= 1
    assert sum(metrics["margin"] for metrics in later) > 0.2
    assert sum(metrics["ordered"] for metrics in later) > 2


def test_a_new_round_begins_where_the_policy_is():
    progress = trained(replace(SETTINGS, steps=5), round_steps=2)
    losses = [now.metrics["loss"] for now in progress]
    assert [abs(loss - 0.693147) < 1e-4 for loss in losses] == [True, False, True, False, True]


def test_an_interrupted_run_goes_on_to_the_same_weights():
    whole = trained(round_steps=3)
    run = preference_run(
        tiny(), PROMPTS, parity, settings=SETTINGS, pairs=best_and_worst, beta=0.5, round_steps=3
    )
    next(run)
    saved = next(run).state.state_dict()
    saved = {**saved, "learners": {"policy": {**saved["learners"]["policy"]}}}
    resumed = list(
        preference_run(
            tiny(),
            PROMPTS,
            parity,
            settings=SETTINGS,
            pairs=best_and_worst,
            beta=0.5,
            round_steps=3,
            state=saved,
        )
    )
    assert [now.metrics for now in resumed] == [now.metrics for now in whole[2:]]


def test_a_rejected_answer_that_is_right_is_named():
    chosen, rejected = pairs_of(tiny())
    check_rejected(rejected)
    with pytest.raises(DataError, match="rejected answer of a pair is right"):
        check_rejected(chosen)
    with pytest.raises(DataError, match="rejected answer"):
        trained(pairs=lambda samples: best_and_worst(samples)[::-1])


def test_a_run_without_pairs_says_so():
    with pytest.raises(DataError, match="no question of 2 rollouts"):
        trained(replace(SETTINGS, rounds=2), pairs=lambda samples: (samples.select([]), samples.select([])))


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"round_steps": -1}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(SettingError):
        trained(**options)
