"""CoPG: where it comes to rest, what it shares with others, and rows without a score."""

from dataclasses import replace

import pytest

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.small import small_decoder
from policysmith.systems import copg, ipo


def tiny():
    return small_decoder(0, width=32, layers=1, heads=2, context=32)


def rows(*scores, answers=("yes", "no")):
    return Preferences(
        Preference(Prompt(f"{n}"), answers, (1.0, 0.0), {"scores": scores} if scores else {})
        for n in range(6)
    )


def trained(data, **settings):
    config = replace(copg.PRESETS["tiny"], **{"steps": 6, "batch_size": 3, "learning_rate": 3e-3, **settings})
    return list(copg.train(tiny(), data, config=config))


def test_the_gap_that_is_asked_for_is_the_difference_of_scores_over_beta():
    for high in (1.0, 0.5):
        progress = trained(rows(high, 0.2), beta=0.5, steps=150, batch_size=6)
        assert progress[-1].metrics["margin"] == pytest.approx((high - 0.2) / 0.5, abs=0.15)


def test_scores_of_a_quarter_move_the_weights_as_ipo_does():
    beta = 0.5
    ours = trained(rows(0.25, -0.25), beta=beta, steps=4)
    config = replace(
        ipo.PRESETS["tiny"], steps=4, batch_size=3, learning_rate=3e-3, warmup_steps=0, beta=beta
    )
    theirs = list(ipo.train(tiny(), rows(), config=config))
    # The loss is beta / 2 times IPO's and a constant; Adam does not see the factor.
    for a, b in zip(ours, theirs, strict=True):
        assert a.metrics["margin"] == pytest.approx(b.metrics["margin"], rel=1e-3, abs=1e-4)


def test_without_scores_labels_are_learnt():
    assert trained(rows())[-1].metrics["loss"] == pytest.approx(
        trained(rows(1.0, 0.0))[-1].metrics["loss"], rel=1e-5
    )


def test_more_than_two_answers_are_each_others_baseline():
    data = Preferences(
        Preference(Prompt(f"{n}"), ("yes", "no", "what"), (1.0, 0.5, 0.0), {"scores": (2.0, 1.0, 0.0)})
        for n in range(6)
    )
    assert trained(data, beta=0.5, steps=80)[-1].metrics["ordered"] == 1


def test_rows_without_a_score_are_named():
    with pytest.raises(DataError, match="row 0"):
        trained(rows(1.0, float("nan")))
    with pytest.raises(DataError, match="scores that differ somewhere"):
        trained(rows(1.0, 1.0))
    with pytest.raises(DataError, match=r"1\.0.* for 2 answers"):
        trained(rows(1.0))
    some = Preferences([*rows(1.0, 0.0), *rows()])
    with pytest.warns(UserWarning, match="6 of 12 rows have no scores"):
        trained(some)
    with pytest.raises(SettingError, match="beta"):
        copg.Config(beta=-1.0)
