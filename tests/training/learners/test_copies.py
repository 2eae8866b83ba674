"""The archive of copies: who enters, who leaves, whose turn it is; and that a copy can be gone on from."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.errors import DataError
from policysmith.common.rng import generator
from policysmith.common.saving import load_tree, save_tree
from policysmith.networks.running import RunningReturnScale
from policysmith.training.learner import Learner
from policysmith.training.learners.copies import AgentCopy, CopyArchive, at_random, with_most_room

POINTS = [(1.0, 5.0), (2.0, 4.5), (3.0, 3.0), (4.0, 3.0), (4.5, 2.8), (5.0, 1.0)]


def copy(returns):
    return AgentCopy(returns, {}, {}, {}, rate=1.0)


def archive(points=POINTS, reference=(0.0, 0.0), limit=10):
    made = CopyArchive(reference, limit=limit)
    for point in points:
        made.add(copy(point))
    return made


def kept(copies):
    return [one.returns for one in copies]


def pick(made, count, by=with_most_room):
    return kept(made.select(count, by=by, rng=generator(0)))


def test_what_is_dominated_leaves_when_the_better_one_comes():
    assert kept(archive(POINTS[:3]).copies) == POINTS[:3]
    assert kept(archive().copies) == [POINTS[0], POINTS[1], *POINTS[3:]]


def test_a_copy_is_told_whether_it_was_kept():
    made = archive()
    assert not made.add(copy((2.0, 2.0)))  # dominated
    assert not made.add(copy((4.0, 3.0)))  # there already
    assert not made.add(copy((-1.0, 9.0)))  # below the reference
    assert made.add(copy((4.2, 2.9)))


def test_only_those_with_most_room_outlast_a_round():
    made = archive(limit=3)
    assert len(made.copies) == 5
    made.select(1, by=with_most_room, rng=generator(0))
    assert kept(made.copies) == [(1.0, 5.0), (2.0, 4.5), (5.0, 1.0)]


def test_the_emptiest_places_come_first_and_everyone_has_a_turn_before_anyone_a_second():
    made = archive()
    assert pick(made, 3) == [(1.0, 5.0), (5.0, 1.0), (2.0, 4.5)]
    assert pick(made, 3) == [(4.0, 3.0), (4.5, 2.8)]
    assert pick(made, 1) == [(1.0, 5.0)]


def test_turns_at_random_are_nobodys_second_either():
    made = archive()
    turns = pick(made, 2, at_random) + pick(made, 3, at_random)
    assert sorted(turns) == sorted(kept(made.copies))
    assert turns != sorted(turns)


def test_an_archive_that_nothing_entered_says_what_was_best():
    made = archive([(9.0, -1.0), (-1.0, 7.0)])
    with pytest.raises(DataError, match=r"\['9', '7'\], the reference \[0.0, 0.0\]"):
        made.settled()
    with pytest.raises(DataError, match="reference"):
        pick(made, 1)


def agent(value=0.0):
    module = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(module.weight, value)
    learner = Learner(
        module, lambda m, b: (m(b["x"])[:, 0], {}), optimizer=torch.optim.Adam(module.parameters(), lr=0.1)
    )
    return learner, RunningReturnScale(2, 0.9, objectives=2)


def learn(learner, scale):
    scale.update(torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([False, True]))
    learner.step({"x": torch.ones(4, 1)})


def test_a_copy_goes_on_as_the_agent_did_and_what_came_after_it_changes_nothing():
    learner, scale = agent()
    learn(learner, scale)
    held = AgentCopy.of(learner, scale, returns=[1, 2], rate=0.5)
    learn(learner, scale)
    after = {name: value.clone() for name, value in learner.module.state_dict().items()}
    deviation = scale.deviation.clone()
    learn(learner, scale)
    held.restore(learner, scale)
    scale.returns = torch.tensor([[1.9, 3.8], [0.0, 0.0]], dtype=torch.double)  # as they were then
    scale.returns[0] = torch.tensor([1.0, 2.0])
    learn(learner, scale)
    assert all(torch.equal(value, after[name]) for name, value in learner.module.state_dict().items())
    assert torch.allclose(scale.deviation, deviation)


def test_an_archive_comes_back_from_disk_with_copies_and_turns(tmp_path):
    learner, scale = agent(2.0)
    learn(learner, scale)
    made = archive()
    made.add(AgentCopy.of(learner, scale, returns=[3.0, 4.0], rate=0.25))
    pick(made, 2)
    save_tree(tmp_path / "state", made.state_dict())
    again = CopyArchive((0.0, 0.0), limit=10)
    again.load_state_dict(load_tree(tmp_path / "state"))
    assert kept(again.copies) == kept(made.copies)
    assert pick(again, 9) == pick(made, 9)
    other, scale = agent()
    again.copies[-1].restore(other, scale)
    assert torch.equal(other.module.weight, learner.module.weight)
    assert again.copies[-1].rate == 0.25
