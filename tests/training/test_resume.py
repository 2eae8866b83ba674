"""Going on after an interruption: the run ends where the undisturbed one ends, bit for bit.

In one process from every step; after Ctrl-C; and after real kills, at random moments, of real processes.
`scripts/kill_test.py` has the machinery and the long form (`python scripts/kill_test.py --kills 20`).
"""

import importlib.util
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from policysmith.common.saving import load_tree
from policysmith.policies.protocol import load_policy
from policysmith.training.runs import RunDirectory

torch.set_num_threads(1)

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_test.py"
spec = importlib.util.spec_from_file_location("kill_test", SCRIPT)
assert spec is not None
assert spec.loader is not None
kill_test = importlib.util.module_from_spec(spec)
sys.modules["kill_test"] = kill_test  # where its dataclasses look for their module
spec.loader.exec_module(kill_test)

JOB = kill_test.Job(steps=60, checkpoint_every=4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    for _ in JOB.train(folder):
        pass
    return folder


@pytest.mark.parametrize("system", ["sdp", "diffusion-policy"])
def test_resuming_from_every_step_ends_in_the_same_bits(tmp_path, system):
    job = kill_test.Job(system=system, steps=7, checkpoint_every=1)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for now in job.train(whole):
        folder = tmp_path / f"after-{now.step}"
        shutil.copytree(whole, folder)
    for step in range(1, 7):
        cut = tmp_path / f"after-{step}"
        assert [now.step for now in job.train(cut)] == list(range(step + 1, 8))
        assert kill_test.differences(whole, cut) == []


def test_the_comparison_sees_a_single_bit(tmp_path, whole):
    """A comparison that could not fail would prove nothing."""
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    assert kill_test.differences(whole, other) == []
    weights = other / "policy" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert kill_test.differences(whole, other) == ["policy/model.safetensors"]
    shutil.rmtree(other)
    for _ in kill_test.Job(steps=60, checkpoint_every=4, seed=1).train(other):
        pass
    found = kill_test.differences(whole, other)
    assert "metrics" in found
    for part in ("learners/policy/module", "learners/policy/average", "learners/policy/optimizer", "sources"):
        assert any(place.startswith(f"checkpoint/state/{part}") for place in found), part


def test_all_that_is_random_or_learnt_is_in_the_checkpoint(whole):
    state = load_tree(RunDirectory.open(whole).checkpoints()[-1])["state"]
    assert state["step"] == 60
    assert set(state["generators"]) == {"windows", "noise"}
    assert set(state["sources"]) == {"windows"}
    learner = state["learners"]["policy"]
    assert learner["steps"] == learner["average"]["updates"] == 60
    assert set(learner["optimizer"]["state"]) == set(range(len(list(load_policy(whole).parameters()))))


def test_a_run_killed_at_random_moments_ends_in_the_same_bits(tmp_path, whole):
    kills = kill_test.train_with_kills(JOB, tmp_path / "run", kills=3, rng=random.Random(20))
    assert [kill.aim for kill in kills] == ["start", "step", "write"]
    assert all(0 <= kill.step - kill.checkpoint <= JOB.checkpoint_every for kill in kills)
    assert kill_test.differences(whole, tmp_path / "run") == []
    assert len(RunDirectory.open(tmp_path / "run").checkpoints()) == 2


def test_a_language_run_killed_while_it_answers_or_learns_ends_in_the_same_bits(tmp_path):
    pytest.importorskip("transformers")
    job = kill_test.Job(system="grpo", steps=24, checkpoint_every=4)
    for _ in job.train(tmp_path / "whole"):
        pass
    kills = kill_test.train_with_kills(job, tmp_path / "run", kills=2, rng=random.Random(3))
    assert [kill.aim for kill in kills] == ["start", "step"]
    assert kill_test.differences(tmp_path / "whole", tmp_path / "run") == []


@pytest.mark.parametrize(("system", "pictures"), [("ppo", 0), ("sac", 0), ("sac", 16), ("iql", 0)])
def test_a_control_run_killed_at_random_moments_ends_in_the_same_bits(tmp_path, system, pictures):
    """On policy, off policy (replay included, of pictures too) and from data alone."""
    job = kill_test.Job(system=system, steps=40, checkpoint_every=4, pictures=pictures)
    for _ in job.train(tmp_path / "whole"):
        pass
    kills = kill_test.train_with_kills(job, tmp_path / "run", kills=3, rng=random.Random(7))
    assert [kill.aim for kill in kills] == ["start", "step", "write"]
    assert kill_test.differences(tmp_path / "whole", tmp_path / "run") == []


def test_ctrl_c_ends_after_the_step_it_is_in_with_a_checkpoint(tmp_path, whole):
    worker = kill_test.Worker(JOB, tmp_path / "run")
    worker.go()
    worker.wait_for_steps(10)
    code, errors = worker.end(signal.SIGINT)
    assert code == 130
    last = worker.steps[-1]
    assert errors.strip() == f"interrupted: stopped after step {last} of 60"
    assert RunDirectory.open(tmp_path / "run").checkpoints()[-1].name == f"step-{last:08d}.safetensors"
    assert next(JOB.train(tmp_path / "run")).step == last + 1
    for _ in JOB.train(tmp_path / "run"):
        pass
    assert kill_test.differences(whole, tmp_path / "run") == []
