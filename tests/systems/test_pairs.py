"""Systems on stored pairs: where they agree, where they part, and what they refuse."""

from dataclasses import replace

import pytest

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.preferences import flipped, lists_from_rows, pairs_from_rows
from policysmith.policies.language.small import small_decoder
from policysmith.systems import dpo, ipo, online_dpo, robust_dpo, slic

PAIRS = pairs_from_rows(
    {"prompt": f"{a}+{b}=", "chosen": f"{a + b}", "rejected": "none"} for a in range(5) for b in range(4)
)


def tiny():
    return small_decoder(0, width=32, layers=1, heads=2, context=48)


def metrics_of(module, **settings):
    config = replace(module.PRESETS["tiny"], steps=8, batch_size=4, learning_rate=3e-3, **settings)
    return [now.metrics for now in module.train(tiny(), PAIRS, config=config)]


def losses(module, **settings):
    return [metrics["loss"] for metrics in metrics_of(module, **settings)]


SAME = {"warmup_steps": 0, "weight_decay": 0.01, "beta": 0.1}


def test_at_a_rate_of_zero_robust_and_smoothed_are_dpo():
    plain = losses(dpo, **SAME)
    for correction in ("robust", "smoothed"):
        assert losses(robust_dpo, rate=0.0, correction=correction, **SAME) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(("base", "module"), [("hinge", slic), ("ipo", ipo)])
def test_other_bases_at_a_rate_of_zero_are_their_own_systems(base, module):
    options = {"imitation": 0.0} if module is slic else {}
    assert losses(robust_dpo, rate=0.0, base=base, **SAME) == pytest.approx(
        losses(module, **SAME, **options), rel=1e-5
    )


def test_the_first_losses_are_those_of_no_margin():
    assert losses(dpo, **SAME)[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses(ipo, **SAME)[0] == pytest.approx((1 / 0.2) ** 2, rel=1e-4)
    assert losses(slic, **SAME, imitation=0.0)[0] == pytest.approx(1, abs=1e-5)


def test_imitation_makes_the_chosen_answer_likelier_still():
    with_it, without = (metrics_of(slic, **SAME, imitation=weight)[-1] for weight in (1.0, 0.0))
    assert with_it["chosen"] > without["chosen"]


def test_the_robust_loss_goes_below_zero_and_says_how_large_margins_are():
    found = metrics_of(robust_dpo, rate=0.4, **{**SAME, "beta": 2.0})
    assert found[-1]["loss"] < 0
    assert found[-1]["size_of_margin"] > found[1]["size_of_margin"]


def test_a_loss_without_an_end_is_warned_of_once_and_only_where_nothing_holds():
    config = replace(robust_dpo.PRESETS["tiny"], weight_decay=0.0, rate=0.2)
    with pytest.warns(UserWarning, match="nothing holds the weights") as caught:
        robust_dpo.train(tiny(), PAIRS, config=config)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "config", [{}, {"base": "ipo", "weight_decay": 0.0}, {"rate": 0.0, "weight_decay": 0.0}]
)
def test_what_is_bounded_or_held_is_not_warned_of(config, recwarn):
    robust_dpo.train(tiny(), PAIRS, config=replace(robust_dpo.PRESETS["tiny"], **config))
    assert not [one for one in recwarn if "nothing holds" in str(one.message)]


@pytest.mark.parametrize("rate", [-0.1, 0.5, 0.7])
def test_a_rate_of_a_half_or_more_is_refused_with_the_number(rate):
    with pytest.raises(SettingError, match=rf"flip rate must be in \[0, 0\.5\); got {rate}"):
        robust_dpo.Config(rate=rate)


def test_settings_that_mean_nothing_are_refused():
    for config in (dpo.Config, ipo.Config, slic.Config, robust_dpo.Config, online_dpo.Config):
        with pytest.raises(SettingError, match="beta"):
            config(beta=0.0)
    with pytest.raises(SettingError, match="base is 'square'"):
        robust_dpo.Config(base="square")
    with pytest.raises(SettingError, match="correction"):
        robust_dpo.Config(correction="none")
    with pytest.raises(SettingError, match="imitation"):
        slic.Config(imitation=-1)
    with pytest.raises(SettingError, match="group_size"):
        online_dpo.Config(group_size=1)


def test_lists_are_no_pairs_and_say_how_to_become_some():
    lists = lists_from_rows([{"prompt": "1", "answers": ["2", "3", "4"], "labels": [1, 0.5, 0]}] * 2)
    with pytest.raises(DataError, match="lists of 3 outcomes"):
        list(dpo.train(tiny(), lists, config=dpo.PRESETS["tiny"]))
    assert list(dpo.train(tiny(), lists.as_pairs(), config=dpo.PRESETS["tiny"]))[-1].step == 6


def test_with_flipped_labels_the_correction_keeps_pairs_further_apart():
    noisy = flipped(pairs_from_rows(
        {"prompt": f"{n:03d}", "chosen": "yes", "rejected": "no"} for n in range(200)
    ), 0.3, seed=0)  # fmt: skip
    settings = dict(steps=60, batch_size=20, learning_rate=3e-3, weight_decay=0.01, warmup_steps=0)
    clean = [row for row in noisy if not row.data.get("flipped")]

    def margin(module, **options):
        config = replace(module.PRESETS["tiny"], **settings, **options)
        last = list(module.train(tiny(), noisy, config=config))[-5:]
        return sum(now.metrics["margin"] for now in last) / 5

    assert len(clean) < 160
    # Of batches as labelled the mean margin is (1 - 2 rate) times that of the pairs as they are.
    assert margin(robust_dpo, rate=0.3) > margin(dpo) > margin(robust_dpo, rate=0.3, correction="smoothed")


def test_online_pairs_are_of_the_policy_as_it_is():
    from policysmith.experience.prompts import from_rows

    prompts = from_rows({"prompt": f"{n}="} for n in range(8))
    config = replace(
        online_dpo.PRESETS["tiny"],
        steps=24,
        prompts=8,
        group_size=4,
        round_steps=1,
        answer_limit=8,
        learning_rate=3e-3,
    )
    progress = list(
        online_dpo.train(tiny(), prompts, lambda text, prompt: float(text.count("e")), config=config)
    )
    rewards = [now.metrics["reward"] for now in progress]
    assert sum(rewards[-6:]) / 6 > sum(rewards[:6]) / 6 + 0.2
