"""DR-PO: the authors' numbers, PPO without resets, who learns from given tokens, and what is refused."""

from dataclasses import replace
from functools import partial

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.evaluation.conformance import check_system
from policysmith.experience.examples import Example, Examples
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt, from_rows
from policysmith.experience.resets import drawn, drawn_weight
from policysmith.objectives.advantages import generalised_advantage, whiten
from policysmith.objectives.averaging import token_mean_weight
from policysmith.objectives.policy_gradient import clipped_policy_loss, clipped_value_loss
from policysmith.objectives.token_rewards import kl_penalty, reward_at_end, whiten_around_mean
from policysmith.policies.language.small import small_decoder
from policysmith.systems import drpo, token_ppo
from policysmith.training.learners.critics import language_run_with_critic
from policysmith.training.learners.group_relative import clipped

TINY = drpo.PRESETS["tiny"]
PAIRS = Preferences(
    Preference(Prompt(f"{a}+{b}="), (f"ee{a + b}", "none")) for a in range(4) for b in range(4)
)
NO_MORE_THAN_PPO = {
    "epochs": 1, "decay": False, "whiten_rewards": False, "whiten": False, "missing_end": None,
    "learning_rate": 1e-3, "critic_learning_rate": 1e-3, "optimizer_steps": 2, "critic_warmup": 1,
}  # fmt: skip


def tiny(seed=0):
    return small_decoder(seed, width=32, layers=1, heads=2, context=48)


def letters(text, prompt):
    return float(text.count("e"))


def run(data=PAIRS, reward=letters, **settings):
    return list(drpo.train(tiny(), data, reward, config=replace(TINY, **settings)))


def metrics(progress):
    return [now.metrics for now in progress]


def test_keeps_what_every_system_keeps(tmp_path):
    check_system("drpo", tmp_path)


# ---- the authors' numbers ----------------------------------------------------------------------------

OLD = torch.tensor([[-0.5, -1.0, -0.2], [-1.5, -0.3, -0.8]])
REFERENCE = torch.tensor([[-0.6, -0.8, -0.2], [-1.1, -0.5, -0.7]])
OLD_VALUE = torch.tensor([[0.1, 0.2, 0.3], [0.0, -0.1, 0.2]])
NEW = torch.tensor([[-0.5, -0.7, -0.4], [-1.2, -0.3, -0.5]])
VALUE = torch.tensor([[0.4, 0.2, 0.1], [0.1, 0.3, 0.2]])
ALL = torch.ones(2, 3, dtype=torch.bool)


def token_rewards():
    """The second answer's score is at its second token, where the authors count pads behind it in."""
    penalty = kl_penalty(OLD, REFERENCE, ALL, coefficient=0.05)
    ends = torch.tensor([[True, True, True], [True, True, False]])
    return penalty + reward_at_end(torch.tensor([1.0, -0.4]), ends)


def advantages():
    reward = whiten_around_mean(token_rewards(), ALL)
    return generalised_advantage(reward, OLD_VALUE, torch.zeros(2), ALL, discount=1.0, lam=0.95)


def close(found, expected):
    assert torch.allclose(found, torch.tensor(expected), atol=2e-6), found


def test_token_rewards_and_their_whitening_are_the_authors():
    close(token_rewards(), [[-0.005, 0.01, 1], [0.02, -0.41, 0.005]])
    close(
        whiten_around_mean(token_rewards(), ALL),
        [[-0.149153, -0.114194, 2.193146], [-0.090887, -1.093065, -0.125847]],
    )


def test_advantages_are_the_authors():
    close(advantages(), [[1.645927, 1.784295, 1.893146], [-1.238376, -1.10262, -0.325847]])
    close(
        whiten(advantages(), ALL, correction=0),
        [[0.882362, 0.983837, 1.063664], [-1.232879, -1.13332, -0.563664]],
    )


def test_losses_are_the_authors_with_one_token_given():
    own = ALL.clone()
    own[0, 0] = False
    losses = clipped_policy_loss(NEW, OLD, whiten(advantages(), ALL, correction=0))
    policy = float((losses * token_mean_weight(own)).sum())
    values = clipped_value_loss(VALUE, OLD_VALUE, advantages() + OLD_VALUE, low=0.2, high=0.2)
    assert policy == pytest.approx(0.301388, abs=2e-6)
    assert float(values.mean()) == pytest.approx(1.150914, abs=2e-6)
    assert policy + 0.1 * float(values.mean()) == pytest.approx(0.416480, abs=2e-6)


# ---- PPO but for its beginnings ----------------------------------------------------------------------


def test_without_resets_it_is_plain_ppo():
    ours = run(**NO_MORE_THAN_PPO, reset_probability=0.0)
    shared = {name: NO_MORE_THAN_PPO[name] for name in NO_MORE_THAN_PPO if hasattr(token_ppo.Config, name)}
    config = replace(token_ppo.PRESETS["tiny"], **shared, kl=TINY.kl)
    theirs = list(token_ppo.train(tiny(), PAIRS.prompts, letters, config=config))
    for a, b in zip(ours, theirs, strict=True):
        assert {name: a.metrics[name] for name in b.metrics} == b.metrics


def test_without_resets_nothing_is_left_of_the_method_but_its_settings():
    config = replace(TINY, reset_probability=0.0, learning_rate=1e-3, decay=False)
    ours = list(drpo.train(tiny(), PAIRS.prompts, letters, config=config))
    plain = list(
        language_run_with_critic(
            tiny(), PAIRS.prompts, letters, settings=config, loss=clipped(low=0.2, high=0.2), kl=config.kl,
            around=drpo.ending(config), label=partial(drpo.labelled, config=config), epochs=config.epochs,
        )
    )  # fmt: skip
    for a, b in zip(ours, plain, strict=True):
        assert {name: a.metrics[name] for name in b.metrics} == b.metrics


def watched(monkeypatch, **settings):
    """The batches that the policy's weights are made of."""
    seen = []

    def weight(batch):
        seen.append(batch.clone())
        return drawn_weight(batch)

    monkeypatch.setattr(drpo, "drawn_weight", weight)
    progress = run(**settings)
    return progress, seen


def test_answers_begin_as_the_preferred_ones_and_get_their_reward(monkeypatch):
    progress, seen = watched(monkeypatch, reset_probability=1.0, steps=4)
    for batch in seen:
        assert bool((batch["prefix_length"] >= 1).all())
    for now in progress:
        assert now.metrics["reset"] == 1.0
        assert now.metrics["given_tokens"] >= 1
        assert now.metrics["reward"] >= now.metrics["given_tokens"] - 1, (
            "every given letter but a digit is an e"
        )
        assert "unaided_reward" not in now.metrics, "no answer was the policy's own"


def test_given_tokens_teach_the_critic_and_not_the_policy(monkeypatch):
    _, seen = watched(monkeypatch, reset_probability=1.0)
    batch = seen[0]
    given = batch["mask"] & ~drawn(batch)
    assert bool(given.any())
    assert bool(batch["value_target"][given].ne(0).all())
    assert bool(batch["advantage"][given].ne(0).all())
    policy = tiny()
    log_prob, _ = policy.log_prob(batch["token"], batch["attended"], mask=batch["mask"])
    log_prob.retain_grad()
    values, _ = clipped()(log_prob, log_prob, batch)
    (values * drawn_weight(batch)).sum().backward()
    assert not log_prob.grad[given].any()
    assert bool(log_prob.grad[drawn(batch)].any())


def test_every_pass_takes_all_answers_and_the_rates_fall_to_nothing(monkeypatch):
    progress, seen = watched(monkeypatch, steps=3, epochs=4, optimizer_steps=2)
    assert len(seen) == 3 * 4 * 2
    for learner in ("policy", "critic"):
        assert progress[-1].state.learners[learner].steps == 24
        optimizer = progress[-1].state.learners[learner].optimizer
        assert optimizer.param_groups[0]["lr"] == pytest.approx(3e-6 / 24)


def test_an_answer_without_an_end_has_the_reward_for_that(monkeypatch):
    progress, seen = watched(monkeypatch, missing_end=-7.0)
    cut = torch.cat([batch["reward"][~batch["finished"]] for batch in seen])
    ended = torch.cat([batch["reward"][batch["finished"]] for batch in seen])
    assert len(cut)
    assert set(cut.tolist()) == {-7.0}
    assert -7.0 not in ended.tolist()
    assert all(now.metrics["reward_learnt"] < now.metrics["reward"] for now in progress)


@pytest.mark.parametrize("resets", ["data", "start"])
def test_a_cut_run_goes_on_to_the_same_numbers(resets):
    config = replace(TINY, resets=resets, learning_rate=1e-3)
    whole = metrics(drpo.train(tiny(), PAIRS, letters, config=config))
    assert 0 < sum(one["reset"] for one in whole) < len(whole)
    begun = drpo.train(tiny(), PAIRS, letters, config=config)
    for _ in range(3):
        now = next(begun)
    saved = now.state.state_dict()
    assert metrics(drpo.train(tiny(), PAIRS, letters, config=config, state=saved)) == whole[3:]


def test_beginnings_of_the_start_stay_those_of_the_start(monkeypatch):
    made = []
    original = drpo.sampled_from

    def noted(engine, **options):
        made.append(engine.policies[0])
        return original(engine, **options)

    monkeypatch.setattr(drpo, "sampled_from", noted)
    policy = tiny()
    config = replace(TINY, resets="start", learning_rate=1e-2)
    list(drpo.train(policy, PAIRS.prompts, letters, config=config))
    (start,) = made
    fresh = tiny().state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in start.state_dict().items())
    assert any(not torch.equal(value, fresh[name]) for name, value in policy.state_dict().items())


def test_pairs_examples_and_a_column_are_the_same_data():
    examples = Examples(Example(row.prompt.text, row.answers[0]) for row in PAIRS)
    column = from_rows({"prompt": row.prompt.text, "good": row.answers[0]} for row in PAIRS)
    expected = metrics(run())
    assert metrics(run(examples)) == expected
    assert metrics(run(column, reference="good")) == expected


def test_what_cannot_be_begun_is_said_before_anything_is_written():
    plain = from_rows([{"prompt": "1"}, {"prompt": "2"}])
    with pytest.raises(DataError, match="row 0 '1'"):
        drpo.train(tiny(), plain, letters, config=TINY)
    assert len(run(plain, reset_probability=0.0, prompts=2)) == 6
    assert len(run(plain, resets="start", prompts=2)) == 6
    with pytest.warns(UserWarning, match="16 of 16 reference answers are longer than an answer may be"):
        drpo.train(tiny(), PAIRS, letters, config=replace(TINY, answer_limit=3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"reset_probability": -0.1},
        {"reset_probability": 1.5},
        {"kl": -0.1},
        {"clip": -0.1},
        {"epochs": 0},
        {"resets": "never"},
        {"start_top_p": 0.0},
        {"warmup_steps": 3},
    ],
)
def test_settings_out_of_their_range_are_refused(wrong):
    with pytest.raises(SettingError):
        drpo.Config(**wrong)
