"""Pictures of a replay: kept once, drawn as they were seen, whatever episodes, resets and stacks do."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch.utils._pytree import tree_flatten

from policysmith.common.saving import load_tree, save_tree
from policysmith.experience.replay import Replay

torch.set_num_threads(1)

SIZE = (5, 6, 3)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Seen:
    """Episodes of random pictures in `columns` environments, of lengths up to `longest`, `time` at once."""

    def __init__(
        self, *, columns: int = 2, longest: int = 5, time: int = 0, padding: str = "reset", size=SIZE
    ):
        self.columns, self.longest, self.time, self.padding, self.size = columns, longest, time, padding, size
        self.rng, self.number = rng(), 0
        self.seen, self.left = [torch.empty(0)] * columns, [0] * columns
        self.begin(range(columns))

    def frame(self) -> torch.Tensor:
        return torch.randint(256, self.size, generator=self.rng, dtype=torch.uint8)

    def begin(self, columns) -> None:
        for column in columns:
            first = self.frame()
            if self.time:
                before = torch.zeros_like(first) if self.padding == "zero" else first
                first = torch.stack([before] * (self.time - 1) + [first])
            self.seen[column] = first
            self.left[column] = int(torch.randint(1, self.longest + 1, (), generator=self.rng))

    def step(self) -> dict:
        """A transition of every column; its numbers say when it was."""
        before = torch.stack(self.seen)
        self.seen = [
            torch.cat([seen[1:], self.frame()[None]]) if self.time else self.frame() for seen in self.seen
        ]
        after = torch.stack(self.seen)
        self.left = [left - 1 for left in self.left]
        ended = torch.tensor([left == 0 for left in self.left])
        self.begin(ended.nonzero()[:, 0].tolist())
        self.number += 1
        state = torch.full((self.columns, 1), float(self.number))
        return {
            "observation": parts(before, state),
            "action": torch.zeros(self.columns, 1),
            "reward": torch.full((self.columns,), float(self.number)),
            "next_observation": parts(after, state + 1),
            "terminated": ended,
            "truncated": torch.zeros_like(ended),
        }


def parts(pictures: torch.Tensor, state: torch.Tensor) -> TensorDict:
    return TensorDict({"state": state, "front": pictures}, batch_size=[len(state)])


def check(replay: Replay, steps: list[dict]) -> None:
    """Everything in the replay is what was given to it."""
    found = replay.everything()
    assert len(found["reward"]) == len(replay)
    columns = replay.columns
    for row, number in enumerate(found["reward"].long().tolist()):
        given = steps[number - 1]
        same = [
            torch.equal(found[key]["front"][row], given[key]["front"][column])
            and torch.equal(found[key]["state"][row], given[key]["state"][column])
            for key in ("observation", "next_observation")
            for column in [row % columns]
        ]
        assert same == [True, True], (row, number)


@pytest.mark.parametrize("time", [0, 1, 3])
@pytest.mark.parametrize("longest", [1, 4, 1000])
@pytest.mark.parametrize("padding", ["reset", "zero"])
def test_what_is_drawn_is_what_was_seen_at_every_moment_of_the_ring(time, longest, padding):
    seen, replay, steps = Seen(time=time, longest=longest, padding=padding), Replay(14, columns=2), []
    for _ in range(40):
        steps.append(seen.step())
        replay.add(steps[-1])
        check(replay, steps)


def test_frames_kept_once_are_drawn_like_frames_kept_twice():
    """Draws, sums of steps and lost rows are those of a replay that keeps both observations whole."""
    seen = Seen(columns=2, longest=6, time=2)
    once, twice = (Replay(20, columns=2, n_step=3, discount=0.9) for _ in range(2))
    for number in range(33):
        step = seen.step()
        lost = [1] if number % 9 == 4 else []
        once.add(step, lost=lost)
        floats = {
            key: step[key].clone(recurse=False).update({"front": step[key]["front"].float()})
            for key in ("observation", "next_observation")
        }
        twice.add(step | floats, lost=lost)
    assert list(once.frames) == ["observation/front"]
    assert not twice.frames
    a, b = once.sample(200, rng()), twice.sample(200, rng())
    for key in ("observation", "next_observation"):
        assert torch.equal(a[key]["front"].float(), b[key]["front"])
    assert all(torch.equal(a[key], b[key]) for key in ("reward", "discount", "terminated", "action"))


def test_a_step_that_does_not_follow_is_noticed_although_no_episode_ended():
    """An actor that starts again after a kill leaves such a gap."""
    seen, replay, steps = Seen(columns=1, longest=1000), Replay(30), []
    for number in range(20):
        if number == 11:
            seen.begin([0])
        steps.append(seen.step())
        replay.add(steps[-1])
    assert not any(bool(step["terminated"].any()) for step in steps)
    check(replay, steps)
    assert int(replay.frames["observation/front"].uses.sum()) == 1


def test_pictures_that_are_no_stack_in_time_are_kept_all_the_same():
    replay, steps = Replay(6), []
    for number in range(1, 15):
        pair = [
            torch.randint(256, (1, 4, *SIZE), generator=rng(number + k), dtype=torch.uint8) for k in (0, 1)
        ]
        state, nothing = torch.full((1, 1), float(number)), torch.tensor([False])
        steps.append(
            {
                "observation": parts(pair[0], state),
                "next_observation": parts(pair[1], state + 1),
                "action": torch.zeros(1, 1),
                "reward": state[0],
                "terminated": nothing,
                "truncated": nothing,
            }
        )
        replay.add(steps[-1])
        check(replay, steps)


def bytes_of(replay: Replay) -> int:
    rings = replay.frames.values()
    kept = [
        *replay.data.values(),
        *(part for one in rings for part in (one.ring, one.aside, one.places, one.uses)),
    ]
    return sum(part.numel() * part.element_size() for part in kept)


@pytest.mark.parametrize(("time", "of_twice"), [(0, 0.53), (3, 0.18)])
def test_a_replay_takes_half_the_memory_and_of_a_stack_a_sixth(time, of_twice):
    seen, replay = Seen(columns=1, longest=200, time=time, size=(32, 32, 3)), Replay(400)
    for _ in range(400):
        replay.add(seen.step())
    assert bytes_of(replay) < of_twice * 400 * 2 * max(time, 1) * 32 * 32 * 3


def test_what_is_aside_does_not_grow_with_the_length_of_a_run():
    seen, replay = Seen(columns=2, longest=4, time=2), Replay(40, columns=2)
    rooms = []
    for _ in range(400):
        replay.add(seen.step())
        rooms.append(len(replay.frames["observation/front"].aside))
    assert rooms[-1] <= 32
    assert rooms[-1] == rooms[100]


@pytest.mark.parametrize("steps", [3, 9, 25])
@pytest.mark.parametrize("time", [0, 2])
def test_a_restored_replay_goes_on_to_the_same_numbers(tmp_path, steps, time):
    seen, replay = Seen(time=time, longest=3), Replay(20, columns=2)
    for _ in range(steps):
        replay.add(seen.step())
    save_tree(tmp_path / "state", replay.state_dict())
    other = Replay(20, columns=2)
    other.load_state_dict(load_tree(tmp_path / "state"))
    for _ in range(15):
        step = seen.step()
        replay.add(step)
        other.add(step)
        a, b = replay.sample(30, rng()), other.sample(30, rng())
        for key in ("observation", "next_observation"):
            assert torch.equal(a[key]["front"], b[key]["front"])
    (a, first), (b, second) = (tree_flatten(one.state_dict()) for one in (replay, other))
    assert first == second
    assert all(
        torch.equal(torch.as_tensor(x), torch.as_tensor(y))
        for x, y in zip(a, b, strict=True)
        if x is not None
    )


def test_rows_in_order_and_a_replay_that_is_emptied_keep_their_pictures():
    seen = Seen(columns=1, longest=4)
    steps = [seen.step() for _ in range(17)]
    rows = {key: torch.cat([step[key] for step in steps]) for key in steps[0]}
    replay = Replay(12)
    replay.extend(rows)
    check(replay, steps)
    replay.clear()
    assert len(replay) == 0
    again = [seen.step() for _ in range(3)]
    for step in again:
        replay.add(step)
    found = replay.everything()
    assert torch.equal(
        found["observation"]["front"], torch.cat([step["observation"]["front"] for step in again])
    )


def test_a_large_replay_has_its_frames_in_a_file(tmp_path):
    seen = Seen(columns=1, longest=2)
    plain, mapped = Replay(10), Replay(10, mapped_above=10, folder=tmp_path)
    steps = [seen.step() for _ in range(25)]
    for step in steps:
        plain.add(step)
        mapped.add(step)
    assert (tmp_path / "observation.front.bin").stat().st_size == 11 * 5 * 6 * 3
    assert (tmp_path / "observation.front.aside-16.bin").stat().st_size == 16 * 5 * 6 * 3
    check(mapped, steps)
    a, b = plain.sample(50, rng()), mapped.sample(50, rng())
    assert torch.equal(a["next_observation"]["front"], b["next_observation"]["front"])


def test_vectors_and_flat_bytes_are_kept_as_before():
    replay = Replay(4)
    nothing = torch.tensor([False])
    vector = torch.ones(1, 3, dtype=torch.uint8)
    rows = {"action": vector, "reward": torch.ones(1), "terminated": nothing, "truncated": nothing}
    replay.add({"observation": vector, "next_observation": vector, **rows})
    assert not replay.frames
    assert set(replay.data) == {"observation", "next_observation", *rows}
