"""The loop: who is called when, what is counted, and that a state is the whole of a run."""

import copy
import math

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from policysmith.common.errors import DataError, FileError, NotFiniteError, SettingError
from policysmith.policies.actors import gaussian_actor
from policysmith.training.learner import Learner
from policysmith.training.loop import RunState, finish, run, step_policy

torch.set_num_threads(1)


class Counter:
    """A source that hands out numbers."""

    def __init__(self):
        self.given = 0

    def state_dict(self):
        return {"given": self.given}

    def load_state_dict(self, state):
        self.given = state["given"]


def made_state(width=2, *, adam=True):
    policy = gaussian_actor(width, 1, hidden=(4,))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(0.1)

    def loss(policy, batch):
        return -policy.log_prob(batch["observation"], batch["action"]), {}

    kind = torch.optim.Adam if adam else torch.optim.SGD
    learner = Learner(policy, loss, optimizer=kind(policy.parameters(), lr=0.1))
    return RunState(
        learners={"policy": learner},
        generators={"data": torch.Generator().manual_seed(3)},
        sources={"counter": Counter()},
    )


def collect(state):
    state.sources["counter"].given += 1
    rng = state.generators["data"]
    return TensorDict(
        {"observation": torch.randn(4, 2, generator=rng), "action": torch.randn(4, 1, generator=rng)}, [4]
    )


def progress_of(state, steps=6):
    return run(state, collect=collect, update=step_policy, steps=steps)


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_nothing_happens_until_somebody_asks():
    state = made_state()
    progress_of(state)
    assert state.step == state.sources["counter"].given == 0


def test_each_step_collects_once_updates_once_and_is_yielded():
    calls = []

    def watched_collect(state):
        calls.append(("collect", state.step))
        return "batch"

    def watched_update(state, batch):
        calls.append(("update", batch))
        return {"loss": float(state.step)}

    state = RunState(learners={})
    seen = []
    for now in run(state, collect=watched_collect, update=watched_update, steps=2):
        seen.append((now.step, now.total, now.metrics, now.state is state, state.step))
        assert set(now.seconds) == {"collect", "update"}
        assert all(value >= 0 for value in now.seconds.values())
    assert calls == [("collect", 0), ("update", "batch"), ("collect", 1), ("update", "batch")]
    assert seen == [(1, 2, {"loss": 0.0}, True, 1), (2, 2, {"loss": 1.0}, True, 2)]


def test_a_run_may_be_left_and_taken_up_by_its_state():
    whole, parts = made_state(), made_state()
    expected = [now.metrics for now in progress_of(whole)]
    found = []
    for stop in (1, 4, 6):
        for now in progress_of(parts):
            found.append(now.metrics)
            if now.step == stop:
                break
    assert found == expected
    assert equal(whole.state_dict(), parts.state_dict())


@pytest.mark.parametrize("at", [6, 9])
def test_a_finished_run_yields_nothing(at):
    state = made_state()
    state.step = at
    assert list(progress_of(state)) == []


def test_finish_returns_the_state_and_says_where_there_was_nothing_to_do():
    state = finish(progress_of(made_state()))
    assert state.step == 6
    with pytest.raises(SettingError, match="no steps left"):
        finish(progress_of(state))


@pytest.mark.parametrize("taken", range(6))
def test_a_state_restored_into_another_goes_on_bit_for_bit(taken):
    original = made_state()
    for now in progress_of(original):
        if now.step == taken:
            break
    if taken == 0:
        original = made_state()
    saved = copy.deepcopy(original.state_dict())
    resumed = made_state()
    resumed.generators["data"].manual_seed(99)
    resumed = resumed.restored(saved)
    assert resumed.step == taken
    one, other = ([now.metrics for now in progress_of(state)] for state in (original, resumed))
    assert one == other
    assert len(one) == 6 - taken
    assert equal(original.state_dict(), resumed.state_dict())


def test_a_state_restored_from_a_running_one_is_independent_of_it():
    """Branching: the original goes on, and the branch still goes where the original would have gone."""
    original = made_state()
    progress = progress_of(original)
    for _ in range(3):
        next(progress)
    branch = made_state().restored(original)
    other = made_state().restored(copy.deepcopy(original.state_dict()))
    for _ in progress:
        pass
    for state in (branch, other):
        assert state.step == 3
        finish(progress_of(state))
        assert equal(state.state_dict(), original.state_dict())


def test_restoring_from_nothing_begins():
    state = made_state()
    assert state.restored(None) is state
    assert state.step == 0


def test_the_phase_is_part_of_the_state():
    state = made_state()
    state.phase = "warm-up"
    assert made_state().restored(state).phase == "warm-up"


def test_the_policy_of_a_run_is_a_copy():
    state = made_state()
    progress = progress_of(state)
    next(progress)
    policy = state.policy()
    before = policy.head.log_deviation.clone()
    next(progress)
    assert torch.equal(policy.head.log_deviation, before)
    assert not torch.equal(state.policy().head.log_deviation, before)
    assert not policy.training


def test_a_step_that_is_not_finite_is_named_and_leaves_the_state_before_it():
    state = made_state()

    def poisoned(state):
        batch = collect(state)
        if state.step == 2:
            batch["action"][1] = math.nan
        return batch

    progress = run(state, collect=poisoned, update=step_policy, steps=5)
    next(progress), next(progress)
    before = copy.deepcopy(state.state_dict()["learners"])
    with pytest.raises(NotFiniteError) as error:
        next(progress)
    assert error.value.where.startswith("step 3 of 5; optimiser step 3; ")
    assert "batch entry 'action'" in error.value.where
    assert "last checkpoint is kept" in error.value.cure
    assert state.step == 2
    assert equal(state.state_dict()["learners"], before)


def without(part, name):
    saved = copy.deepcopy(made_state().state_dict())
    del saved[part][name]
    return saved


@pytest.mark.parametrize(
    ("part", "name"), [("learners", "policy"), ("generators", "data"), ("sources", "counter")]
)
def test_a_checkpoint_with_other_parts_is_refused_by_name(part, name):
    with pytest.raises(FileError, match=f"other {part} than this run(.|\n)*run: .*{name}"):
        made_state().restored(without(part, name))
    more = copy.deepcopy(made_state().state_dict())
    more[part]["critic"] = {}
    with pytest.raises(FileError, match=f"other {part} than this run(.|\n)*checkpoint: .*critic"):
        made_state().restored(more)


def test_a_checkpoint_of_other_sizes_is_refused():
    with pytest.raises(FileError, match=r"does not fit this run(.|\n)*size mismatch"):
        made_state(width=3).restored(made_state())


@pytest.mark.parametrize("missing", ["step", "phase"])
def test_a_checkpoint_without_its_count_is_refused(missing):
    saved = made_state().state_dict()
    del saved[missing]
    with pytest.raises(FileError, match=f"does not fit this run: '{missing}'"):
        made_state().restored(saved)


def test_a_checkpoint_of_another_network_is_refused():
    saved = made_state().state_dict()
    module = nn.Linear(2, 1)
    state = made_state()
    state.learners["policy"] = Learner(module, None, optimizer=torch.optim.Adam(module.parameters()))  # type: ignore[arg-type]
    with pytest.raises(FileError, match="does not fit this run"):
        state.restored(saved)


def test_a_source_that_refuses_its_state_is_heard():
    class Picky(Counter):
        def load_state_dict(self, state):
            raise DataError("other data", cure="bring the old ones")

    state = made_state()
    state.sources["counter"] = Picky()
    with pytest.raises(FileError, match="does not fit this run: other data"):
        state.restored(made_state())
