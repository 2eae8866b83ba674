"""Score policies: what the network is shown while acting, what is played, remembered, counted and refused."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import CapabilityError, DataError, SettingError, ShapeError, UnknownNameError
from policysmith.common.rng import seeded_initialisation
from policysmith.networks.karras import KarrasDenoiser
from policysmith.networks.transformer import TransformerDenoiser
from policysmith.policies.actors import gaussian_actor
from policysmith.policies.goals import GoalCondition
from policysmith.policies.protocol import load_policy
from policysmith.policies.score import ScoreModel, ScorePolicy, resampled

WINDOW, STATE, ACTION = 3, 4, 2


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=rng(seed))


def model(*, dropping: bool = True, goal_steps: int = 1) -> ScoreModel:
    condition = GoalCondition(STATE, goal_dimensions=(0, 1), goal_steps=goal_steps)
    condition.normalizer.fit_moments(2 + 3 * normal(50, STATE, seed=3))
    with seeded_initialisation(0):
        network = TransformerDenoiser(
            ACTION,
            WINDOW,
            condition.size(WINDOW),
            observation_tokens=WINDOW,
            goal_tokens=goal_steps,
            width=8,
            depth=1,
            heads=2,
        )
        for parameter in network.parameters():  # far from the beginning, where everything is nearly zero
            torch.nn.init.normal_(parameter, std=0.3)
    made = ScoreModel(
        KarrasDenoiser(network, sigma_data=0.5),
        condition,
        sigma_min=0.01,
        sigma_max=1.0,
        goal_dropping=dropping,
    )
    data = 5 + 3 * normal(50, ACTION, seed=4)
    made.action_normalizer.fit_moments(data)
    return made.fit_bounds(data).eval()


def seen(batch: int, seed: int = 0) -> TensorDict:
    parts = {
        "state": normal(batch, WINDOW, STATE, seed=seed),
        "goal": normal(batch, WINDOW, 2, seed=seed + 50),
    }
    return TensorDict(parts, batch_size=[batch, WINDOW])


class Recorder(torch.nn.Module):
    """Stands for the denoiser: writes down what it is shown and estimates `clean` everywhere."""

    def __init__(self, of: KarrasDenoiser, clean: float) -> None:
        super().__init__()
        self.horizon, self.action_size = of.horizon, of.action_size
        self.clean, self.shown = clean, []

    def bind(self, condition):
        def denoise(noisy, level):
            self.shown.append((noisy.clone(), level.clone(), condition.clone()))
            return torch.full_like(noisy, self.clean)

        return denoise


def recorded(policy: ScorePolicy, clean: float = 0.25) -> Recorder:
    policy.model.denoiser = Recorder(policy.model.denoiser, clean)  # type: ignore[assignment]
    return policy.model.denoiser  # type: ignore[return-value]


# ---- acting ------------------------------------------------------------------------------------------


def test_the_last_action_is_played_in_the_environments_units():
    policy = ScorePolicy(model())
    recorded(policy, 0.25)
    action, state = policy.act(seen(5), policy.initial_state(5), rng=rng())
    expected = policy.model.action_normalizer.inverse(torch.full((5, 1, ACTION), 0.25))
    torch.testing.assert_close(action, expected)
    assert torch.allclose(state["previous"][:, -1], torch.tensor(0.25))


def test_of_the_whole_sequence_the_newest_action_is_played():
    policy = ScorePolicy(model())
    recorded(policy)
    policy.model.denoiser.bind = lambda condition: (  # type: ignore[method-assign]
        lambda noisy, level: 0.1 * torch.arange(noisy.shape[1])[None, :, None].expand_as(noisy)
    )
    state = policy.initial_state(2)
    for _ in range(4):
        _, state = policy.act(seen(2), state, rng=rng())
    # The newest position is number 0 at the first decision, then 1, then 2 for good.
    torch.testing.assert_close(state["previous"][0, :, 0], torch.tensor([0.2, 0.2]))


def test_the_second_decision_is_shown_the_first_action():
    policy = ScorePolicy(model(), sampling_steps=1)
    recorder = recorded(policy, 0.25)
    state = policy.initial_state(1)
    for _ in range(2):
        _, state = policy.act(seen(1), state, rng=rng())
    assert recorder.shown[1][0][0, 0].tolist() == [0.25, 0.25]


def test_the_first_decisions_are_shown_as_many_states_and_actions_as_there_were():
    policy = ScorePolicy(model(), sampling_steps=1)
    recorder = recorded(policy)
    state = policy.initial_state(2)
    for _ in range(5):
        _, state = policy.act(seen(2), state, rng=rng())
    assert [noisy.shape[1] for noisy, _, _ in recorder.shown] == [1, 2, 3, 3, 3]
    assert [told.shape[1] for _, _, told in recorder.shown] == [(1 + n) * STATE for n in (1, 2, 3, 3, 3)]


def test_the_walk_begins_with_the_actions_of_before_and_noise_for_the_new_one():
    policy = ScorePolicy(model(), sampling_steps=2)
    recorder = recorded(policy, 0.25)
    state = policy.initial_state(2)
    for _ in range(4):
        recorder.shown.clear()
        _, state = policy.act(seen(2), state, rng=rng(7))
    (first, top, _), (second, bottom, _) = recorder.shown
    assert torch.equal(first[:, :-1], torch.full((2, 2, ACTION), 0.25))
    assert torch.equal(first[:, -1:], torch.randn(2, 1, ACTION, generator=rng(7)))
    assert top.tolist() == [1.0, 1.0]
    torch.testing.assert_close(bottom, torch.full((2,), 0.01))
    torch.testing.assert_close(second, 0.25 + 0.01 * (first - 0.25))


@pytest.mark.parametrize("keep", [False, True])
def test_actions_of_before_are_denoised_again_unless_they_are_kept(keep):
    policy = ScorePolicy(model(), sampling_steps=3, keep_last_actions=keep)
    recorder = recorded(policy, 0.0)
    state = policy.initial_state(1)
    state["previous"] += 0.5
    state["seen"] += WINDOW
    policy.act(seen(1), state, rng=rng())
    moved = [float(noisy[0, 0, 0]) for noisy, _, _ in recorder.shown]
    assert moved == pytest.approx([0.5, 0.5, 0.5] if keep else [0.5, 0.05, 0.005], abs=1e-6)


def test_actions_stay_within_the_bounds_of_the_data():
    policy = ScorePolicy(model())
    recorded(policy, 100.0)
    action, state = policy.act(seen(3), policy.initial_state(3), rng=rng())
    highest = 5 + 3 * normal(50, ACTION, seed=4).amax(0)
    torch.testing.assert_close(action[:, 0], highest.expand(3, ACTION))
    assert torch.equal(state["previous"][:, -1], policy.model.high.expand(3, ACTION))


def test_the_network_is_told_the_newest_goal_and_the_newest_states():
    policy = ScorePolicy(model(goal_steps=2), sampling_steps=1)
    recorder = recorded(policy)
    observation = seen(2)
    policy.act(observation, policy.initial_state(2), rng=rng())
    told = recorder.shown[0][2].unflatten(1, (3, STATE))
    scaled = policy.model.condition.normalizer
    goal = (observation["goal"][:, -1] - scaled.offset[:2]) / scaled.scale[:2]
    for token in (0, 1):
        torch.testing.assert_close(told[:, token, :2], goal)
        assert not told[:, token, 2:].any()
    torch.testing.assert_close(told[:, 2], scaled(observation["state"][:, -1]))


def test_rows_in_different_phases_act_as_each_would_alone():
    policy = ScorePolicy(model(), sampling_steps=4, sampler="heun")
    fresh, late = policy.initial_state(1), policy.initial_state(1)
    for step in range(5):
        _, late = policy.act(seen(1, seed=step), late, rng=rng(step))
    observation = seen(2, seed=9)
    both = torch.cat([late, fresh])
    joint, after = policy.act(observation, both, rng=rng(11))
    # Rows with shorter sequences are walked first, and so draw first.
    stream = rng(11)
    alone_fresh, _ = policy.act(observation[1:], fresh, rng=stream)
    alone_late, _ = policy.act(observation[:1], late, rng=stream)
    torch.testing.assert_close(joint, torch.cat([alone_late, alone_fresh]))
    assert after["seen"].tolist() == [WINDOW, 1]


def test_a_reset_row_begins_anew_and_the_others_go_on():
    policy = ScorePolicy(model())
    state = policy.initial_state(2)
    for _ in range(3):
        _, state = policy.act(seen(2), state, rng=rng())
    reset = policy.reset(state, torch.tensor([True, False]))
    assert reset["seen"].tolist() == [0, 3]
    assert not reset["previous"][0].any()
    assert torch.equal(reset["previous"][1], state["previous"][1])


# ---- samplers chosen afterwards, guidance, counting -----------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "steps", "guidance", "calls"),
    [
        ("ddim", 1, 1.0, 1),
        ("ddim", 3, 1.0, 3),
        ("heun", 3, 1.0, 5),
        ("euler_ancestral", 20, 0.0, 20),
        ("ddim", 3, 1.5, 6),
    ],
)
def test_network_calls_are_those_of_the_sampler_twice_where_guidance_asks_both(
    sampler, steps, guidance, calls
):
    policy = ScorePolicy(model(), sampler=sampler, sampling_steps=steps, guidance=guidance)
    recorder = recorded(policy)
    _, state = policy.act(seen(3), policy.initial_state(3), rng=rng())
    assert state["network_calls"].tolist() == [calls] * 3
    assert sum(len(noisy) for noisy, _, _ in recorder.shown) == 3 * calls


def test_guidance_goes_along_what_the_goal_changes():
    made, observation = model(), seen(4)
    actions = {
        strength: ScorePolicy(made, sampling_steps=1, guidance=strength).act(
            observation, ScorePolicy(made).initial_state(4), rng=rng(3)
        )[0]
        for strength in (0.0, 0.5, 1.0)
    }
    assert not torch.allclose(actions[0.0], actions[1.0])
    torch.testing.assert_close(actions[0.5], (actions[0.0] + actions[1.0]) / 2)


def test_without_guidance_the_goal_does_not_matter_not_even_one_that_says_none():
    policy = ScorePolicy(model(), guidance=0.0)
    observation = seen(2)
    one = policy.act(observation, policy.initial_state(2), rng=rng())[0]
    observation["goal"] = policy.model.condition.normalizer.offset[:2].expand(2, WINDOW, 2)
    assert torch.equal(one, policy.act(observation, policy.initial_state(2), rng=rng())[0])
    with pytest.raises(DataError, match="stands for no goal"):
        resampled(policy, guidance=1.0).act(observation, policy.initial_state(2), rng=rng())


def test_another_sampler_shares_the_model_and_keeps_the_other_settings():
    policy = ScorePolicy(model(), sampling_steps=7, guidance=1.5)
    other = resampled(policy, sampler="heun", schedule="linear")
    assert other.model is policy.model
    assert other.guidance == 1.5
    assert other.sigmas.tolist() == pytest.approx([*torch.linspace(1, 0.01, 7).tolist(), 0.0])
    assert other.calls_per_decision == 2 * 13


def test_a_deterministic_sampler_draws_only_where_it_begins():
    made, observation = model(), seen(3)
    spent = {}
    for name in ("ddim", "euler_ancestral"):
        stream = rng(5)
        policy = ScorePolicy(made, sampler=name)
        policy.act(observation, policy.initial_state(3), rng=stream)
        spent[name] = stream.get_state()
    begun = rng(5)
    torch.randn(3, 1, ACTION, generator=begun)
    assert torch.equal(spent["ddim"], begun.get_state())
    assert not torch.equal(spent["euler_ancestral"], begun.get_state())


def test_a_saved_policy_acts_as_before(tmp_path):
    policy = ScorePolicy(model(), sampler="euler_ancestral", sampling_steps=4, guidance=2.0).eval()
    policy.save_pretrained(tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    state = policy.initial_state(3)
    assert torch.equal(
        policy.act(seen(3), state, rng=rng(1))[0], loaded.act(seen(3), loaded.initial_state(3), rng=rng(1))[0]
    )


# ---- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [0.0, 0.5, 2.0])
def test_guidance_of_a_model_that_never_went_without_goals_is_refused(guidance):
    made = model(dropping=False)
    with pytest.raises(CapabilityError, match="never trained without a goal"):
        ScorePolicy(made, guidance=guidance)
    assert ScorePolicy(made, guidance=1.0).guidance == 1.0


def test_acting_before_the_episode_is_begun_is_refused():
    policy = ScorePolicy(model())
    for state in (None, TensorDict({}, batch_size=[2]), gaussian_actor(2, 2).initial_state(2)):
        with pytest.raises(DataError, match="before its episode was begun"):
            policy.act(seen(2), state, rng=rng())  # type: ignore[arg-type]


def test_another_batch_size_in_the_middle_of_an_episode_is_refused():
    policy = ScorePolicy(model())
    _, state = policy.act(seen(2), policy.initial_state(2), rng=rng())
    with pytest.raises(ShapeError, match="3 observations for a state of 2 rows"):
        policy.act(seen(3), state, rng=rng())


def test_a_goal_of_another_width_names_both():
    policy = ScorePolicy(model())
    observation = seen(2)
    observation["goal"] = normal(2, WINDOW, STATE)
    with pytest.raises(ShapeError, match=r"goal \[2, 3, 4\](.|\n)*goal \[2, 3, 2\]"):
        policy.act(observation, policy.initial_state(2), rng=rng())


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"sampling_steps": 0}, SettingError),
        ({"sampler": "magic"}, UnknownNameError),
        ({"schedule": "magic"}, UnknownNameError),
    ],
)
def test_samplers_that_do_not_exist_are_refused(wrong, error):
    with pytest.raises(error):
        ScorePolicy(model(), **wrong)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_a_range_of_noise_that_is_none_is_refused(low, high):
    made = model()
    with pytest.raises(SettingError, match="0 < sigma_min < sigma_max"):
        ScoreModel(made.denoiser, made.condition, sigma_min=low, sigma_max=high)


def test_a_network_for_another_condition_is_refused():
    made = model()
    with pytest.raises(SettingError, match="condition of 16 numbers"):
        ScoreModel(made.denoiser, GoalCondition(3), sigma_min=0.01, sigma_max=1.0)


def test_a_policy_without_a_sampler_has_none_to_change():
    with pytest.raises(CapabilityError, match="no sampler"):
        resampled(gaussian_actor(2, 2), sampling_steps=1)
