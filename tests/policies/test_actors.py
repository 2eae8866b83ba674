"""Actors: densities against the library's own distributions, draws against their densities."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal

from policysmith.common.errors import ShapeError
from policysmith.common.rng import seeded_initialisation
from policysmith.policies.actors import CategoricalActor, GaussianActor
from policysmith.policies.protocol import load_policy


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(**settings) -> GaussianActor:
    actor = GaussianActor(3, 2, hidden=(8,), **settings)
    actor.log_deviation.data = torch.tensor([0.3, -1.2])
    return actor


OBSERVATION = torch.randn(6, 3, generator=rng(9))


# ---- Gaussian ----------------------------------------------------------------------------------------


def test_gaussian_density_and_entropy_are_the_textbooks():
    actor, action = gaussian(), torch.randn(6, 2, generator=rng())
    reference = Independent(Normal(actor.mean(OBSERVATION), actor.log_deviation.exp()), 1)
    torch.testing.assert_close(actor.log_prob(OBSERVATION, action), reference.log_prob(action))
    torch.testing.assert_close(actor.entropy(), reference.entropy()[0])


def test_standard_gaussian_density_at_its_mean():
    actor = GaussianActor(3, 2)
    at_mean = actor.log_prob(OBSERVATION, actor.mean(OBSERVATION))
    torch.testing.assert_close(at_mean, torch.full((6,), -math.log(2 * math.pi)))


def test_gaussian_draws_follow_mean_and_deviation():
    actor = gaussian()
    many = OBSERVATION[:1].expand(20_000, 3)[:, None]
    with torch.no_grad():
        actions, _ = actor.act(many, actor.initial_state(20_000), rng=rng())
        mean = actor.mean(OBSERVATION[0])
    assert actions.shape == (20_000, 1, 2)
    torch.testing.assert_close(actions[:, 0].mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(actions[:, 0].std(0), actor.log_deviation.exp().detach(), atol=0, rtol=0.03)


def test_deterministic_actors_draw_nothing():
    for actor in (gaussian(deterministic=True), CategoricalActor(3, 4, deterministic=True)):
        stream = rng()
        before = stream.get_state()
        actions, _ = actor.act(OBSERVATION[:, None], actor.initial_state(6), rng=stream)
        assert torch.equal(stream.get_state(), before)
        if isinstance(actor, GaussianActor):
            best = actor.mean(OBSERVATION)
        else:
            best = actor.logits(OBSERVATION).argmax(-1, keepdim=True)
        assert torch.equal(actions[:, 0], best)


def test_gaussian_gradients_reach_mean_and_deviation():
    actor, action = gaussian(), torch.zeros(6, 2)
    actor.log_prob(OBSERVATION, action).sum().backward()
    with torch.no_grad():
        standard = (action - actor.mean(OBSERVATION)) / actor.log_deviation.exp()
    torch.testing.assert_close(actor.log_deviation.grad, (standard.square() - 1).sum(0))
    assert all(bool(p.grad.any()) for p in actor.mean.parameters())


@pytest.mark.parametrize("value", [-1, 0, 2, -0.5])
def test_the_initial_deviation_may_be_a_whole_number(value):
    actor = GaussianActor(3, 2, initial_log_deviation=value)
    assert actor.log_deviation.tolist() == [value, value]
    assert float(actor.entropy().detach()) == pytest.approx(2 * value + math.log(2 * math.pi * math.e))


# ---- categorical -------------------------------------------------------------------------------------


def test_categorical_density_and_entropy_are_the_textbooks():
    actor = CategoricalActor(3, 5, hidden=(8,))
    reference = Categorical(logits=actor.logits(OBSERVATION))
    choice = torch.randint(5, (6, 1), generator=rng())
    torch.testing.assert_close(actor.log_prob(OBSERVATION, choice), reference.log_prob(choice[:, 0]))
    torch.testing.assert_close(actor.entropy(OBSERVATION), reference.entropy())


def test_categorical_probabilities_sum_to_one_even_where_logits_are_far_apart():
    actor = CategoricalActor(3, 2, hidden=())
    actor.logits[0].weight.data = torch.tensor([[200.0, 0, 0], [-200.0, 0, 0]])
    actor.logits[0].bias.data.zero_()
    observation = torch.tensor([[1.0, 0, 0]])
    choices = [actor.log_prob(observation, torch.tensor([[choice]])) for choice in (0, 1)]
    assert torch.cat(choices).tolist() == pytest.approx([0, -400])
    assert actor.entropy(observation).tolist() == pytest.approx([0])


def test_categorical_draws_follow_their_probabilities():
    actor = CategoricalActor(3, 3, hidden=(8,))
    many = OBSERVATION[:1].expand(20_000, 3)[:, None]
    choices, _ = actor.act(many, actor.initial_state(20_000), rng=rng())
    assert choices.shape == (20_000, 1, 1)
    assert choices.dtype == torch.long
    shares = choices.flatten().bincount(minlength=3) / 20_000
    torch.testing.assert_close(shares, actor.logits(OBSERVATION[0]).softmax(-1).detach(), atol=0.02, rtol=0)


# ---- both --------------------------------------------------------------------------------------------

with seeded_initialisation(0):
    ACTORS = [gaussian(), CategoricalActor(3, 4, hidden=(8,))]


@pytest.mark.parametrize("actor", ACTORS)
def test_an_action_is_one_network_call_and_leaves_the_callers_state_alone(actor):
    state = actor.initial_state(6)
    _, once = actor.act(OBSERVATION[:, None], state, rng=rng())
    _, twice = actor.act(OBSERVATION[:, None], once, rng=rng())
    assert [int(s["network_calls"][0]) for s in (state, once, twice)] == [0, 1, 2]


@pytest.mark.parametrize("actor", ACTORS)
def test_the_same_stream_gives_the_same_actions_and_nothing_global_moves(actor):
    before = torch.get_rng_state()
    one, two, other = (
        actor.act(OBSERVATION[:, None], actor.initial_state(6), rng=rng(seed))[0] for seed in (0, 0, 5)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("actor", ACTORS)
def test_a_saved_actor_acts_the_same(actor, tmp_path):
    actor.save_pretrained(tmp_path)
    loaded = load_policy(tmp_path)
    assert type(loaded) is type(actor)
    actions = [
        policy.act(OBSERVATION[:, None], policy.initial_state(6), rng=rng())[0] for policy in (actor, loaded)
    ]
    assert torch.equal(*actions)


@pytest.mark.parametrize("actor", ACTORS)
def test_observations_that_do_not_fit_are_refused(actor):
    with pytest.raises(ShapeError, match="5 observations for a state of 6 rows"):
        actor.act(OBSERVATION[:5, None], actor.initial_state(6), rng=rng())
    with pytest.raises(ShapeError, match="observation of shape"):
        actor.act(OBSERVATION, actor.initial_state(6), rng=rng())
