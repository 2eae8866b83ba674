"""Replay: what is drawn is what was seen, sums of steps stop where they must, and sources mix."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import DataError, FileError, SettingError
from policysmith.experience.episodes import Episodes
from policysmith.experience.mixtures import Hindsight, Mixed
from policysmith.experience.replay import Replay, replay_of, transitions_of


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def step(time: int, *, columns: int = 2, ends: tuple[bool, ...] = (False, False), cut: bool = False):
    """Observation [time, column], the next one a step later, the reward the time."""
    column = torch.arange(columns, dtype=torch.float32)
    over = torch.tensor(ends[:columns])
    nothing = torch.zeros(columns, dtype=torch.bool)
    return {
        "observation": torch.stack([torch.full((columns,), float(time)), column], 1),
        "action": torch.full((columns, 1), float(time)),
        "reward": torch.full((columns,), float(time)),
        "next_observation": torch.stack([torch.full((columns,), time + 1.0), column], 1),
        "terminated": nothing if cut else over,
        "truncated": over if cut else nothing,
    }


def filled(steps: int, capacity: int = 100, ends=None, **settings) -> Replay:
    replay = Replay(capacity, columns=2, **settings)
    for time in range(steps):
        replay.add(step(time, ends=(time in (ends or {}).get(0, ()), time in (ends or {}).get(1, ()))))
    return replay


def test_draws_are_uniform_over_what_is_kept():
    replay = filled(7, capacity=10)
    assert len(replay) == 10
    batch = replay.sample(20_000, rng())
    assert set(batch["reward"].tolist()) == {2.0, 3.0, 4.0, 5.0, 6.0}
    shares = batch["reward"].long().bincount()[2:] / 20_000
    torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.02, rtol=0)
    torch.testing.assert_close(batch["next_observation"][:, 0], batch["observation"][:, 0] + 1)
    assert torch.equal(batch["next_observation"][:, 1], batch["observation"][:, 1])


def test_several_steps_are_summed_and_stop_where_the_episode_does():
    replay = filled(6, ends={0: (2,)}, n_step=3, discount=0.5)

    def at(time, column):
        found = replay.at(torch.tensor([time]), torch.tensor([column]))
        return {key: value[0] for key, value in found.items()}

    whole = at(1, 1)
    assert float(whole["reward"]) == 1 + 0.5 * 2 + 0.25 * 3
    assert whole["next_observation"].tolist() == [4, 1]
    assert float(whole["discount"]) == 0.125
    ended = at(1, 0)
    assert float(ended["reward"]) == 1 + 0.5 * 2
    assert bool(ended["terminated"])
    assert ended["next_observation"].tolist() == [3, 0]
    newest = at(5, 1)
    assert float(newest["reward"]) == 5
    assert float(newest["discount"]) == 0.5
    assert not bool(newest["terminated"])


def test_sums_do_not_cross_from_the_newest_step_into_the_oldest():
    replay = filled(7, capacity=10, n_step=3, discount=1.0)
    batch = replay.at(torch.tensor([1]), torch.tensor([0]))  # the newest, time 6; behind it lies time 2
    assert float(batch["reward"]) == 6
    batch = replay.at(torch.tensor([4]), torch.tensor([0]))  # time 4 at place 4, then 5 at 0, 6 at 1
    assert float(batch["reward"]) == 4 + 5 + 6


def test_one_step_at_a_time_is_the_plain_draw():
    plain, one = filled(6, ends={0: (2,)}), filled(6, ends={0: (2,)}, n_step=1)
    a, b = plain.sample(50, rng()), one.sample(50, rng())
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_what_was_lost_is_never_drawn():
    replay = Replay(100, columns=2)
    for time in range(4):
        replay.add(step(time), lost=[1] if time == 2 else [])
    assert len(replay) == 7
    batch = replay.sample(500, rng())
    assert not bool(((batch["reward"] == 2) & (batch["observation"][:, 1] == 1)).any())


@pytest.mark.parametrize("steps", [3, 12])
def test_a_restored_replay_draws_the_same(steps):
    replay = filled(steps, capacity=10, ends={1: (1, 8)}, n_step=2)
    other = Replay(10, columns=2, n_step=2)
    other.load_state_dict(replay.state_dict())
    for one in (replay, other):
        one.add(step(steps))
    a, b = replay.sample(50, rng()), other.sample(50, rng())
    assert all(torch.equal(a[key], b[key]) for key in a)
    with pytest.raises(FileError, match="replay in the checkpoint"):
        Replay(4, columns=2).load_state_dict(replay.state_dict())


def test_a_large_replay_lies_in_a_file(tmp_path):
    plain, mapped = filled(5), filled(5, mapped_above=10, folder=tmp_path)
    assert (tmp_path / "observation.bin").stat().st_size == 50 * 2 * 2 * 4
    a, b = plain.sample(50, rng()), mapped.sample(50, rng())
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_everything_is_each_transition_once_but_for_the_lost_ones():
    replay = filled(3)
    assert len(replay.everything()["reward"]) == len(replay) == 6
    replay.add(step(3), lost=[1])
    seen = replay.everything()
    assert len(seen["reward"]) == len(replay) == 7
    assert len(torch.cat([seen["observation"], seen["action"]], dim=1).unique(dim=0)) == 7


def test_an_empty_replay_is_named():
    with pytest.raises(DataError, match="without a transition"):
        Replay(10).sample(1, rng())
    with pytest.raises(SettingError, match="replay of 0"):
        Replay(0)


# ---- episodes ----------------------------------------------------------------------------------------


def episodes() -> Episodes:
    arrays = []
    for number, length in enumerate((3, 2)):
        seen = torch.arange(length + 1.0)[:, None] + 10 * number
        arrays.append(
            {
                "observation": seen,
                "action": torch.zeros(length, 1),
                "reward": torch.ones(length),
                "terminated": number == 0,
            }
        )
    return Episodes.from_arrays(arrays)


def test_episodes_become_transitions_with_their_last_observations():
    found = transitions_of(episodes())
    assert found["next_observation"][:, 0].tolist() == [1, 2, 3, 11, 12]
    assert found["terminated"].tolist() == [False, False, True, False, False]
    assert found["truncated"].tolist() == [False, False, False, False, True]
    assert transitions_of(episodes(), discrete=True)["action"].dtype == torch.long


def test_rows_in_order_know_where_their_episodes_end():
    replay = replay_of(episodes(), n_step=5, discount=1.0)
    found = replay.at(torch.arange(5), torch.zeros(5, dtype=torch.long))
    assert found["reward"].tolist() == [3, 2, 1, 2, 1]
    assert found["next_observation"][:, 0].tolist() == [3, 3, 3, 12, 12]


# ---- mixtures and hindsight --------------------------------------------------------------------------


def test_a_mixture_has_its_shares_and_the_first_source_takes_the_rest():
    one, other = filled(5), filled(3)
    other.data["reward"].add_(100)
    batch = Mixed([(one, 0.5), (other, 0.5)]).sample(7, rng())
    assert (batch["reward"] >= 100).tolist() == [False] * 3 + [True] * 4
    assert len(Mixed([(one, 1.0), (Replay(4), 0.0)]).sample(6, rng())["reward"]) == 6


def test_an_empty_source_that_is_wanted_is_named():
    with pytest.raises(DataError, match="source 1 of 2 has no transitions"):
        Mixed([(filled(5), 0.5), (Replay(4), 0.5)]).sample(8, rng())
    with pytest.raises(SettingError, match="shares"):
        Mixed([(filled(5), 0.7), (filled(5), 0.7)])


def test_hindsight_tells_goals_that_were_reached_later_in_the_same_episode():
    replay = Replay(100)
    for time in range(10):
        parts = {
            key: TensorDict(
                {"state": torch.tensor([[float(time + ahead)]]), "goal": torch.tensor([[-1.0]])},
                batch_size=[1],
            )
            for key, ahead in (("observation", 0), ("next_observation", 1))
        }
        end = torch.tensor([time == 5])
        nothing = torch.tensor([False])
        replay.add(
            {"action": torch.zeros(1, 1), "reward": torch.zeros(1), "terminated": nothing, "truncated": end}
            | parts
        )
    source = Hindsight(
        replay, achieved=lambda state: state, reward=lambda got, goal: (got == goal)[:, 0].float(), share=0.75
    )
    batch = source.sample(4000, rng())
    state, goal = batch["observation"]["state"][:, 0], batch["observation"]["goal"][:, 0]
    told = goal >= 0
    assert float(told.float().mean()) == pytest.approx(0.75, abs=0.03)
    assert torch.equal(batch["next_observation"]["goal"], batch["observation"]["goal"])
    assert bool((goal[told] > state[told]).all())
    early = told & (state <= 5)
    assert float(goal[early].max()) == 6
    assert float(goal[told & (state > 5)].max()) == 10
    reached = told & (batch["next_observation"]["state"][:, 0] == goal)
    assert torch.equal(batch["reward"], reached.float())
