"""Actors: densities against the library's own distributions, draws against their densities, every space."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from tensordict import TensorDict
from torch.distributions import Categorical, Independent, Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, TanhTransform

from policysmith.common.errors import CapabilityError, SettingError, ShapeError
from policysmith.common.rng import seeded_initialisation
from policysmith.common.spaces import ActionSpace
from policysmith.networks.bodies import Body
from policysmith.networks.critics import DuellingQ
from policysmith.policies.actors import NetworkPolicy, actor_for, gaussian_actor
from policysmith.policies.distributions import Categoricals, Greedy, SquashedGaussian
from policysmith.policies.heads import (
    CategoricalHead,
    DeterministicHead,
    GaussianHead,
    GreedyHead,
    SquashedGaussianHead,
)
from policysmith.policies.protocol import load_policy


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_head(head, **settings) -> NetworkPolicy:
    return NetworkPolicy(Body(3, hidden=(8,)), head, **settings)


OBSERVATION = torch.randn(6, 3, generator=rng(9))


# ---- Gaussian ----------------------------------------------------------------------------------------


def test_gaussian_density_and_entropy_are_the_textbooks():
    actor, action = gaussian_actor(3, 2), torch.randn(6, 2, generator=rng())
    actor.head.log_deviation.data = torch.tensor([0.3, -1.2])
    found = actor.distribution(OBSERVATION)
    reference = Independent(Normal(found.mean, found.log_deviation.exp()), 1)
    torch.testing.assert_close(actor.log_prob(OBSERVATION, action), reference.log_prob(action))
    torch.testing.assert_close(actor.entropy(OBSERVATION), reference.entropy())


def test_standard_gaussian_density_at_its_mean():
    actor = gaussian_actor(3, 2)
    at_mean = actor.log_prob(OBSERVATION, actor.distribution(OBSERVATION).mode())
    torch.testing.assert_close(at_mean, torch.full((6,), -math.log(2 * math.pi)))


def test_gaussian_draws_follow_mean_and_deviation_and_know_their_density():
    actor = gaussian_actor(3, 2)
    actor.head.log_deviation.data = torch.tensor([0.3, -1.2])
    many = OBSERVATION[:1].expand(20_000, 3)
    with torch.no_grad():
        actions, log_prob = actor.draw(many, rng())
        torch.testing.assert_close(log_prob, actor.log_prob(many, actions), atol=1e-4, rtol=1e-4)
        mean = actor.distribution(many[:1]).mode()[0]
    torch.testing.assert_close(actions.mean(0), mean, atol=0.05, rtol=0)
    deviation = actor.head.log_deviation.exp().detach()
    torch.testing.assert_close(actions.std(0), deviation, atol=0, rtol=0.03)


def test_gaussian_gradients_reach_mean_and_deviation():
    actor, action = gaussian_actor(3, 2), torch.zeros(6, 2)
    actor.log_prob(OBSERVATION, action).sum().backward()
    with torch.no_grad():
        standard = action - actor.distribution(OBSERVATION).mode()
    torch.testing.assert_close(actor.head.log_deviation.grad, (standard.square() - 1).sum(0))
    assert all(bool(p.grad.any()) for p in actor.body.parameters())


# ---- squashed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("high", [(1.0, 1.0), (2.0, 0.5)])
def test_squashed_density_is_that_of_the_action_scaled_to_the_unit_cube(high):
    low = tuple(-h for h in high)
    head = SquashedGaussianHead(4, low, high)
    found = head(torch.randn(6, 4, generator=rng()))
    assert isinstance(found, SquashedGaussian)
    action, log_prob = found.draw(rng(1))
    unit = action / torch.tensor(high)
    inner = Independent(Normal(found.inner.mean, found.inner.log_deviation.exp()), 1)
    reference = TransformedDistribution(inner, [TanhTransform()])
    torch.testing.assert_close(log_prob, reference.log_prob(unit), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.log_prob(action), log_prob, atol=1e-3, rtol=1e-3)


def test_squashed_density_in_units_differs_by_the_scale_alone():
    head = SquashedGaussianHead(4, (0.0,), (3.0,))
    found = head(torch.randn(6, 4, generator=rng()))
    action, log_prob = found.draw(rng(1))
    inner = Independent(Normal(found.inner.mean, found.inner.log_deviation.exp()), 1)
    units = TransformedDistribution(inner, [TanhTransform(), AffineTransform(1.5, 1.5, event_dim=1)])
    torch.testing.assert_close(log_prob - math.log(1.5), units.log_prob(action), atol=1e-4, rtol=1e-4)


def test_squashed_actions_stay_within_their_limits_where_the_noise_is_large():
    head = SquashedGaussianHead(4, (-2.0, 0.0), (2.0, 1.0))
    head.both.bias.data[2:] = 5.0
    found = head(torch.randn(1000, 4, generator=rng()))
    action, log_prob = found.draw(rng(1))
    assert bool((action.abs() <= 2).all())
    assert bool(((action[:, 1] >= 0) & (action[:, 1] <= 1)).all())
    assert bool(log_prob.isfinite().all())
    assert bool(found.log_prob(torch.tensor([[2.0, 1.0]]).expand(1000, 2)).isfinite().all())


def test_squashed_draws_carry_gradient_to_the_body():
    actor = with_head(SquashedGaussianHead(8, (-1.0,), (1.0,)))
    actor.draw(OBSERVATION, rng())[0].sum().backward()
    assert all(bool(p.grad.any()) for p in actor.body.parameters())


def test_the_entropy_of_a_squashed_gaussian_is_refused():
    with pytest.raises(CapabilityError, match="no closed form"):
        with_head(SquashedGaussianHead(8, (-1.0,), (1.0,))).entropy(OBSERVATION)


# ---- choices -----------------------------------------------------------------------------------------


def test_categorical_density_and_entropy_are_the_textbooks():
    actor = with_head(CategoricalHead(8, (5,)))
    reference = Categorical(logits=actor.head.logits(actor.body(OBSERVATION)))
    choice = torch.randint(5, (6, 1), generator=rng())
    torch.testing.assert_close(actor.log_prob(OBSERVATION, choice), reference.log_prob(choice[:, 0]))
    torch.testing.assert_close(actor.entropy(OBSERVATION), reference.entropy())


def test_several_numbers_are_independent_choices():
    head = CategoricalHead(8, (2, 4, 3))
    features = torch.randn(6, 8, generator=rng())
    found, logits = head(features), head.logits(features).split([2, 4, 3], -1)
    choice = torch.tensor([[1, 3, 2]]).expand(6, 3)
    references = [Categorical(logits=part) for part in logits]
    log_prob = sum(one.log_prob(choice[:, n]) for n, one in enumerate(references))
    torch.testing.assert_close(found.log_prob(choice), log_prob)
    torch.testing.assert_close(found.entropy(), sum(one.entropy() for one in references))
    drawn, _ = found.draw(rng())
    assert bool((drawn < torch.tensor([2, 4, 3])).all())


def test_probabilities_sum_to_one_even_where_logits_are_far_apart():
    found = Categoricals(torch.tensor([[[200.0, -200.0]]]))
    assert [float(found.log_prob(torch.tensor([[c]]))) for c in (0, 1)] == pytest.approx([0, -400])
    assert found.entropy().tolist() == pytest.approx([0])


def test_draws_follow_their_probabilities():
    found = Categoricals(torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 1, 3))
    choices, log_prob = found.draw(rng())
    shares = choices.flatten().bincount(minlength=3) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.02, rtol=0)
    torch.testing.assert_close(log_prob, found.log_prob(choices))


def test_what_a_mask_forbids_is_never_done_and_gets_no_gradient():
    actor = with_head(CategoricalHead(8, (3,)), masked=True)
    mask = torch.tensor([[1.0, 0.0, 1.0]]).expand(6, 3)
    seen = TensorDict({"state": OBSERVATION, "action_mask": mask}, batch_size=[6])
    many = seen[:1].expand(5000)
    assert not bool((actor.draw(many, rng())[0] == 1).any())
    assert bool(actor.entropy(seen).isfinite().all())
    (actor.entropy(seen) + actor.log_prob(seen, torch.zeros(6, 1, dtype=torch.long))).sum().backward()
    assert bool(actor.head.logits.weight.grad.isfinite().all())
    assert not bool(actor.head.logits.weight.grad[1].any())


def test_masks_need_choices():
    with pytest.raises(CapabilityError, match="nothing to mask"):
        with_head(GaussianHead(8, 2), masked=True)


def test_a_greedy_head_takes_the_best_choice_and_sometimes_any():
    values = torch.tensor([[1.0, 3.0, 2.0, -torch.inf]]).expand(20_000, 4)
    found = Greedy(values, 0.3)
    action, log_prob = found.draw(rng())
    shares = action[:, 0].bincount(minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.8, 0.1, 0.0]), atol=0.01, rtol=0)
    torch.testing.assert_close(log_prob.exp().unique(), torch.tensor([0.1, 0.8]))
    assert float(found.entropy()[0]) == pytest.approx(-0.8 * math.log(0.8) - 0.2 * math.log(0.1))
    assert float(Greedy(values, 0.0).entropy()[0]) == 0
    q = DuellingQ(Body(3, hidden=(8,)), 4)
    policy = NetworkPolicy(q, GreedyHead(4), deterministic=True)
    best = policy.act(OBSERVATION[:, None], policy.initial_state(6), rng=rng())[0]
    assert torch.equal(best[:, 0, 0], q(OBSERVATION).argmax(-1))


# ---- all ---------------------------------------------------------------------------------------------

with seeded_initialisation(0):
    ACTORS = [
        gaussian_actor(3, 2, hidden=(8,)),
        with_head(SquashedGaussianHead(8, (-2.0, 0.0), (2.0, 1.0))),
        with_head(DeterministicHead(8, (-2.0, 0.0), (2.0, 1.0))),
        with_head(CategoricalHead(8, (4, 2))),
        NetworkPolicy(Body(3, hidden=(8,), cell="gru", memory_width=5), GaussianHead(5, 2)),
        NetworkPolicy(Body(3, hidden=(8,), cell="lstm", memory_width=5), GaussianHead(5, 2)),
        NetworkPolicy(Body(3, hidden=(8,), normalise=True, layer_norm=True, dropout=0.1), GaussianHead(8, 2)),
    ]


@pytest.mark.parametrize("actor", ACTORS)
def test_a_saved_actor_acts_the_same(actor, tmp_path):
    actor.save_pretrained(tmp_path / "policy")
    again = load_policy(tmp_path / "policy")
    state, streams = actor.initial_state(6), (rng(), rng())
    mine, my_state = actor.eval().act(OBSERVATION[:, None], state, rng=streams[0])
    theirs, their_state = again.act(OBSERVATION[:, None], state, rng=streams[1])
    assert torch.equal(mine, theirs)
    for key in my_state.keys():  # noqa: SIM118
        assert torch.equal(my_state[key], their_state[key])


@pytest.mark.parametrize("actor", ACTORS)
def test_a_deterministic_actor_draws_nothing(actor):
    stream = rng()
    before = stream.get_state()
    actor.deterministic = True
    actor.eval().act(OBSERVATION[:, None], actor.initial_state(6), rng=stream)
    actor.deterministic = False
    assert torch.equal(stream.get_state(), before)


def test_an_observation_of_another_width_is_refused():
    with pytest.raises(ShapeError, match="observation of shape"):
        ACTORS[0].act(torch.zeros(1, 1, 4), ACTORS[0].initial_state(1), rng=rng())


def test_memory_lasts_for_an_episode_and_where_wanted_for_a_trial():
    actor, mask = ACTORS[4], torch.tensor([True, False])
    observation = OBSERVATION[:2, None]
    _, state = actor.act(observation, actor.initial_state(2), rng=rng())
    assert bool(state["memory"].any(1).all())
    assert actor.reset(state, mask)["memory"].any(1).tolist() == [False, True]
    assert actor.new_episode(state, mask)["memory"].any(1).tolist() == [False, True]
    actor.remembers_trials = True
    assert actor.new_episode(state, mask)["memory"].any(1).tolist() == [True, True]
    actor.remembers_trials = False


def test_a_sequence_is_its_steps_one_by_one_with_the_memory_emptied_at_beginnings():
    for actor in ACTORS[4:6]:
        seen = torch.randn(5, 2, 3, generator=rng())
        begins = torch.zeros(5, 2, dtype=torch.bool)
        begins[3, 1] = True
        memory = torch.randn(2, actor.memory_size, generator=rng())
        whole, last = actor.body.sequence(seen, memory, begins)
        for step in range(5):
            memory = memory * (~begins[step])[:, None]
            features, memory = actor.body.step(seen[step], memory)
            torch.testing.assert_close(whole[step], features)
        torch.testing.assert_close(last, memory)


@pytest.mark.parametrize(
    ("space", "size", "kind"),
    [
        (Box(-2, 2, (3,), np.float32), 3, "continuous"),
        (Discrete(4), 1, "discrete"),
        (MultiDiscrete([2, 5]), 2, "discrete"),
        (MultiBinary(3), 3, "discrete"),
        (Box(0, 3, (2,), np.int64), 2, "discrete"),
    ],
)
def test_there_is_an_actor_for_every_action_space(space, size, kind):
    action = ActionSpace.of(space)
    assert (action.size, action.kind) == (size, kind)
    actor = actor_for(Box(-1, 1, (3,)), action)
    drawn, log_prob = actor.draw(OBSERVATION, rng())
    assert drawn.shape == (6, size)
    torch.testing.assert_close(log_prob, actor.log_prob(OBSERVATION, drawn))


def test_spaces_that_no_actor_serves_are_named():
    with pytest.raises(CapabilityError, match="Dict"):
        ActionSpace.of(Dict({"a": Discrete(2)}))
    with pytest.raises(CapabilityError, match="no limits"):
        ActionSpace.of(Box(-np.inf, np.inf, (2,)))
    with pytest.raises(CapabilityError, match="use sac") as caught:
        ActionSpace.of(Box(-1, 1, (2,))).require("discrete", by="dqn", instead="sac")
    assert "dqn acts in discrete spaces" in str(caught.value)


def test_an_actor_reads_state_goal_planes_and_pictures():
    space = Dict(
        {"state": Box(-1, 1, (3,)), "goal": Box(-1, 1, (2,)), "front": Box(0, 255, (16, 16, 3), np.uint8)}
    )
    actor = actor_for(space, ActionSpace.of(Discrete(3)), hidden=(8,))
    picture = torch.randint(256, (6, 16, 16, 3), generator=rng()).to(torch.uint8)
    seen = TensorDict({"state": OBSERVATION, "goal": OBSERVATION[:, :2], "front": picture}, batch_size=[6])
    assert actor.draw(seen, rng())[0].shape == (6, 1)
    assert actor.parts == {"state": (3,), "goal": (2,), "front": (16, 16, 3)}
    board = actor_for(Box(0, 1, (4 * 5 * 2,)), ActionSpace.of(Discrete(3)), planes=(4, 5, 2), hidden=(8,))
    one = torch.zeros(2, 40)
    one[1, 0] = 1
    assert board.draw(one, rng())[0].shape == (2, 1)
    assert not torch.equal(*board.body(one))


def test_unknown_cells_and_activations_are_named():
    with pytest.raises(SettingError, match="rnn"):
        Body(3, cell="rnn")
    with pytest.raises(SettingError, match="no activation"):
        Body(3, activation="softplus")


def test_spaces_come_from_environments_too():
    assert ActionSpace.of(gymnasium.make("CartPole-v1")).choices == (2,)
