"""What score policies are compared with: heads against numbers worked by hand, and acting."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from policysmith.claims.common.goal_cloning import BinsHead, Config, MeanHead, train
from policysmith.common.rng import generator
from policysmith.experience.episodes import Episodes
from policysmith.policies.protocol import load_policy

TINY = Config(
    window=3,
    goal_steps=1,
    standardise=True,
    width=16,
    depth=1,
    heads=2,
    attention_dropout=0.0,
    steps=6,
    batch_size=8,
    bins=4,
)


def play() -> Episodes:
    random = np.random.default_rng(0)
    states = random.normal(size=(4, 12, 3))
    return Episodes.from_arrays({"observation": one, "action": 2 * one[:, :2] + 1} for one in states)


def seen(batch: int) -> TensorDict:
    parts = {name: torch.randn(batch, 3, 3, generator=generator(0, name)) for name in ("state", "goal")}
    return TensorDict(parts, batch_size=[batch, 3])


def test_regression_is_the_mean_squared_error_in_scaled_units():
    head = MeanHead(1)
    head.normalizer.offset.fill_(1.0)
    head.normalizer.scale.fill_(2.0)
    error = head.error(torch.tensor([[[0.0], [1.0]]]), torch.tensor([[[3.0], [3.0]]]))
    assert error.tolist() == [0.5]
    assert head.choose(torch.tensor([[1.5]]), torch.Generator()).tolist() == [[4.0]]


def test_the_loss_of_bins_is_the_focal_loss_of_the_nearest_and_its_offset():
    head = BinsHead(1, 2)
    head.centres.copy_(torch.tensor([[-1.0], [1.0]]))
    # Scores 0 and ln 3: the upper bin has probability 3/4. Its offset is 0.5, and 0.2 was wanted.
    output = torch.tensor([[[0.0, math.log(3), 9.0, 0.5]]])
    wanted = -((1 / 4) ** 2) * math.log(3 / 4) + 0.3**2
    assert head.error(output, torch.tensor([[[1.2]]])).tolist() == pytest.approx([wanted], rel=1e-5)


def test_bins_are_drawn_by_their_probability_and_moved_by_their_own_offset():
    head = BinsHead(1, 2)
    head.centres.copy_(torch.tensor([[-1.0], [1.0]]))
    output = torch.tensor([[0.0, math.log(3), 0.25, -0.25]]).expand(4000, 4)
    drawn = head.choose(output, generator(0, "bins"))[:, 0]
    assert set(drawn.tolist()) == {-0.75, 0.75}
    assert (drawn > 0).float().mean() == pytest.approx(0.75, abs=0.03)


def test_the_centres_are_those_of_the_clusters_of_the_actions():
    clusters = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    data = clusters.repeat(50, 1) + 0.01 * torch.randn(150, 2, generator=generator(0, "data"))
    centres = BinsHead(2, 3).fit(data, seed=1).centres
    nearest = torch.cdist(clusters, centres).min(1).values
    assert (nearest < 0.02).all()


@pytest.mark.parametrize("bins", [0, 4])
def test_a_cloned_policy_learns_is_saved_and_tells_the_goal(bins, tmp_path):
    config = replace(TINY, bins=bins, steps=60, learning_rate=1e-2)
    progress = list(train(play(), config=config))
    assert progress[-1].metrics["loss"] < 0.8 * progress[0].metrics["loss"]
    policy = progress[-1].state.policy()
    policy.save_pretrained(tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    state = policy.initial_state(2)
    actions = []
    for one in (policy, loaded):
        now, after = state, None
        for _ in range(4):
            after, now = one.act(seen(2), now, rng=generator(0, "act"))
        actions.append(after)
        assert now["network_calls"].tolist() == [4, 4]
    assert torch.equal(*actions)
    other = seen(2)
    other["goal"] += 1
    assert not torch.equal(
        policy.act(other, state, rng=generator(0, "act"))[0],
        policy.act(seen(2), state, rng=generator(0, "act"))[0],
    )


def test_a_run_repeats_with_its_seed():
    runs = [list(itertools.islice(train(play(), config=TINY, seed=2), 3))[-1].metrics for _ in range(2)]
    assert runs[0] == runs[1]
