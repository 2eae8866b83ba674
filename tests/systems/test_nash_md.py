"""Nash-MD: who the opponent is, who learns, judges that go in circles, and settings that mean nothing."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import from_rows
from policysmith.policies.language.small import small_decoder
from policysmith.systems import nash_md
from policysmith.training.learners.references import MovableReference

PROMPTS = from_rows({"prompt": f"{n}="} for n in range(12))


def tiny():
    return small_decoder(0, width=32, layers=1, heads=2, context=32)


def more_e(prompts, first, second):
    return [float(torch.sigmoid(torch.tensor(2.0 * (a.count("e") - b.count("e"))))) for a, b in zip(first, second, strict=True)]  # fmt: skip  # noqa: E501


def run(**settings):
    options = {"judge": more_e} | {k: settings.pop(k) for k in ("judge", "reward", "state") if k in settings}
    config = replace(nash_md.PRESETS["tiny"], **settings)
    return list(nash_md.train(tiny(), PROMPTS, config=config, **options))


@pytest.mark.parametrize("opponent", ["mixture", "ema", "self", "ref"])
def test_against_every_opponent_the_policy_comes_to_be_preferred(opponent):
    progress = run(opponent=opponent, steps=40, prompts=12, group_size=4, answer_limit=6, learning_rate=1e-2)
    before, after = tiny(), progress[-1].state.policy()
    from policysmith.evaluation.answers import answer
    from policysmith.policies.language.sampling import Sampling

    def letters(policy):
        found = answer(policy, PROMPTS, lambda t, p: t.count("e"), sampling=Sampling(limit=6), copies=8)
        return float(found.score.mean())

    assert letters(after) > letters(before) + 0.5


def test_at_first_everybody_is_the_same_and_wins_half_of_the_time():
    for opponent in ("mixture", "ema", "self", "ref"):
        first = run(opponent=opponent, prompts=12, group_size=16)[0].metrics
        assert first["reward"] == pytest.approx(0.5, abs=0.05)


def test_a_mixture_of_nothing_but_the_start_is_the_start_and_none_of_it_is_self_play():
    def rewards(**settings):
        return [now.metrics["reward"] for now in run(learning_rate=1e-2, **settings)]

    assert rewards(opponent="mixture", mixture=1.0) == pytest.approx(rewards(opponent="ref"), abs=1e-4)
    assert rewards(opponent="mixture", mixture=0.0) == pytest.approx(rewards(opponent="self"), abs=1e-4)


def test_a_reward_is_the_judge_of_its_differences():
    with_reward = run(judge=None, reward=lambda text, prompt: 2.0 * text.count("e"))
    with_judge = run()
    for a, b in zip(with_reward, with_judge, strict=True):
        assert a.metrics == pytest.approx(b.metrics, abs=1e-5)


def test_the_penalty_holds_the_policy_to_its_start():
    def strayed(weight):
        last = run(divergence=weight, steps=30, prompts=12, group_size=4, learning_rate=1e-2)[-1]
        policy = last.state.policy()
        token = torch.tensor([tiny().encode("1=eeee")])
        with torch.no_grad():
            pair = [
                one.log_prob(token, torch.ones_like(token, dtype=torch.bool))[0] for one in (policy, tiny())
            ]
        return float((pair[0] - pair[1]).sum())

    assert strayed(0.0) > strayed(0.5)


def test_an_average_of_weights_is_saved_and_gone_on_from():
    config = replace(nash_md.PRESETS["tiny"], opponent="ema", learning_rate=1e-2)
    whole = list(nash_md.train(tiny(), PROMPTS, judge=more_e, config=config))
    begun = nash_md.train(tiny(), PROMPTS, judge=more_e, config=config)
    for _ in range(3):
        now = next(begun)
    saved = now.state.state_dict()
    resumed = list(nash_md.train(tiny(), PROMPTS, judge=more_e, config=config, state=saved))
    assert [one.metrics for one in resumed] == [one.metrics for one in whole[3:]]


def test_a_reference_moves_by_a_share_of_the_way():
    policy = tiny()
    reference = MovableReference(policy, temperature=1.0)
    before = [p.clone() for p in reference.policy.parameters()]
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(1.0)
    reference.move(0.25)
    for old, new in zip(before, reference.policy.parameters(), strict=True):
        assert torch.allclose(new, old + 0.25, atol=1e-6)


def test_judges_that_are_none_and_settings_that_mean_nothing_are_refused():
    with pytest.raises(SettingError, match="exactly one"):
        nash_md.train(tiny(), PROMPTS)
    with pytest.raises(DataError, match=r"the judge gave 1\.5"):
        run(judge=lambda prompts, first, second: [1.5] * len(first))
    with pytest.warns(UserWarning, match="order of the answers"):
        run(judge=lambda prompts, first, second: [0.9] * len(first))
    for wrong in ({"mixture": 1.5}, {"divergence": -1.0}, {"opponent": "nobody"}, {"form": "word"}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            nash_md.Config(**wrong)
