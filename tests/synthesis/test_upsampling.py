"""From a data set to a larger one."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from policysmith.common.errors import DataError
from policysmith.common.stages import result_of
from policysmith.experience.episodes import Episodes
from policysmith.experience.replay import transitions_of
from policysmith.synthesis.diffusion import DiffusionSettings, diffusion_run
from policysmith.synthesis.upsampling import upsample, upsampling

FIT = partial(
    diffusion_run,
    settings=DiffusionSettings(width=8, depth=1, level_size=4, steps=4, batch_size=8, sampling_steps=2),
)


def episodes() -> Episodes:
    rng = torch.Generator().manual_seed(0)
    walks = [torch.randn(9, 2, generator=rng) for _ in range(3)]
    return Episodes.from_arrays(
        [
            {"observation": walk.numpy(), "action": walk[:-1].numpy(), "reward": walk[1:, 0].numpy()}
            for walk in walks
        ],
        provenance={"environment": "a walk"},
    )


def test_the_larger_data_set_has_the_same_fields_and_says_what_it_is_of():
    given = episodes()
    more = upsample(given, 50, fit=FIT, seed=0)
    assert len(more.steps) == len(more) == 50
    assert set(more.steps.keys()) == set(given.steps.keys())
    assert more.observation_size == given.observation_size
    assert more.action_size == given.action_size
    assert more.provenance["environment"] == "a walk"
    assert more.provenance["made"] == {"transitions": 50, "of": 24, "seed": 0}


def test_actions_of_the_larger_data_set_stay_in_the_range_of_the_recorded_ones():
    given = episodes()
    action, made = given.steps["action"], upsample(given, 200, fit=FIT, seed=0).steps["action"]
    assert bool((made >= action.amin(0)).all())
    assert bool((made <= action.amax(0)).all())


def test_the_same_seed_makes_the_same():
    first, second, other = (upsample(episodes(), 5, fit=FIT, seed=seed).fingerprint for seed in (0, 0, 1))
    assert first == second
    assert first != other


def test_transitions_do_as_well_as_episodes():
    of_transitions = upsample(transitions_of(episodes()), 5, fit=FIT, seed=0)
    assert of_transitions.fingerprint == upsample(episodes(), 5, fit=FIT, seed=0).fingerprint


def test_how_rows_are_batched_does_not_change_how_many_there_are():
    made = result_of(upsampling(episodes(), 7, fit=FIT, seed=0, batch=3)).made
    assert len(made["action"]) == 7


def test_constant_columns_are_named():
    given = transitions_of(episodes())
    given["action"][:, 1] = 0.5
    found = result_of(upsampling(given, 5, fit=FIT, seed=0))
    assert found.constant == ["action 1"]
    assert torch.allclose(found.made["action"][:, 1], torch.tensor(0.5), atol=1e-2)


def test_too_few_transitions_are_refused():
    few = {key: value[:5] for key, value in transitions_of(episodes()).items()}
    with pytest.raises(DataError, match="5 transitions, and a batch has 8"):
        upsample(few, 5, fit=FIT, seed=0)
