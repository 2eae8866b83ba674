"""Stages in turn: one run to whoever drives it, each stage an ordinary one."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from policysmith.common.errors import FileError
from policysmith.training.learner import Learner
from policysmith.training.loop import RunState, finish, run, step_policy
from policysmith.training.stages import in_turn


def stages(weight: nn.Linear, steps: int = 2):
    """Draw `weight` to 1, then to 3."""

    def towards(goal: float):
        def loss(module, batch):
            return (module(batch["x"]) - goal).square()[:, 0], {}

        def stage(saved):
            learner = Learner(weight, loss, optimizer=torch.optim.SGD(weight.parameters(), lr=0.1))
            state = RunState(learners={"policy": learner}).restored(saved)
            batch = TensorDict({"x": torch.ones(1, 1)}, [1])
            return run(state, collect=lambda _: batch, update=step_policy, steps=steps)

        return stage

    return {"near": towards(1.0), "far": towards(3.0)}


def line():
    weight = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(weight.weight)
    return weight


def test_a_stage_begins_where_the_one_before_has_ended():
    weight = line()
    found = list(in_turn(stages(weight), steps=4))
    assert [(one.step, one.total, one.state.phase) for one in found][-1] == (4, 4, "far")
    # w <- w - 0.2 (w - goal), twice each
    assert weight.weight.item() == pytest.approx(((0.2 * 0.8 + 0.2) * 0.8 + 0.6) * 0.8 + 0.6)
    assert found[-1].state.policy().weight.item() == pytest.approx(weight.weight.item())


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_goes_on_from_any_step(cut):
    whole = [one.metrics for one in in_turn(stages(line()), steps=4)]
    begun = in_turn(stages(line()), steps=4)
    for _ in range(cut):
        now = next(begun)
    saved = now.state.state_dict()
    rest = list(in_turn(stages(line()), steps=4, state=saved))
    assert [one.metrics for one in rest] == whole[cut:]
    assert [one.step for one in rest] == list(range(cut + 1, 5))


def test_a_live_state_serves_as_well_as_a_saved_one():
    begun = in_turn(stages(line()), steps=4)
    next(begun)
    now = next(begun)
    weight = line()
    finish(in_turn(stages(weight), steps=4, state=now.state))
    assert weight.weight.item() == pytest.approx(((0.2 * 0.8 + 0.2) * 0.8 + 0.6) * 0.8 + 0.6)


def test_other_checkpoints_are_refused():
    with pytest.raises(FileError, match="not that of a run in stages"):
        in_turn(stages(line()), steps=4, state=RunState(learners={}))
    state = finish(in_turn(stages(line()), steps=4)).state_dict()
    renamed = {f"very {name}": stage for name, stage in stages(line()).items()}
    with pytest.raises(FileError, match="a stage 'far'"):
        in_turn(renamed, steps=4, state=state)
