"""The protocol of policies: states by row, batches that do not fit, capabilities, loading by folder."""

from __future__ import annotations

import json

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from policysmith.common.errors import CapabilityError, FileError, ShapeError
from policysmith.common.saving import save_json, save_pretrained
from policysmith.networks.normalizers import Normalizer
from policysmith.policies.actors import gaussian_actor
from policysmith.policies.protocol import CAPABILITIES, Policy, load_policy, require_capability


class Remembering(Policy):
    """A policy without weights that remembers three kinds of things per row."""

    observation_size, action_size, observation_steps = 2, 1, 3

    def initial_state(self, batch: int) -> TensorDict:
        state = super().initial_state(batch)
        state["hidden"] = torch.full((batch, 4, 2), 0.5)
        state["begun"] = torch.zeros(batch, dtype=torch.bool)
        state["score"] = torch.full((batch,), -1.0)
        return state


def lived(batch: int) -> TensorDict:
    state = Remembering().initial_state(batch)
    rng = torch.Generator().manual_seed(0)
    state["hidden"] = torch.randn(batch, 4, 2, generator=rng)
    state["begun"] = torch.ones(batch, dtype=torch.bool)
    state["score"] = torch.randn(batch, generator=rng)
    state["network_calls"] = torch.arange(batch) + 10
    return state


def test_a_new_state_counts_calls_from_zero():
    state = Policy().initial_state(3)
    assert state.batch_size == (3,)
    assert state["network_calls"].tolist() == [0, 0, 0]
    assert state["network_calls"].dtype == torch.long


@pytest.mark.parametrize("mask", [[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1]])
def test_resetting_touches_the_chosen_rows_only_and_keeps_the_count(mask):
    policy, state = Remembering(), lived(4)
    before, mask = state.clone(), torch.tensor(mask, dtype=torch.bool)
    after = policy.reset(state, mask)
    fresh = policy.initial_state(4)
    for key in ("hidden", "begun", "score"):
        assert torch.equal(after[key][~mask], before[key][~mask])
        assert torch.equal(after[key][mask], fresh[key][mask])
        assert torch.equal(state[key], before[key])  # the caller's state is left alone
    assert torch.equal(after["network_calls"], before["network_calls"])


@pytest.mark.parametrize("shape", [(3,), (5,), (4, 1), ()])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(ShapeError, match="for a state of 4 rows") as caught:
        Remembering().reset(lived(4), torch.ones(shape, dtype=torch.bool))
    assert str(tuple(shape)) in caught.value.what


def test_another_batch_than_the_states_asks_for_a_reset():
    with pytest.raises(ShapeError, match="3 observations for a state of 4 rows") as caught:
        Remembering().check_batch(torch.zeros(3, 3, 2), lived(4))
    assert "reset" in caught.value.cure
    assert "initial_state" in caught.value.cure


@pytest.mark.parametrize("shape", [(4, 2), (4, 1, 2), (4, 3, 5), (4, 3, 2, 1)])
def test_an_observation_of_another_shape_is_refused_naming_the_right_one(shape):
    with pytest.raises(ShapeError) as caught:
        Remembering().check_batch(torch.zeros(shape), lived(4))
    assert str(list(shape)) in caught.value.what
    assert "[4, 3, 2]" in caught.value.expected
    Remembering().check_batch(torch.zeros(4, 3, 2), lived(4))


def test_a_policy_without_weights_lives_on_the_cpu():
    assert Remembering().device == torch.device("cpu")
    moved = Remembering()
    moved.layer = nn.Linear(1, 1, device="meta")
    assert moved.device.type == "meta"


def test_a_missing_capability_is_named_with_who_asks_and_what_for():
    actor = gaussian_actor(2, 1)
    require_capability(actor, "log_prob", by="PPO")
    with pytest.raises(CapabilityError) as caught:
        require_capability(actor, "from_noise", by="DSRL")
    assert "DSRL" in caught.value.what
    assert CAPABILITIES["from_noise"] in caught.value.what
    assert caught.value.where == "NetworkPolicy has none"
    actor.sample = None
    with pytest.raises(CapabilityError):
        require_capability(actor, "sample", by="V-GPS")


# ---- loading -----------------------------------------------------------------------------------------


def test_a_policy_is_loaded_from_its_folder_or_its_run_ready_to_act(tmp_path):
    policy = gaussian_actor(2, 1).train()
    policy.save_pretrained(tmp_path / "run" / "policy")
    save_json(tmp_path / "run" / "config.json", {"system": "x"})
    for folder in (tmp_path / "run", tmp_path / "run" / "policy", str(tmp_path / "run")):
        loaded = load_policy(folder)
        assert not loaded.training
        assert torch.equal(loaded.head.log_deviation, policy.head.log_deviation)
        assert torch.equal(loaded.head.mean.weight, policy.head.mean.weight)


def test_a_run_that_has_no_policy_yet_says_so(tmp_path):
    save_json(tmp_path / "config.json", {"system": "x"})
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(FileError, match="no policy yet") as caught:
        load_policy(tmp_path)
    assert "resume" in caught.value.cure


def test_a_folder_that_holds_no_policy_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"no file config\.json"):
        load_policy(tmp_path / "nowhere")
    save_pretrained(Normalizer(2), tmp_path / "normalizer")
    with pytest.raises(FileError, match="holds a Normalizer") as caught:
        load_policy(tmp_path / "normalizer")
    assert caught.value.expected == "a Policy"


def test_a_run_may_not_smuggle_another_class_in(tmp_path):
    gaussian_actor(2, 1).save_pretrained(tmp_path / "policy")
    config = json.loads((tmp_path / "policy" / "config.json").read_text())
    (tmp_path / "policy" / "config.json").write_text(json.dumps(config | {"class": "subprocess.Popen"}))
    with pytest.raises(FileError, match=r"nothing here is called 'subprocess\.Popen'"):
        load_policy(tmp_path)
