"""Families over IQL and CQL: which balance is learnt with when, which critics judge, whose weights move."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from policysmith.common.errors import SettingError
from policysmith.common.spaces import ActionSpace
from policysmith.objectives.values import advantage_weight, advantage_weighted_loss, clipped_double_q
from policysmith.training.learners.family import FamilySettings
from policysmith.training.learners.family_conservative import ConservativeFamily
from policysmith.training.learners.family_implicit import ImplicitFamily
from policysmith.training.learners.fine_tuning import ONLINE
from policysmith.training.loop import RunState

SPACE = ActionSpace("continuous", (-1.0, -1.0), (1.0, 1.0))
SETTINGS = FamilySettings(balance_range=(1.0, 5.0), hidden=(16,), sampled_actions=3)
BASES = {"iql": ImplicitFamily, "cql": ConservativeFamily}
ROWS = 32


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def family(base="iql", **changes):
    return BASES[base](3, SPACE, dataclasses.replace(SETTINGS, **changes), seed=0)


def batch(rows=ROWS, seed=1):
    draw = rng(seed)
    return {
        "observation": torch.randn(rows, 3, generator=draw),
        "action": torch.rand(rows, 2, generator=draw) * 2 - 1,
        "reward": torch.randn(rows, generator=draw),
        "next_observation": torch.randn(rows, 3, generator=draw),
        "terminated": torch.rand(rows, generator=draw) < 0.2,
    }


def update(made, rows, phase="", number=0):
    return made.update_once(RunState(learners=made.learners, phase=phase), rows, number)


def watch(learner):
    """The batches that a learner is stepped on from now on."""
    seen, step = [], learner.step

    def watched(rows):
        seen.append(dict(rows))
        return step(rows)

    learner.step = watched
    return seen


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def certain(made, balance):
    """Make the chooser choose one balance, with hardly any chance."""
    chooser = made.policy.chooser
    unit = torch.tensor((balance - chooser.low) / (chooser.high - chooser.low) * 2 - 1)
    for weight in chooser.mean[-1].parameters():
        nn.init.zeros_(weight)
    nn.init.constant_(chooser.mean[-1].bias, float(unit.atanh()))
    nn.init.constant_(chooser.log_deviation, -9.0)


# ---- the numbers ---------------------------------------------------------------------------------------


def test_weights_and_loss_of_two_rows_by_hand():
    q = clipped_double_q(torch.tensor([[1.0, 2.0], [1.2, 1.9]]))
    weight = advantage_weight(q - torch.tensor([0.9, 1.5]), beta=torch.tensor([8.0, 10.0]))
    assert torch.allclose(weight, torch.tensor([2.22554093, 54.59815003]), rtol=1e-5)
    loss = advantage_weighted_loss(torch.tensor([-1.0, -2.0]), weight).mean()
    assert loss.item() == pytest.approx(55.71092050, rel=1e-5)


def test_no_single_action_counts_more_than_the_cap():
    made = family(cap=1.5)
    with torch.no_grad():
        for bias in list(made.target.module.parameters())[-1:]:
            bias.add_(5.0)  # all actions look much better than expected
    seen = watch(made.learners["policy"])
    update(made, batch())
    assert torch.allclose(seen[0]["imitation"], torch.tensor(1.5))


# ---- which balance -------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
def test_offline_every_row_has_a_balance_of_its_own_and_the_chooser_is_not_asked(base):
    made = family(base)
    certain(made, 2.0)
    seen = watch(made.learners["policy"])
    update(made, batch(rows=2000))
    balance = seen[0]["balance"]
    assert len(balance.unique()) > 1500
    assert 1 <= float(balance.min()) < 1.05
    assert 4.95 < float(balance.max()) <= 5


@pytest.mark.parametrize("base", BASES)
def test_online_the_balance_is_the_choosers_as_it_was_before_the_update(base):
    made = family(base, learning_rate=1.0)
    certain(made, 2.0)
    seen = watch(made.learners["policy"])
    update(made, batch(), ONLINE)
    # A learning rate of 1 throws the chooser far off in the same update.
    assert torch.allclose(seen[0]["balance"], torch.tensor(2.0), atol=0.01)
    assert float((made.policy.chooser(batch()["observation"]) - 2).abs().max()) > 0.5


def test_the_chooser_draws_online_and_does_not_take_its_mean():
    made = family()
    seen = watch(made.learners["policy"])
    update(made, batch(), ONLINE)
    assert not torch.allclose(seen[0]["balance"], made.policy.chooser(batch()["observation"]), atol=0.1)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("phase", ["", ONLINE])
def test_the_chooser_learns_in_both_phases(base, phase):
    made = family(base)
    before = weights(made.policy.chooser)
    update(made, batch(), phase)
    assert not torch.equal(weights(made.policy.chooser), before)


def test_the_chooser_waits_for_its_turn():
    made = family(chooser_every=3)
    moved = []
    for seed in range(6):
        before = weights(made.policy.chooser)
        update(made, batch(seed=seed), number=seed)
        moved.append(not torch.equal(weights(made.policy.chooser), before))
    assert moved == [False, False, True] * 2


def test_random_balances_leave_nothing_to_learn_for_a_chooser():
    made = family(random_balances=True)
    assert set(made.learners) == {"policy", "critic", "value"}
    seen = watch(made.learners["policy"])
    update(made, batch(rows=2000), ONLINE)
    assert float(seen[0]["balance"].min()) < 1.05
    assert float(seen[0]["balance"].max()) > 4.95


class SideOfTheState(nn.Module):
    """Judges an action good that goes to the side on which the state is."""

    def forward(self, observation, action):
        return (torch.sign(observation[:, 0]) * action[:, 0]).expand(2, -1)


def test_the_chooser_takes_for_each_state_the_member_whose_action_the_critic_likes():
    made = family(learning_rate=0.02, initial_temperature=0.05)
    made.target.module = SideOfTheState()
    rows = batch(rows=256)
    actor = made.policy.actor
    # An actor whose members go from left to right as the balance rises.
    with torch.no_grad():
        for weight in actor.body.layers[0].parameters():
            weight.zero_()
        actor.body.layers[0].weight[0, 5] = 1.0  # sin(balance / 21.5), rising over the whole range
        actor.head.mean.weight.zero_()
        actor.head.mean.weight[0, 0] = 10.0
        actor.head.mean.bias.fill_(-1.4)
        actor.head.log_deviation.fill_(-3.0)
    for _ in range(150):
        made.learners["chooser"].step(rows)
    right = rows["observation"][:, 0] > 0
    balance = made.policy.chooser(rows["observation"]).detach()
    assert float(balance[right].mean()) > float(balance[~right].mean()) + 1


# ---- whose weights, whose opinion ----------------------------------------------------------------------


def test_critics_see_observation_and_action_and_nothing_else():
    made = family()
    first = made.learners["critic"].module.network.layers[0]
    assert first.weight.shape[1] == 3 + 2


@pytest.mark.parametrize("base", BASES)
def test_the_choosers_step_moves_no_other_network(base):
    made = family(base)
    actor, critics = made.policy.actor, made.learners["critic"].module
    before = [weights(actor), weights(critics)]
    made.learners["chooser"].step(batch())
    assert torch.equal(weights(actor), before[0])
    assert torch.equal(weights(critics), before[1])
    assert all(p.grad is None for p in critics.parameters())
    assert all(p.requires_grad for p in actor.parameters())


@pytest.mark.parametrize("base", BASES)
def test_the_actors_step_does_not_move_the_chooser(base):
    made = family(base)
    before = weights(made.policy.chooser)
    rows = batch() | {"balance": torch.full((ROWS,), 2.0), "imitation": torch.ones(ROWS)}
    made.learners["policy"].step(rows)
    assert torch.equal(weights(made.policy.chooser), before)


@pytest.mark.parametrize(("base", "who"), [("iql", "targets"), ("cql", "critics")])
def test_over_iql_the_target_critics_judge_the_chooser_and_over_cql_the_critics(base, who):
    def moved(spoilt):
        made = family(base)
        critics = made.target.module if spoilt == "targets" else made.learners["critic"].module
        with torch.no_grad():
            for weight in critics.parameters():
                weight.mul_(3).add_(0.5)
        made.learners["chooser"].step(batch())
        return weights(made.policy.chooser)

    untouched = moved("nobody" if who == "targets" else "targets")
    if who == "critics":
        assert torch.equal(untouched, moved("targets"))
        assert not torch.equal(untouched, moved("critics"))
    else:
        assert not torch.equal(untouched, moved("targets"))


def test_nothing_follows_a_true_end_and_a_cut_episode_goes_on():
    made = family(discount=0.9)
    rows = batch()
    seen = watch(made.learners["critic"])
    update(made, rows)
    value = made.learners["value"].module(rows["next_observation"]).detach()
    wanted = torch.where(rows["terminated"], rows["reward"], rows["reward"] + 0.9 * value)
    assert torch.allclose(seen[0]["value_target"], wanted, atol=1e-6)


def test_actions_are_weighed_by_the_value_that_has_just_been_fitted():
    made = family(learning_rate=0.1)
    rows = batch()
    q = made.data_value(rows)
    before = made.advantage(rows, q)
    seen = watch(made.learners["policy"])
    update(made, rows)
    after = made.advantage(rows, q)
    weighed = (seen[0]["balance"] * after).exp().clamp(max=made.family.cap)
    assert torch.allclose(seen[0]["imitation"], weighed, rtol=1e-4)
    assert not torch.allclose(before, after, atol=1e-3)


# ---- over CQL ------------------------------------------------------------------------------------------


def test_the_balance_at_the_next_state_is_carried_over_unless_it_is_wanted_anew():
    def balances(**changes):
        made = family("cql", **changes)
        asked, draw = [], made.policy.draw
        made.policy.draw = lambda seen, balance, rng: asked.append(balance) or draw(seen, balance, rng)
        update(made, batch())
        return asked[:3]  # the next action, samples here, samples at the next state

    following, here, there = balances()
    assert torch.equal(here, there)
    assert torch.equal(here[:: SETTINGS.sampled_actions], following)
    following, here, there = balances(balance_anew=True)
    assert not torch.equal(here, there)
    assert torch.equal(there[:: SETTINGS.sampled_actions], following)


def test_the_authors_chooser_reaches_below_the_range():
    made = family("cql", balance_range=(0.5, 1.5), wide_chooser=True)
    assert (made.policy.chooser.low, made.policy.chooser.high) == (-0.5, 1.5)
    made = family("cql", balance_range=(0.5, 1.5))
    assert (made.policy.chooser.low, made.policy.chooser.high) == (0.5, 1.5)


def test_the_penalty_lowers_what_critics_say_of_actions_that_are_not_in_the_data():
    def excess(penalty):
        """By how much critics think more of the data's actions (to the right) than of any."""
        made = family("cql", penalty=penalty, learning_rate=3e-3)
        rows = batch(rows=64)
        rows["action"] = 0.5 + 0.2 * rows["action"]
        anything = torch.rand(64, 9, 2, generator=rng(5)) * 2 - 1
        rows |= {"value_target": torch.zeros(64), "sampled_action": anything}
        rows["sampled_log_density"] = torch.full((64, 9), -2 * 0.693147)
        for _ in range(60):
            made.learners["critic"].step(rows)
        critics = made.learners["critic"].module
        of_any = critics(rows["observation"], anything[:, 0]).mean()
        return float((critics(rows["observation"], rows["action"]).mean() - of_any).detach())

    assert excess(5.0) > excess(0.0) + 0.5


# ---- bad settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"balance_range": (5.0, 1.0)}, r"5\.0 to 1\.0"),
        ({"encoding_size": 5}, "encoding size must be even"),
        ({"chooser_every": 0}, "chooser_every"),
        ({"expectile": 1.5}, "expectile"),
        ({"cap": 0.0}, "cap"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(SettingError, match=said):
        dataclasses.replace(SETTINGS, **changes)
