"""Streaming Diffusion Policy: levels and calls against published numbers, the buffer position by position."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.rng import seeded_initialisation
from policysmith.common.saving import load_tree, save_tree
from policysmith.networks.denoiser import Denoiser
from policysmith.networks.levels import chunk_count, chunkwise_levels
from policysmith.networks.mlp import ResidualMLPDenoiser
from policysmith.networks.noise import DiscreteNoise, squared_cosine_betas
from policysmith.policies.diffusion import ActionDiffusion, DiffusionPolicy
from policysmith.policies.protocol import load_policy
from policysmith.policies.streaming import StreamingPolicy


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=rng(seed))


def truth(time: torch.Tensor) -> torch.Tensor:
    """The right (scaled) action at a time: one dimension, inside [-1, 1], never the same twice."""
    return 0.9 * torch.sin(0.7 * time + 0.3)


class Oracle(Denoiser):
    """Knows the right action at every time, and the time from the observation; writes down what it is told.

    The observation is [time, anything]; position k of the window lies k - (To - 1) steps ahead of the newest.
    """

    def __init__(self, horizon: int, observed: int, noise: DiscreteNoise) -> None:
        super().__init__(1, horizon, 2 * observed, level_positions=horizon)
        self.signal, self.observed, self.told = noise.signal.float(), observed, []

    def forward(self, noisy, level, condition):
        level = self.check(noisy, level, condition)
        self.told.append(level.clone())
        signal = self.signal[level][..., None]
        now = condition[:, -2].view(-1, 1)
        clean = truth(now + torch.arange(self.horizon) - (self.observed - 1))[..., None]
        return (noisy - signal.sqrt() * clean) / (1 - signal).sqrt()


def oracle(horizon=16, observed=2, acted=4, levels=20, **options) -> StreamingPolicy:
    noise = DiscreteNoise(squared_cosine_betas(levels))
    network = Oracle(horizon, observed, noise)
    model = ActionDiffusion(network, noise, observation_size=2, observation_steps=observed)
    return StreamingPolicy(model, action_steps=acted, **options)


def learnt(horizon=16, observed=2, acted=4, levels=20, **options) -> StreamingPolicy:
    with seeded_initialisation(0):
        network = ResidualMLPDenoiser(
            2, horizon, 3 * observed, width=16, depth=1, level_size=4, level_positions=horizon
        )
    noise = DiscreteNoise(squared_cosine_betas(levels))
    model = ActionDiffusion(network, noise, observation_size=3, observation_steps=observed)
    model.observation_normalizer.fit_range(normal(50, 3, seed=3))
    model.action_normalizer.fit_range(5 + 3 * normal(50, 2, seed=4))
    return StreamingPolicy(model, action_steps=acted, **options).eval()


def at(time: int, batch: int = 1, observed: int = 2) -> torch.Tensor:
    """The oracle's observations up to `time`."""
    times = torch.arange(time - observed + 1, time + 1.0)
    return torch.stack([times, torch.zeros(observed)], dim=-1).expand(batch, observed, 2)


def play(policy: StreamingPolicy, decisions: int, *, batch: int = 1, seed: int = 0):
    """Yield (actions, state, calls of this decision as counted, levels told) of a run of decisions."""
    state, stream, network = policy.initial_state(batch), rng(seed), policy.model.network
    for decision in range(decisions):
        network.told.clear()
        before = state["network_calls"]
        observation = at(decision * policy.action_steps, batch, policy.observation_steps)
        actions, state = policy.act(observation, state, rng=stream)
        yield actions, state, (state["network_calls"] - before).tolist(), list(network.told)


def told_apart(state) -> dict[str, torch.Tensor]:
    return {key: state[key].clone() for key in ("buffer", "level", "filled", "network_calls")}


# ---- levels and calls --------------------------------------------------------------------------------


def test_levels_and_calls_of_the_published_example():
    policy = oracle()
    expected = [
        (6, [6] * 5 + [13] * 4 + [19] * 7),
        (7, [6] * 5 + [12] * 4 + [19] * 7),
        (7, [5] * 5 + [12] * 4 + [19] * 7),
        (6, [6] * 5 + [13] * 4 + [19] * 7),
    ]
    for (calls, levels), (_, state, counted, told) in zip(expected, play(policy, 4), strict=True):
        assert counted == [calls]
        assert len(told) == calls
        assert state["level"].tolist() == [levels]


def test_the_network_is_told_every_level_on_the_way_down():
    (_, _, _, told), (_, _, _, again) = play(oracle(), 2)
    pattern = torch.tensor([5] * 5 + [12] * 4 + [19] * 7)
    assert torch.equal(torch.cat(told), torch.stack([pattern - step for step in range(6)]))
    rolled = torch.tensor([6] * 5 + [13] * 4 + [19] * 7)
    assert torch.equal(torch.cat(again), torch.stack([rolled - step for step in range(7)]))


@pytest.mark.parametrize(
    ("horizon", "acted", "levels", "calls"),
    [(20, 8, 100, {50}), (20, 5, 100, {33, 34}), (16, 4, 50, {16, 17}), (16, 1, 50, {3, 4})],
)
def test_calls_of_the_published_settings(horizon, acted, levels, calls):
    policy = oracle(horizon, 2, acted, levels)
    assert {counted for *_, (counted,), _ in play(policy, 5)} == calls


@settings(deadline=None, max_examples=20)
@given(
    observed=st.integers(1, 4),
    acted=st.integers(1, 4),
    chunks=st.integers(1, 4),
    tail=st.integers(0, 3),
    levels=st.integers(1, 11),
)
def test_each_chunk_gets_all_levels_whatever_the_rounding(observed, acted, chunks, tail, levels):
    horizon = observed - 1 + acted * chunks + tail
    assume(tail < acted and levels >= chunks and horizon > 1)
    policy = oracle(horizon, observed, acted, levels)
    assert chunk_count(horizon, observed, acted) == chunks
    counts = []
    for _, state, calls, told in play(policy, 2 * chunks + 1, batch=2):
        counts.append(len(told))
        assert calls == [len(told)] * 2
        assert len(told) in (levels // chunks, -(-levels // chunks))
        assert all(int(level.min()) >= 0 and int(level.max()) < levels for level in told)
        level = state["level"][0]
        now = observed - 1
        assert bool((level.diff() >= 0).all())
        assert level[: now + acted].unique().numel() == 1  # the past is labelled like the present
        assert bool((level[horizon - acted - tail :] == levels - 1).all())
        assert torch.equal(state["level"][0], state["level"][1])
    # A chunk enters as pure noise and leaves clean h decisions later: N calls in any h decisions.
    for first in range(len(counts) - chunks + 1):
        assert sum(counts[first : first + chunks]) == levels


def test_levels_met_while_acting_are_those_of_training_where_chunks_divide_them():
    horizon, observed, acted, levels = 12, 2, 3, 21
    regime = chunkwise_levels(levels, horizon, observed, acted)
    trained = {tuple(row) for row in regime(500, rng()).tolist()}
    policy = oracle(horizon, observed, acted, levels)
    met = {tuple(level[0].tolist()) for *_, told in play(policy, 6) for level in told}
    assert met == trained


def test_strided_levels_are_told_as_the_training_levels_they_stand_for():
    policy = oracle(20, 2, 5, 100, sampling_steps=16)
    (_, state, calls, told), *_ = play(policy, 1)
    assert calls == [5]
    assert [sorted(level.unique().tolist()) for level in told] == [
        [6 * (4 - step), 6 * (9 - step), 6 * (15 - step)] for step in range(5)
    ]
    assert state["level"][0].unique().tolist() == [4, 10, 15]


# ---- the actions and the buffer ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"sampling_steps": 10}, {"buffer_start": "denoise"}, {"noise_past": False}]
)
@pytest.mark.parametrize(("horizon", "observed", "acted"), [(16, 2, 4), (8, 1, 1), (11, 4, 2), (9, 2, 8)])
def test_the_right_actions_come_out_at_the_right_time(horizon, observed, acted, options):
    policy = oracle(horizon, observed, acted, 20, **options)
    policy.model.action_normalizer.offset.fill_(3.0)
    policy.model.action_normalizer.scale.fill_(10.0)
    for decision, (actions, *_) in enumerate(play(policy, 6, batch=2)):
        now = torch.arange(decision * acted, (decision + 1) * acted)
        assert actions.shape == (2, acted, 1)
        torch.testing.assert_close(actions[1, :, 0], 3 + 10 * truth(now), atol=2e-3, rtol=0)


def test_later_chunks_are_carried_over_and_not_drawn_anew():
    policy = oracle()
    (_, before, *_), *_ = play(policy, 1)
    state = before.clone()
    state["buffer"][:, 5:9] = 7.0  # marks chunk 1, wherever it goes
    network = policy.model.network
    network.forward = lambda noisy, level, condition: torch.zeros_like(noisy)
    # At limit 1 and without predicted noise a position of 7 stays far from the others.
    _, after = policy.act(at(4), state, rng=rng())
    assert float(after["buffer"][:, 1:5].mean()) > 2
    assert float(after["buffer"][:, 5:].abs().max()) < 6


def still(policy: StreamingPolicy, value: float = 0.0) -> StreamingPolicy:
    """The policy with every draw from the normal distribution replaced by a constant."""
    policy._normal = lambda shape, rng: torch.full(tuple(shape), value)
    return policy


def test_past_actions_are_noised_to_their_label():
    policy = still(oracle(observed=3, horizon=17))
    for actions, state, *_ in play(policy, 3):
        label = int(state["level"][0, 0])
        scale = math.sqrt(policy.model.noise.signal[label])
        torch.testing.assert_close(state["buffer"][0, :2], scale * actions[0, -2:], atol=1e-5, rtol=1e-5)
    policy = still(oracle(observed=3, horizon=17), 1.0)
    policy.process._table[:, 4] = 0  # no noise on the way down, ones when noising
    (actions, state, *_), *_ = play(policy, 1)
    signal = policy.model.noise.signal[int(state["level"][0, 0])].float()
    expected = signal.sqrt() * actions[0, -2:] + (1 - signal).sqrt()
    torch.testing.assert_close(state["buffer"][0, :2], expected, atol=1e-5, rtol=1e-5)


def test_past_actions_may_stay_clean_as_in_the_authors_code():
    for actions, state, *_ in play(oracle(observed=3, horizon=17, noise_past=False), 3):
        assert torch.equal(state["buffer"][0, :2], actions[0, -2:])  # bit for bit, the scaling is 1
        assert int(state["level"][0, 0]) == int(state["level"][0, 2]) >= 0


def test_the_end_of_the_buffer_is_fresh_noise():
    """Chunk and tail: the last Ta + r positions are standard normal after every roll."""
    policy = oracle(horizon=19, acted=4, observed=2)  # 18 ahead: four chunks and a tail of two
    for _, state, *_ in play(policy, 2, batch=4000):
        fresh = state["buffer"][:, -6:, 0]
        assert float(fresh.mean(0).abs().max()) < 0.08
        assert float((fresh.std(0) - 1).abs().max()) < 0.06
        assert float((torch.corrcoef(fresh.T) - torch.eye(6)).abs().max()) < 0.08


# ---- how a buffer starts -----------------------------------------------------------------------------


@pytest.mark.parametrize("sampling_steps", [None, 10])
def test_a_zero_start_is_zeros_noised_to_the_pattern(sampling_steps):
    policy = still(oracle(sampling_steps=sampling_steps), 1.0)
    seen = []
    policy.model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    next(iter(play(policy, 1)))
    levels = policy.process.training_level[policy.pattern]
    expected = (1 - policy.model.noise.signal[levels]).sqrt().float()
    torch.testing.assert_close(seen[0][0, :, 0], expected)


def test_a_constant_start_is_the_present_position_noised_to_the_pattern():
    policy = still(oracle(buffer_start="constant", position=(1,)))
    policy.model.action_normalizer.offset.fill_(1.0)
    policy.model.action_normalizer.scale.fill_(4.0)
    seen = []
    policy.model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    observation = torch.tensor([[[0.0, 99.0], [0.0, 3.0]]])  # the newest says 3, which is 0.5 when scaled
    policy.act(observation, policy.initial_state(1), rng=rng())
    expected = 0.5 * policy.model.noise.signal[policy.pattern].sqrt().float()
    torch.testing.assert_close(seen[0][0, :, 0], expected)


def test_a_denoised_start_costs_a_whole_run_once_and_goes_on_in_step():
    zero, denoised = oracle(), oracle(buffer_start="denoise")
    for decision, (usual, ours) in enumerate(zip(play(zero, 4), play(denoised, 4), strict=True)):
        assert torch.equal(ours[1]["level"], usual[1]["level"])
        assert ours[2] == [usual[2][0] + (20 if decision == 0 else 0)] == [len(ours[3])]
    (_, _, _, told), *_ = play(denoised, 1)
    assert [level.unique().tolist() for level in told[:20]] == [[level] for level in range(19, -1, -1)]


def test_a_denoised_start_noises_all_but_the_first_chunk():
    policy = still(oracle(buffer_start="denoise"), 1.0)
    policy.process._table[:, 4] = 0
    seen = []
    policy.model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    next(iter(play(policy, 1)))
    clean = truth(torch.arange(16) - 1)
    signal = policy.model.noise.signal[policy.pattern].float()
    signal[:5] = 1
    torch.testing.assert_close(
        seen[20][0, :, 0], signal.sqrt() * clean + (1 - signal).sqrt(), atol=1e-4, rtol=1e-4
    )


# ---- working ahead -----------------------------------------------------------------------------------


def chunks(policy, decisions, *, spread, batch=2, observe=lambda decision, tick: normal(2, 2, 3)):
    """Yield (actions, state) of decisions; with `spread`, each tick between them works ahead."""
    state, stream, acted = policy.initial_state(batch), rng(), policy.action_steps
    for decision in range(decisions):
        actions, state = policy.act(observe(decision, 0), state, rng=stream)
        yield actions, state
        for tick in range(1, acted if spread else 1):
            ticks = torch.full((batch,), acted - tick + 1)
            state = policy.work_ahead(observe(decision, tick), state, ticks=ticks, rng=stream)


@pytest.mark.parametrize("acted", [4, 3, 15])
@pytest.mark.parametrize(
    "options", [{}, {"sampling_steps": 10}, {"buffer_start": "denoise"}, {"noise_past": False}]
)
def test_working_ahead_changes_no_bit_where_the_observation_stays(acted, options):
    policy = learnt(acted=acted, **options)
    both = (chunks(policy, 6, spread=False), chunks(policy, 6, spread=True))
    for (at_once, before), (shared, after) in zip(*both, strict=True):
        assert torch.equal(at_once, shared)
        assert all(torch.equal(before[key], after[key]) for key in before.keys())  # noqa: SIM118


def test_the_calls_of_a_decision_are_shared_evenly_with_the_larger_shares_last():
    policy = oracle()  # 6 or 7 calls a decision, over 4 ticks
    network, stream = policy.model.network, rng()
    _, state = policy.act(at(0), policy.initial_state(1), rng=stream)
    shares = []
    for ticks in (4, 3, 2):
        network.told.clear()
        before = int(state["network_calls"])
        state = policy.work_ahead(at(0), state, ticks=torch.tensor([ticks]), rng=stream)
        assert int(state["network_calls"]) - before == len(network.told)
        shares.append(len(network.told))
    network.told.clear()
    policy.act(at(4), state, rng=stream)
    assert [*shares, len(network.told)] == [1, 2, 2, 2]


def test_a_row_works_ahead_by_its_own_ticks_and_an_empty_one_waits():
    policy = oracle()
    _, state = policy.act(at(0, 3), policy.initial_state(3), rng=rng())
    state = policy.reset(state, torch.tensor([False, False, True]))
    ahead = policy.work_ahead(at(0, 3), state, ticks=torch.tensor([4, 1, 1]), rng=rng())
    assert (ahead["network_calls"] - state["network_calls"]).tolist() == [1, 7, 0]
    assert ahead["level"][:, 4].tolist() == [5, -1, 19]
    assert torch.equal(ahead["buffer"][2], state["buffer"][2])
    assert not bool(ahead["filled"][2])


def test_a_chunk_worked_on_ahead_has_seen_the_observation_of_that_time():
    policy = learnt()

    def played(*changed):
        def observe(*now):
            return normal(2, 2, 3) + float(now == changed)

        return [actions for actions, _ in chunks(policy, 2, spread=True, observe=observe)]

    still_standing, moved = played(), played(0, 2)
    assert torch.equal(still_standing[0], moved[0])
    assert not torch.equal(still_standing[1], moved[1])


# ---- limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling_steps", [None, 5])
def test_one_chunk_is_diffusion_policy(sampling_steps):
    """With h = 1 every position starts a decision as noise at the top level and needs all calls."""
    policy = learnt(8, 2, 7, sampling_steps=sampling_steps)
    plain = DiffusionPolicy(policy.model, action_steps=7, sampling_steps=sampling_steps)
    observation, state = normal(3, 2, 3), policy.initial_state(3)
    _, state = policy.act(observation, state, rng=rng())
    for seed in (1, 2):
        start = normal(3, 8, 2, seed=seed)
        state["buffer"] = start.clone()
        actions, state = policy.act(observation, state, rng=rng(seed))
        # The same stream draws the start first and the noise of the steps after it.
        stream = rng(seed)
        window = plain._denoise(plain.model.condition(observation), start, stream)
        assert torch.equal(actions, window)
        assert state["level"].unique().tolist() == [policy.process.steps - 1]
    assert state["network_calls"].tolist() == [3 * policy.process.steps] * 3


def test_actions_follow_the_distribution_that_the_denoiser_knows():
    """Independent actions, normal with mean 0.2 and deviation 0.15: every decision draws from them."""

    class Gaussian(Oracle):
        def forward(self, noisy, level, condition):
            signal = self.signal[self.check(noisy, level, condition)][..., None]
            spread = signal * 0.15**2 + 1 - signal
            return (1 - signal).sqrt() * (noisy - signal.sqrt() * 0.2) / spread

    noise = DiscreteNoise(squared_cosine_betas(60))
    model = ActionDiffusion(Gaussian(8, 1, noise), noise, observation_size=2, observation_steps=1)
    policy = StreamingPolicy(model, action_steps=2)
    for decision, (actions, *_) in enumerate(play(policy, 6, batch=2000)):
        if decision < 4:
            continue  # the zero start is still in the buffer
        assert float(actions.mean()) == pytest.approx(0.2, abs=0.015)
        assert 0.8 < float(actions.std()) / 0.15 < 1.05


# ---- rows apart from each other ----------------------------------------------------------------------


def test_resetting_one_row_touches_only_that_row():
    policy, observation = learnt(), normal(4, 2, 3)
    _, state = policy.act(observation, policy.initial_state(4), rng=rng())
    before = told_apart(state)
    after = policy.reset(state, torch.tensor([False, True, False, False]))
    for key in before:
        assert torch.equal(after[key][[0, 2, 3]], before[key][[0, 2, 3]])
        assert torch.equal(state[key], before[key])
    assert after["filled"].tolist() == [True, False, True, True]
    assert torch.equal(after["network_calls"], before["network_calls"])
    assert not bool(after["buffer"][1].any())
    assert after["level"][1].unique().tolist() == [19]


def test_a_row_in_another_phase_gets_the_calls_it_would_get_alone():
    policy = oracle()
    network = policy.model.network
    state, stream = policy.initial_state(3), rng()
    alone, fresh = [6, 7, 7, 6, 7], 0
    for decision in range(5):
        if decision in (1, 3):
            state = policy.reset(state, torch.tensor([False, True, False]))
            fresh = decision
        network.told.clear()
        before = state["network_calls"]
        _, state = policy.act(at(0, 3), state, rng=stream)
        calls = (state["network_calls"] - before).tolist()
        assert calls == [alone[decision], alone[decision - fresh], alone[decision]]
        # Each row went through the network as often as was counted, and no level was ever told below 0.
        assert sum(len(told) for told in network.told) == sum(calls)
        assert all(int(told.min()) >= 0 for told in network.told)


@pytest.mark.parametrize("sampling_steps", [None, 10])
def test_a_row_in_company_of_another_phase_acts_as_it_would_alone(sampling_steps):
    policy, observation = learnt(sampling_steps=sampling_steps), normal(3, 2, 3)
    policy = still(policy)  # the rows of a batch share a stream; take it away to compare them
    _, state = policy.act(observation, policy.initial_state(3), rng=rng())
    state["buffer"] = normal(3, 16, 2, seed=2)
    state = policy.reset(state, torch.tensor([False, True, False]))
    together, after = policy.act(observation, state, rng=rng())
    for row in range(3):
        one = slice(row, row + 1)
        actions, left = policy.act(observation[one], state[one], rng=rng())
        torch.testing.assert_close(actions, together[one], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(left["buffer"], after["buffer"][one], atol=1e-4, rtol=1e-4)
        assert torch.equal(left["level"], after["level"][one])
        assert torch.equal(left["network_calls"], after["network_calls"][one])


def test_an_observation_moves_the_actions_of_its_own_row_only():
    policy, observation = learnt(), normal(3, 2, 3)
    _, state = policy.act(observation, policy.initial_state(3), rng=rng())
    one, _ = policy.act(observation, state, rng=rng(1))
    changed = observation.clone()
    changed[1] += 1
    two, _ = policy.act(changed, state, rng=rng(1))
    assert torch.equal(one[[0, 2]], two[[0, 2]])
    assert not torch.equal(one[1], two[1])


@pytest.mark.parametrize("start", ["zero", "denoise"])
def test_acting_leaves_the_callers_state_and_global_randomness_alone(start):
    policy, observation = learnt(buffer_start=start), normal(3, 2, 3)
    state, before = policy.initial_state(3), torch.get_rng_state()
    for _ in range(2):
        kept = told_apart(state)
        actions, after = policy.act(observation, state, rng=rng())
        again, _ = policy.act(observation, state, rng=rng())
        assert torch.equal(actions, again)
        assert all(torch.equal(state[key], kept[key]) for key in kept)
        state = after
    assert torch.equal(torch.get_rng_state(), before)


# ---- saving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampling_steps": 10},
        {"buffer_start": "constant", "position": (2, 0)},
        {"buffer_start": "denoise"},
        {"noise_past": False},
    ],
)
def test_a_saved_policy_acts_the_same(options, tmp_path):
    policy, observation = learnt(**options), normal(3, 2, 3)
    policy.save_pretrained(tmp_path)
    torch.rand(5)
    loaded = load_policy(tmp_path)
    assert isinstance(loaded, StreamingPolicy)
    states = [policy.initial_state(3), loaded.initial_state(3)]
    streams = [rng(), rng()]
    for _ in range(3):
        results = [
            who.act(observation, state, rng=stream)
            for who, state, stream in zip((policy, loaded), states, streams, strict=True)
        ]
        states = [state for _, state in results]
        assert torch.equal(results[0][0], results[1][0])


def test_an_episode_goes_on_from_a_saved_state(tmp_path):
    policy, observation, stream = learnt(), normal(3, 2, 3), rng()
    _, state = policy.act(observation, policy.initial_state(3), rng=stream)
    save_tree(tmp_path / "state", {"state": dict(state.items()), "rng": stream.get_state()})
    expected, _ = policy.act(observation, state, rng=stream)
    saved = load_tree(tmp_path / "state")
    resumed, again = policy.initial_state(3), torch.Generator()
    again.set_state(saved["rng"])
    for key, value in saved["state"].items():
        resumed[key] = value
    assert torch.equal(policy.act(observation, resumed, rng=again)[0], expected)


# ---- what is refused ---------------------------------------------------------------------------------


def test_a_network_told_one_level_per_sample_cannot_stream():
    network = ResidualMLPDenoiser(2, 16, 6, width=8, depth=1, level_size=4)
    model = ActionDiffusion(
        network, DiscreteNoise(squared_cosine_betas(20)), observation_size=3, observation_steps=2
    )
    with pytest.raises(SettingError, match="noise level per position") as caught:
        StreamingPolicy(model, action_steps=4)
    assert "level_positions=16" in caught.value.cure


@pytest.mark.parametrize("acted", [16, 0])
def test_a_horizon_without_one_chunk_is_refused_naming_the_numbers(acted):
    with pytest.raises(
        SettingError, match=f"16 is too short for 2 observation steps and {acted} action steps"
    ):
        oracle(acted=acted)


def test_fewer_levels_than_chunks_are_refused():
    with pytest.raises(SettingError, match="14 noise levels cannot be spread over 15 chunks"):
        oracle(acted=1, levels=14)
    with pytest.raises(SettingError, match="10 noise levels cannot be spread over 15 chunks"):
        oracle(acted=1, levels=20, sampling_steps=10)


def test_more_sampling_steps_than_levels_are_refused():
    with pytest.raises(SettingError, match="21 sampling steps"):
        oracle(sampling_steps=21)


def test_an_unknown_start_is_refused_naming_the_known_ones():
    with pytest.raises(SettingError, match="'warm' is no way to start a buffer") as caught:
        oracle(buffer_start="warm")
    assert caught.value.expected == "zero, constant, denoise"


@pytest.mark.parametrize("position", [(), (0, 1), (2,), (-1,)])
def test_a_constant_start_needs_the_dimensions_of_the_position(position):
    with pytest.raises(SettingError, match="hold the current position") as caught:
        oracle(buffer_start="constant", position=position)
    assert str(list(position)) in caught.value.what
    assert "1 numbers from 0 to 1" in caught.value.expected


def test_another_batch_than_the_buffers_asks_for_a_reset():
    policy = oracle()
    _, state = policy.act(at(0, 3), policy.initial_state(3), rng=rng())
    with pytest.raises(ShapeError, match="2 observations for a state of 3 rows") as caught:
        policy.act(at(4, 2), state, rng=rng())
    assert "reset" in caught.value.cure
