"""Rewards in units of the run's own spread, against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import DataError, SettingError
from policysmith.networks.running import RunningMoments
from policysmith.policies.language.samples import Request, Samples
from policysmith.rewards.normalised import normalised, rescaled

BATCH = torch.tensor([1.0, 2.0, 4.0, -1.0])


def test_the_first_batch_sets_the_scale_that_it_is_measured_by():
    found = rescaled(BATCH, RunningMoments(), how="normalise", clip=0.8)
    assert found.tolist() == pytest.approx([-0.240192, 0.240192, 0.8, -0.8], abs=1e-6)


def test_scaling_leaves_the_mean_where_it_is():
    found = rescaled(BATCH, RunningMoments(), how="scale")
    assert found.tolist() == pytest.approx([x / 2.081666 for x in BATCH.tolist()], rel=1e-6)
    assert rescaled(BATCH, RunningMoments(), how="none", clip=1.5).tolist() == [1, 1.5, 1.5, -1]


def test_later_batches_are_measured_by_all_of_history_and_themselves():
    moments = RunningMoments()
    rescaled(BATCH, moments)
    later = torch.tensor([10.0, -3.0])
    everything = torch.cat([BATCH, later]).double()
    expected = (later.double() - everything.mean()) / everything.std()
    torch.testing.assert_close(rescaled(later, moments).double(), expected, atol=1e-6, rtol=0)


def test_rewards_that_all_agree_are_worth_nothing_and_are_finite():
    moments = RunningMoments()
    assert rescaled(torch.full((5,), 3.0), moments).tolist() == [0] * 5
    assert rescaled(torch.tensor([3.0]), RunningMoments(), how="scale").tolist() == [3.0]


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan")])
def test_a_clip_that_is_on_is_above_zero(clip):
    with pytest.raises(SettingError, match="clipped"):
        rescaled(BATCH, RunningMoments(), clip=clip)
    with pytest.raises(SettingError, match="clipped"):
        normalised(lambda groups, **given: None, RunningMoments(), clip=clip)


def test_an_unknown_way_and_a_reward_that_is_not_finite_are_refused():
    with pytest.raises(SettingError, match="normalise, scale, none"):
        rescaled(BATCH, RunningMoments(), how="whiten")
    moments = RunningMoments()
    with pytest.raises(DataError, match="row 1"):
        rescaled(torch.tensor([0.0, torch.nan]), moments)
    assert float(moments.count) == 0


def sampler(groups, *, rng, version=0, copies=None):
    batch = TensorDict({"reward": BATCH.clone(), "score": {"model": BATCH.clone()}}, batch_size=[4])
    samples = Samples(batch, [Request([1], copy=row) for row in range(4)], [""] * 4)
    samples.log("reward", BATCH)
    return samples


def test_a_sampler_gives_rescaled_rewards_and_logs_what_was_given():
    moments = RunningMoments()
    samples = normalised(sampler, moments, clip=0.8)({}, rng=torch.Generator())
    assert samples.batch["reward"].tolist() == pytest.approx([-0.240192, 0.240192, 0.8, -0.8], abs=1e-6)
    assert samples.batch["score", "model"].tolist() == BATCH.tolist()
    assert samples.batch["log", "reward"].tolist() == BATCH.tolist()
    assert float(samples.batch["log", "reward_clipped"].mean()) == 0.5
    assert float(moments.count) == 4


def test_a_sampler_that_is_saved_goes_on_where_it_was():
    before, after = RunningMoments(), RunningMoments()
    one = normalised(sampler, before)
    one({}, rng=torch.Generator())
    after.load_state_dict(before.state_dict())
    again = normalised(sampler, after)({}, rng=torch.Generator()).batch["reward"]
    assert torch.equal(again, one({}, rng=torch.Generator()).batch["reward"])
