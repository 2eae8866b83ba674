"""The experiment with games: what its rivals are, and that the claim can fail."""

import importlib.util
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policysmith.claims import nash_md as experiment
from policysmith.claims.common import style_games, styles
from policysmith.claims.common.games import cycle
from policysmith.claims.common.review_learning import KL, Begun
from policysmith.claims.common.style_games import EMA, REPLY, RLHF, SELF, START, mixed
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.stages import result_of
from policysmith.objectives.preference_games import duality_gap, regularised_nash
from policysmith.training.learners.supervised import SupervisedSettings


def test_a_cycle_has_no_outcome_that_none_beats():
    for seed in range(5):
        wins = cycle(seed)
        assert torch.allclose(wins + wins.t(), torch.ones(3, 3).double())
        assert bool(((wins >= 0.6).sum(1) == 1).all())


def test_the_fitted_reward_is_right_where_preferences_have_one():
    reward = torch.tensor([1.0, 0.0, -2.0]).double()
    wins = torch.sigmoid(reward[:, None] - reward[None])
    found = experiment.fitted_reward(wins, torch.tensor([0.2, 0.5, 0.3]).double())
    assert torch.allclose(found - found[1], reward, atol=1e-4)


def test_only_nash_md_comes_to_the_equilibrium(tmp_path):
    found = result_of(experiment.reproduce(seeds=range(8), folder=tmp_path, evaluate=0))
    gap = experiment.gap_in(experiment.CYCLE)
    at = {arm.name: arm.summary[gap].value for arm in found.arms}
    assert at[experiment.NASH_MD] < 1e-5 < 1e-3 < at[experiment.BEST_ANSWER]
    reference = experiment.start_of(0, 3)
    goal = regularised_nash(cycle(0), reference, tau=experiment.TAU)
    assert duality_gap(cycle(0), reference, goal, tau=experiment.TAU) == pytest.approx(0, abs=1e-9)
    assert experiment.plot(found)[1].axes


def test_too_few_steps_do_not_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "STEPS", 1)
    assert result_of(experiment.reproduce(seeds=range(8), folder=tmp_path, evaluate=0)).verdict != "holds"


# ---- sentences in styles -----------------------------------------------------------------------------


def writes(*shares: float, seed: int = 0) -> styles.Marks:
    """What a policy wrote that takes each style so often, forty prompts and four sentences to each."""
    drawn = np.random.default_rng(seed).choice(3, size=(40, 4), p=shares)
    return np.concatenate([np.eye(3)[drawn], np.full((40, 4, 1), 0.5)], axis=2)


def pools(**mixtures: tuple[float, float, float]) -> list[dict[str, styles.Marks]]:
    """Three seeds in which the mixtures are nearly even and RLHF writes the last style, but for the named."""
    even, last = (0.3, 0.4, 0.3), (0.0, 0.0, 1.0)
    shares = {
        SELF: (0.7, 0.3, 0.0),
        REPLY: last,
        RLHF: last,
        **{mixed(m): even for m in style_games.MIXTURES},
    }
    shares |= {name: mixtures.get(key, shares[name]) for key, name in (
        ("ours", mixed(0.25)), ("self", SELF), ("reply", REPLY), ("rlhf", RLHF),
    )}  # fmt: skip
    only = {f"only {style}": tuple(np.eye(3)[place]) for place, style in enumerate(styles.STYLES)}
    return [
        {name: writes(*one, seed=10 * seed + at) for at, (name, one) in enumerate({**shares, **only}.items())}
        for seed in range(3)
    ]


def test_two_policies_win_one_to_the_other_what_the_other_loses():
    (pool, *_), even = pools(), np.full(40, 0.5)
    for name, other in ((SELF, RLHF), (mixed(0.5), REPLY)):
        total = style_games.wins(pool[name], pool[other]) + style_games.wins(pool[other], pool[name])
        assert total == pytest.approx(even + even)
    assert style_games.wins(pool[SELF], pool[SELF]) == pytest.approx(even)
    beaten = style_games.wins(pool["only lively"], pool["only grave"])
    assert beaten == pytest.approx(torch.sigmoid(torch.tensor(4.0)).expand(40).numpy())


def test_copies_of_the_same_place_do_not_meet():
    one, other = writes(1, 0, 0)[:1, :2].copy(), writes(1, 0, 0)[:1, :2].copy()
    other[0, 0, :3] = [0, 1, 0]  # beaten by the other's second copy alone
    high = 1 / (1 + np.exp(-4))
    assert style_games.wins(one, other) == pytest.approx([(0.5 + high) / 2])
    one[0, 0, :3] = [0, 0, 1]  # would have been beaten by it; meets the second, which it beats
    assert style_games.wins(one, other) == pytest.approx([high])


def test_what_exploits_a_policy_is_the_strongest_of_the_pool():
    pool = pools()[0]
    assert style_games.strongest(pool, RLHF) == "only lively"
    assert style_games.exploited(pool, RLHF).mean() == pytest.approx(0.482, abs=1e-3)
    assert style_games.exploited(pool, mixed(0.5)).mean() < 0.15


def test_an_even_mixture_of_styles_holds_and_a_policy_of_one_style_fails():
    assert {one.verdict for one in experiment.of_styles(pools(), pools())} == {"holds"}
    assert len(experiment.of_styles(pools(), pools())) == 5
    better = pools(self=(0.3, 0.4, 0.3), rlhf=(0.2, 0.7, 0.1))
    found = {one.name: one.verdict for one in experiment.of_styles(better, better)}
    assert found["less exploited than self-play"] != "holds"
    assert found["less exploited than RLHF, fitted reward"] == "holds"
    # All mixtures collapse to plain, which the grave ones beat.
    worse = pools()
    for pool in worse:
        for share in style_games.MIXTURES:
            pool[mixed(share)] = pool["only plain"]
    turned = {one.name: one.verdict for one in experiment.of_styles(worse, worse)}
    assert turned["less exploited than self-play"] == "fails"
    assert turned[f"beats {RLHF}"] == "fails"
    assert experiment.of_styles([], []) == []


def test_the_mixture_is_chosen_on_the_validation_prompts():
    other = pools()
    for pool in other:
        pool[mixed(0.25)] = pool[mixed(0.5)] = pool["only plain"]
    assert style_games.best_mixture(other) == mixed(0.125)
    assert {one.arm for one in experiment.of_styles(pools(), other)} == {mixed(0.125)}


def test_arms_differ_in_the_opponent_and_rlhf_in_the_judge_alone():
    start = Begun(None, Path("model"), None)  # type: ignore[arg-type]
    arms = {arm.label: arm for arm in style_games.arms(start, len, "length")}
    assert list(arms) == [SELF, *map(mixed, style_games.MIXTURES), REPLY, EMA, RLHF]
    for arm in arms.values():
        settings = asdict(arm.config)
        assert {name: settings[name] for name in style_games.BUDGET} == style_games.BUDGET
        assert arm.start.prompts.fingerprint == styles.prompts().fingerprint  # type: ignore[union-attr]
    assert arms[RLHF].config == arms[SELF].config
    assert arms[RLHF].start.inputs[2:] == (len,)  # type: ignore[union-attr]
    assert arms[RLHF].start.options == {}  # type: ignore[union-attr]
    assert arms[SELF].start.options == {"judge": styles.judge}  # type: ignore[union-attr]
    assert len({arm.start.fingerprint for arm in arms.values()}) == 2  # type: ignore[union-attr]


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs the extra 'language'")
def test_a_miniature_of_both_parts_makes_a_record(tmp_path, monkeypatch):
    quick = SupervisedSettings(steps=30, batch_size=16, learning_rate=1e-2)
    shown = styles.demonstrations(styles.prompts(), 500, 0)
    start = WarmStart(shown, quick, width=32, layers=1, context=24, words=styles.WORDS, spread=0.1)
    for module, name, value in (
        (experiment, "STEPS", 5),
        (style_games, "styles_start", lambda: start),
        (style_games, "StylePairs", lambda start, seed: styles.StylePairs(start, size=12, seed=seed)),
        (style_games, "REWARD_MODEL", replace(style_games.REWARD_MODEL, steps=2, batch_size=4)),
        (style_games, "BUDGET", {**style_games.BUDGET, "steps": 2, "prompts": 4}),
        (style_games, "MIXTURES", (0.25,)),
        (style_games, "SEEDS", 2),
        (style_games, "VALIDATING", 4),
    ):
        monkeypatch.setattr(module, name, value)
    found = result_of(experiment.reproduce(seeds=[0, 1, 2], folder=tmp_path, evaluate=6))
    arms = {arm.name: arm for arm in found.arms}
    assert {START, SELF, REPLY, EMA, RLHF, mixed(0.25)} < set(arms)
    assert [run.seed for run in arms[RLHF].runs] == [0, 1]
    assert arms[START].summary[KL].value == 0 != arms[RLHF].summary[KL].value
    for name in (SELF, RLHF):
        assert arms[name].summary[style_games.wins_against(name)].value == pytest.approx(0.5)
        one = [run.metrics[style_games.wins_against(START)] for run in arms[name].runs]
        back = [run.metrics[style_games.wins_against(name)] for run in arms[START].runs]
        assert np.add(one, back) == pytest.approx([1.0, 1.0])
    assert found.settings["styles"]["held_out_prompts"] == 6
    assert experiment.plot(found)[1].axes
