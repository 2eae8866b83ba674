"""DQN and its robust form: targets, exploration, who gets gradient, and which environments are refused."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.experience.interaction import Interaction
from policysmith.experience.makers import environments_of
from policysmith.objectives.decisions import decision_margin
from policysmith.systems import dqn, sa_dqn
from policysmith.training.learners.dqn import DqnLearners, DqnSettings, Robust
from policysmith.training.loop import finish

torch.set_num_threads(1)
SETTINGS = DqnSettings(
    hidden=(8,), batch_size=4, environment_steps=24, random_steps=8, replay_capacity=100, target_every=3
)


class Recall(gymnasium.Env):
    """One step: the observation says which of two choices is paid. With `masked`, a third is forbidden."""

    def __init__(self, *, masked: bool = False, action=None) -> None:
        vector = Box(-1, 1, (2,), np.float32)
        self.masked = masked
        self.observation_space = (
            Dict({"state": vector, "action_mask": Box(0, 1, (3,), np.int8)}) if masked else vector
        )
        self.action_space = (Discrete(3) if masked else Discrete(2)) if action is None else action

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._answer = int(self.np_random.integers(2))
        return self._seen(), {}

    def step(self, action):
        paid = float(action == self._answer) if action != 2 else 9.0
        return self._seen(), paid, True, False, {}

    def _seen(self):
        vector = np.array([1, 0] if self._answer else [0, 1], dtype=np.float32)
        if not self.masked:
            return vector
        return {"state": vector, "action_mask": np.array([1, 1, 0], dtype=np.int8)}


def learners(settings=SETTINGS, environment=Recall, **keywords):
    interaction = Interaction(environments_of(environment, 1), seed=0)
    interaction.start()
    return DqnLearners(interaction, settings, seed=0, **keywords)


def batch(rows=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {
        "observation": torch.randn(rows, 2, generator=rng),
        "action": torch.randint(2, (rows, 1), generator=rng),
        "reward": torch.randn(rows, generator=rng),
        "next_observation": torch.randn(rows, 2, generator=rng),
        "terminated": torch.tensor([True] + [False] * (rows - 1)),
        "truncated": torch.tensor([False, True] + [False] * (rows - 2)),
    }


def differing(found):
    """Learners whose target disagrees with the network about the best choice."""
    with torch.no_grad():
        found.target.module.advantage.weight.neg_()
    return found


def test_the_network_chooses_what_the_target_judges():
    rows = batch()
    double, single = (differing(learners(replace(SETTINGS, double=way))) for way in (True, False))
    with torch.no_grad():
        there = double.target.module(rows["next_observation"])
        best = double.q(rows["next_observation"]).argmax(1)
    judged = there[torch.arange(6), best]
    assert not torch.equal(judged, there.amax(1))
    goes_on = 0.99 * ~rows["terminated"]
    torch.testing.assert_close(double.value_target(rows), rows["reward"] + goes_on * judged)
    torch.testing.assert_close(single.value_target(rows), rows["reward"] + goes_on * there.amax(1))


def test_a_draw_of_several_steps_brings_its_own_discount():
    rows = batch()
    found = learners()
    with_own = found.value_target(rows | {"discount": torch.full((6,), 0.5)})
    torch.testing.assert_close(
        (with_own - rows["reward"]) / 0.5, (found.value_target(rows) - rows["reward"]) / 0.99
    )


def test_the_loss_is_hubers_of_the_chosen_action_alone():
    found, rows = learners(replace(SETTINGS, duelling=False)), batch(2)
    rows["action"] = torch.tensor([[0], [0]])
    with torch.no_grad():
        q = found.q(rows["observation"])[:, 0]
    values, _ = found.loss(found.policy, rows | {"value_target": q + torch.tensor([0.5, -3.0])})
    torch.testing.assert_close(values, torch.tensor([0.125, 2.5]))
    values.sum().backward()
    weight = found.q.advantage.weight.grad
    assert float(weight[0].abs().sum()) > 0
    assert float(weight[1].abs().sum()) == 0
    assert all(p.grad is None for p in found.target.module.parameters())


def test_the_target_is_copied_every_so_many_updates():
    found = learners()
    rows = batch()
    weights = [found.q.advantage.weight, found.target.module.advantage.weight]
    same = []
    for _ in range(4):
        found.update_once(None, rows, 0)
        same.append(torch.equal(*weights))
    assert same == [False, False, True, False]


def test_exploration_falls_in_a_straight_line_and_counts_all_environments():
    settings = replace(SETTINGS, exploration=0.1, exploration_steps=100)
    assert [settings.epsilon(step) for step in (0, 50, 100, 1000)] == pytest.approx([1, 0.55, 0.1, 0.1])
    found = learners(settings)
    seen = torch.randn(1, 2).expand(2000, 2)
    with torch.no_grad():
        best = found.q(seen[:1]).argmax()
        for count, least in ((0, 0.45), (1000, 0.93)):
            found.interaction.count = count
            action = found.explore(seen, torch.Generator().manual_seed(0))
            assert float((action == best).float().mean()) == pytest.approx(least, abs=0.06)


def test_choices_that_are_forbidden_are_never_hoped_for():
    found = learners(environment=lambda: Recall(masked=True))
    with torch.no_grad():
        found.target.module.advantage.bias[2] += 100
        found.q.advantage.bias[2] += 100
    seen = found.interaction.tensors
    rows = {
        "next_observation": seen,
        "reward": torch.zeros(1),
        "terminated": torch.tensor([False]),
    }
    with torch.no_grad():
        allowed = found.target.module(seen)[0, :2]
    assert float(found.value_target(rows)) == pytest.approx(0.99 * float(allowed.max()), rel=1e-4)
    assert set(found.explore(seen, torch.Generator().manual_seed(0)).flatten().tolist()) <= {0, 1}


def test_what_is_paid_is_learnt():
    config = replace(
        dqn.PRESETS["tiny"],
        environment_steps=300, random_steps=20, batch_size=32, hidden=(16,), learning_rate=1e-2,
        exploration_steps=100, target_every=10,
    )  # fmt: skip
    policy = finish(dqn.train(Recall, config=config)).policy()
    q = policy.body(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).detach()
    torch.testing.assert_close(q, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), atol=0.15, rtol=0)
    assert policy.deterministic


# ---- the robust form ----------------------------------------------------------------------------------

ROBUST = Robust(size=0.3, weight=0.5, steps=3, low=-9.0, high=9.0, grows_from=0, grows_until=10)


def test_states_move_within_their_neighbourhood_to_where_the_margin_is_smaller():
    found, states = learners(robust=ROBUST), batch(40)["observation"]
    found.interaction.count = 10
    moved = found.moved(states, ROBUST)
    assert float((moved["moved_observation"] - states).abs().max()) <= 0.3 + 1e-6
    with torch.no_grad():
        before, after = (
            decision_margin(found.q(x), moved["decision"]) for x in (states, moved["moved_observation"])
        )
    assert float(before.max()) <= 0
    assert float((after - before).mean()) > 0
    found.interaction.count = 0
    assert torch.equal(found.moved(states, ROBUST)["moved_observation"], states)


def test_the_hinge_comes_on_top_of_the_loss_and_is_all_that_the_moved_states_do():
    plain, robust = learners(), learners(robust=ROBUST)
    robust.interaction.count = 10
    rows = batch()
    rows |= {"value_target": plain.value_target(rows)} | robust.moved(rows["observation"], ROBUST)
    alone, _ = plain.loss(plain.policy, rows)
    both, statistics = robust.loss(robust.policy, rows)
    torch.testing.assert_close(both - alone, 0.5 * statistics["margin"])
    margin = decision_margin(robust.q(rows["moved_observation"]), rows["decision"]).clamp(min=-1)
    torch.testing.assert_close(statistics["margin"], margin)


def test_the_neighbourhood_grows_smoothly():
    robust = replace(ROBUST, size=2.0, grows_from=100, grows_until=200)
    assert [robust.size_at(step) for step in (0, 100, 150, 200, 999)] == [0, 0, 1, 2, 2]
    assert robust.size_at(110) < 0.1 * 2.0


def test_robust_training_widens_margins():
    """Both have learnt what is paid; the robust one is surer of it under a small change."""
    shared = {
        "environment_steps": 300, "random_steps": 20, "batch_size": 32, "hidden": (16,),
        "learning_rate": 1e-2, "exploration_steps": 100, "target_every": 10,
    }  # fmt: skip
    plain = finish(dqn.train(Recall, config=replace(dqn.PRESETS["tiny"], **shared))).policy()
    settings = Robust(size=0.4, weight=0.2, steps=2, low=-1.0, high=1.0, grows_from=120, grows_until=200)
    config = replace(sa_dqn.PRESETS["tiny"], robust=settings, **shared)
    robust = finish(sa_dqn.train(Recall, config=config)).policy()
    corners = torch.tensor([[0.4, 0.6], [0.6, 0.4]])  # each moved 0.4 towards the other
    answers = torch.tensor([0, 1])
    margins = [float(decision_margin(one.body(corners), answers).max().detach()) for one in (plain, robust)]
    assert margins[1] < margins[0]
    assert margins[1] < 0


# ---- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        (lambda: Recall(action=Box(-1, 1, (2,), np.float32)), "sac or td3"),
        (lambda: Recall(action=MultiDiscrete([2, 2])), "chooses one action"),
    ],
)
def test_actions_that_are_not_one_choice_are_refused(environment, says):
    with pytest.raises(CapabilityError, match=says):
        learners(environment=environment)


def test_robust_learning_needs_one_vector():
    with pytest.raises(CapabilityError, match="one vector"):
        learners(environment=lambda: Recall(masked=True), robust=ROBUST)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_every": 0}, {"exploration_steps": 0}, {"learning_rate": 0.0}, {"adam_epsilon": 0.0},
        {"max_grad_norm": -1.0}, {"exploration": 1.5}, {"exploration": -0.1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        DqnSettings(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": -1.0}, {"weight": -1.0}, {"floor": -1.0}, {"steps": 0}, {"low": 2.0},
        {"grows_from": -1}, {"grows_until": 0},
    ],
)  # fmt: skip
def test_a_regulariser_out_of_range_is_refused(settings):
    with pytest.raises(SettingError):
        Robust(**settings)
