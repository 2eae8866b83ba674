"""Learning off policy from pictures: who trains the encoder, who looks through it, and what is shifted."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from tensordict import TensorDict
from torch.utils._pytree import tree_map

from policysmith.common.errors import SettingError
from policysmith.common.spaces import ActionSpace
from policysmith.evaluation.rollouts import roll_out
from policysmith.policies.protocol import load_policy
from policysmith.systems import dqn, sac, td3
from policysmith.training.learners.off_policy import minibatch
from policysmith.training.learners.rlpd import RlpdLearners, RlpdSettings
from policysmith.training.learners.sac import SacLearners, SacSettings, vector_size
from policysmith.training.learners.td3 import Td3Learners, Td3Settings
from policysmith.training.loop import RunState
from policysmith.worlds import registry

torch.set_num_threads(1)

SIZE = (16, 16)
SPACE = Dict(state=Box(-1, 1, (2,)), front=Box(0, 255, (2, *SIZE, 3), np.uint8))
ACTION = ActionSpace.of(Box(-2, 2, (2,)))
SETTINGS = SacSettings(hidden=(8,), batch_size=4)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seen(rows: int, seed: int) -> TensorDict:
    pictures = torch.randint(256, (rows, 2, *SIZE, 3), generator=rng(seed), dtype=torch.uint8)
    return TensorDict({"state": torch.randn(rows, 2, generator=rng(seed)), "front": pictures}, [rows])


def batch(rows: int = 4) -> dict:
    return {
        "observation": seen(rows, 1),
        "next_observation": seen(rows, 2),
        "action": torch.rand(rows, 2, generator=rng()) * 4 - 2,
        "reward": torch.randn(rows, generator=rng()),
        "terminated": torch.tensor([True] + [False] * (rows - 1)),
        "truncated": torch.zeros(rows, dtype=torch.bool),
    }


MAKERS = {
    "sac": lambda: SacLearners(SPACE, ACTION, SETTINGS, seed=0),
    "td3": lambda: Td3Learners(SPACE, ACTION, Td3Settings(hidden=(8,), policy_every=1), discount=0.9, seed=0),
    "rlpd": lambda: RlpdLearners(
        SPACE,
        ACTION,
        RlpdSettings(hidden=(8,), members=3, subset=2, layer_norm=True, normalise=True),
        seed=0,
        demonstrations=seen(20, 3),
    ),
}


@pytest.fixture(params=MAKERS)
def learners(request):
    return MAKERS[request.param]()


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in module.parameters()]


def same(module: torch.nn.Module, before: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))


def test_the_encoder_gets_its_gradient_from_the_critics_loss_alone(learners):
    encoder = learners.critic.body.encoder
    assert learners.actor.body.encoder is encoder
    learners.actor_loss(learners.actor, batch())[0].mean().backward()
    assert all(weight.grad is None for weight in encoder.parameters())
    assert all(
        weight.grad is not None
        for part in (learners.actor.body.layers, learners.actor.head)
        for weight in part.parameters()
    )
    critic = learners.learners["critic"]
    critic.loss(critic.module, batch() | {"value_target": torch.zeros(4)})[0].mean().backward()
    assert all(float(weight.grad.abs().sum()) > 0 for weight in encoder.parameters())


def test_the_actors_step_leaves_the_encoder_alone_and_the_critics_step_moves_it_for_both(learners):
    encoder, before = learners.critic.body.encoder, weights(learners.critic.body.encoder)
    learners.learners["critic"].step(batch() | {"value_target": torch.zeros(4)})
    moved = weights(encoder)
    assert not any(torch.equal(a, b) for a, b in zip(before, moved, strict=True))
    assert same(learners.actor.body.encoder, moved)
    actor = weights(learners.actor.head)
    learners.learners["policy"].step(batch())
    assert same(encoder, moved)
    assert not same(learners.actor.head, actor)


def test_the_target_has_an_encoder_of_its_own_that_follows_slowly(learners):
    before = weights(learners.critic.body.encoder)
    learners.update_once(RunState(learners=learners.learners), batch(), 0)
    after, followed = learners.critic.body.encoder, learners.target.module.body.encoder
    for start, now, behind in zip(before, after.parameters(), followed.parameters(), strict=True):
        torch.testing.assert_close(behind, start.lerp(now, 0.005))


def test_of_a_vector_nothing_is_encoded_or_shared():
    plain = SacLearners(Box(-1, 1, (3,)), ACTION, SETTINGS, seed=0)
    assert plain.critic.body is None
    assert not plain.actor.body.borrows
    rows = {"observation": torch.zeros(5, 3), "next_observation": torch.zeros(5, 3)}
    source, draws = OneBatch(rows), rng()
    before = draws.get_state()
    assert minibatch(source, SETTINGS, draws) is rows
    assert torch.equal(draws.get_state(), before)


def test_systems_that_need_a_vector_say_what_would_read_the_parts():
    with pytest.raises(SettingError, match="parts state, front") as found:
        vector_size(SPACE)
    assert "sac" in str(found.value)


# ---- shifts ------------------------------------------------------------------------------------------


class OneBatch:
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return 1

    def sample(self, rows, rng):
        return self.rows


def test_pictures_are_shifted_each_row_by_its_own_and_before_and_after_by_others():
    rows = batch(40)
    rows["next_observation"] = rows["observation"]
    found = minibatch(OneBatch(rows), replace(SETTINGS, shift=3), rng())
    before, after = (found[key]["front"] for key in ("observation", "next_observation"))
    given = rows["observation"]["front"]
    places = torch.stack([place_of(moved, still, 3) for moved, still in zip(before, given, strict=True)])
    others = torch.stack([place_of(moved, still, 3) for moved, still in zip(after, given, strict=True)])
    assert len(places.unique(dim=0)) > 15
    assert int(places.abs().max()) == 3
    assert not torch.equal(places, others)
    assert torch.equal(found["observation"]["state"], rows["observation"]["state"])
    assert torch.equal(rows["observation"]["front"], batch(40)["observation"]["front"])  # not in place
    again = minibatch(OneBatch(rows), replace(SETTINGS, shift=3), rng())
    assert torch.equal(again["observation"]["front"], before)


def place_of(moved: torch.Tensor, still: torch.Tensor, most: int) -> torch.Tensor:
    """By how much a stack was moved: where the middle of it lies in the one that was not."""
    inner = slice(most, -most)
    found = [
        (y, x)
        for y, x in itertools.product(range(-most, most + 1), repeat=2)
        if torch.equal(moved[:, inner, inner], still.roll((-y, -x), (1, 2))[:, inner, inner])
    ]
    assert len(found) == 1
    return torch.tensor(found[0])


def test_a_shift_of_nothing_changes_nothing():
    rows = batch()
    assert minibatch(OneBatch(rows), replace(SETTINGS, shift=0), rng()) is rows
    with pytest.raises(SettingError, match="shift is -1"):
        replace(SETTINGS, shift=-1)


def test_rewards_are_labelled_by_what_was_seen_and_not_by_what_was_shifted():
    rows = batch(20)

    def label(drawn):
        assert torch.equal(drawn["observation"]["front"], rows["observation"]["front"])
        return drawn | {"reward": torch.ones(20)}

    found = minibatch(OneBatch(rows), SETTINGS, rng(), label=label)
    assert found["reward"].tolist() == [1.0] * 20
    assert not torch.equal(found["observation"]["front"], rows["observation"]["front"])


# ---- whole runs --------------------------------------------------------------------------------------


class Dot(gymnasium.Env):
    """A dot on a line is to be brought to the middle; the picture is all there is to see."""

    def __init__(self, shape: str = "picture", choices: int = 0) -> None:
        picture = Box(0, 255, (*SIZE, 3), np.uint8)
        self.shape, self.choices = shape, choices
        self.observation_space = Dict(step=Box(0, 1, (1,)), eye=picture) if shape == "dict" else picture
        self.action_space = Discrete(choices) if choices else Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(2, 13), 0
        return self.seen(), {}

    def step(self, action):
        push = float(action) - 1 if self.choices else float(action[0])
        self.place = float(np.clip(self.place + 3 * push, 0, 15))
        self.steps += 1
        return self.seen(), -abs(self.place - 7.5) / 7.5, False, self.steps == 8, {}

    def seen(self):
        picture = np.zeros((*SIZE, 3), np.uint8)
        picture[:] = 255 * np.clip(1.5 - abs(np.arange(16) - self.place), 0, 1)[None, :, None]
        beside = {"step": np.array([self.steps / 8], np.float32)}
        return beside | {"eye": picture} if self.shape == "dict" else picture


def stacked() -> gymnasium.Env:
    return gymnasium.wrappers.FrameStackObservation(Dot(), 3)


RUNS = {
    "sac": (sac, Dot, {}),
    "sac-dict": (sac, partial(Dot, "dict"), {"environments": 2, "n_step": 2}),
    "sac-stack": (sac, stacked, {}),
    "td3": (td3, Dot, {}),
    "dqn": (dqn, partial(Dot, choices=3), {}),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_from_pictures_goes_on_to_the_same_numbers_replay_included(name, tmp_path):
    system, environment, changes = RUNS[name]
    config = replace(system.PRESETS["tiny"], environment_steps=60, replay_capacity=20, **changes)
    whole = system.train(environment, config=config, seed=1)
    middle = list(itertools.islice(whole, config.steps // 3))[-1].state.state_dict()
    saved = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, middle)
    rest = list(whole)
    assert list(rest[-1].state.sources["replay"].frames) == [
        "observation/eye" if "dict" in name else "observation/picture"
    ]
    again = list(system.train(environment, config=config, seed=1, state=saved))
    assert [now.metrics for now in again] == [now.metrics for now in rest]
    a, b = (now[-1].state.policy() for now in (again, rest))
    assert same(a, weights(b))
    a.save_pretrained(tmp_path)
    assert same(load_policy(tmp_path), weights(b))


def test_sac_brings_a_dot_to_the_middle_that_it_only_sees():
    config = sac.Config(
        environment_steps=250,
        random_steps=100,
        hidden=(32,),
        batch_size=32,
        learning_rate=3e-3,
        critic_learning_rate=3e-3,
        temperature_learning_rate=1e-2,
        initial_temperature=0.1,
        discount=0.5,
        shift=2,
    )
    *_, last = sac.train(Dot, config=config, seed=0)
    untaught = sac.SacLearners(
        registry.prepared(Dot()).observation_space, ActionSpace.of(Dot()), config, seed=0
    )
    before, after = (
        float(roll_out(policy, lambda: registry.prepared(Dot()), seeds=range(20)).returns.mean())
        for policy in (untaught.learners["policy"].acting(), last.state.policy())
    )
    assert before < -2
    assert after > -1.2
