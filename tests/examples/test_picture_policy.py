"""The example from pictures runs, at the smallest size, and says what it measured."""

from __future__ import annotations

import dataclasses

import picture_policy as example
import torch

from policysmith.common.stages import result_of

torch.set_num_threads(1)


def test_both_systems_play_the_same_episodes_from_pictures(tmp_path):
    task = example.task("point-reach", side=16, episodes=3, limit=6)
    tiny = dataclasses.asdict(example.diffusion_policy.PRESETS["tiny"])
    small = {name: tiny[name] for name in ("noise_levels", "widths", "level_size", "picture_widths")}
    stages = example.experiment(
        task, seeds=1, evaluate=2, folder=tmp_path, steps=2, batch_size=4, action_steps=2, horizon=8, **small
    )
    results = result_of(example.reported(stages))
    assert [row[0] for row in example.rows(results)] == ["Diffusion Policy", "Streaming Diffusion Policy"]
    assert results[0].rollouts[0].seeds == results[1].rollouts[0].seeds
    assert all(policy.pictures == {"camera": (16, 16)} for result in results for policy in result.policies)
    calls = [result.calls_per_action.mean() for result in results]
    assert calls[1] < calls[0]
