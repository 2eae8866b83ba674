"""A replay of made transitions: when it is filled, with what, and what is drawn from it."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.experience.mixtures import Mixed
from policysmith.experience.replay import Replay
from policysmith.synthesis.diffusion import DiffusionSettings, diffusion_run
from policysmith.synthesis.refilled import RefilledReplay
from policysmith.training.loop import RunState

FIT = partial(
    diffusion_run,
    settings=DiffusionSettings(
        width=8, depth=1, level_size=4, steps=2, batch_size=4, sampling_steps=2, terminals=False
    ),
)
STATE = RunState(learners={})


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def real(steps: int, columns: int = 1, n_step: int = 1) -> Replay:
    """Transitions whose reward is their number from 100 on."""
    replay, draws = Replay(1000, columns=columns, n_step=n_step), rng()
    for number in range(steps):
        seen = torch.randn(columns, 2, generator=draws)
        replay.add(
            {
                "observation": seen,
                "action": torch.rand(columns, 1, generator=draws),
                "reward": 100.0 + torch.arange(columns) + columns * number,
                "next_observation": seen + 1,
                "terminated": torch.zeros(columns, dtype=torch.bool),
                "truncated": torch.zeros(columns, dtype=torch.bool),
            }
        )
    return replay


def refilled(replay: Replay, **changes) -> RefilledReplay:
    given = {"fit": FIT, "every": 10, "count": 30, "limits": ((0.0,), (1.0,)), "seed": 0} | changes
    return RefilledReplay(replay, **given)


def test_nothing_is_made_before_it_is_time_and_the_real_ones_are_drawn():
    made = refilled(real(9))
    assert made.before_step(STATE) == {}
    assert len(made) == 9
    assert float(made.sample(50, rng())["reward"].min()) >= 100.0


def test_it_is_filled_once_per_period_however_often_it_is_asked():
    made = refilled(real(10))
    assert set(made.before_step(STATE)) == {"generator_loss"}
    assert len(made) == 30
    first = made.made["reward"].clone()
    assert made.before_step(STATE) == {}
    assert torch.equal(made.made["reward"], first)


def test_steps_of_all_environments_count():
    assert refilled(real(5, columns=2)).before_step(STATE) != {}
    assert refilled(real(4, columns=2)).before_step(STATE) == {}


def test_a_new_filling_takes_the_place_of_the_old_and_is_another():
    replay = real(10)
    made = refilled(replay)
    made.before_step(STATE)
    first = made.made["reward"].clone()
    for _ in range(10):
        replay.add(replay.at(torch.tensor([0]), torch.tensor([0])))
    made.before_step(STATE)
    assert made.fillings == 2
    assert len(made) == 30
    assert not torch.equal(made.made["reward"], first)


def test_a_generator_knows_nothing_of_the_one_before():
    later = refilled(real(20))
    later.before_step(STATE)  # skips the first filling
    both = refilled(real(20))
    both.fillings = 1
    both.before_step(STATE)
    assert torch.equal(later.made["observation"], both.made["observation"])


def test_made_actions_are_cut_to_the_limits():
    made = refilled(real(10), limits=((0.4,), (0.5,)))
    made.before_step(STATE)
    assert float(made.made["action"].min()) == pytest.approx(0.4)
    assert float(made.made["action"].max()) == pytest.approx(0.5)


def test_half_a_minibatch_is_real_and_half_is_made():
    replay = real(10)
    made = refilled(replay)
    made.before_step(STATE)
    made.made["reward"].fill_(-1.0)
    batch = Mixed([(replay, 0.5), (made, 0.5)]).sample(8, rng())
    assert (batch["reward"] >= 100).tolist() == [True] * 4 + [False] * 4
    assert set(batch) == set(replay.sample(1, rng()))


def test_what_was_made_survives_a_checkpoint():
    made = refilled(real(10))
    made.before_step(STATE)
    again = refilled(real(10))
    again.load_state_dict(made.state_dict())
    assert again.before_step(STATE) == {}
    first, second = (one.sample(20, rng()) for one in (made, again))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_sums_over_several_steps_are_refused():
    with pytest.raises(SettingError, match="3 steps at once"):
        refilled(real(4, n_step=3))
    with pytest.raises(SettingError, match="every is 0"):
        refilled(real(4), every=0)
