"""Noise and samplers against the published numbers, against plain formulas, and in their limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import SettingError
from policysmith.common.saving import from_pretrained, save_pretrained
from policysmith.networks.noise import (
    DiscreteNoise,
    ReverseProcess,
    ddim,
    ddpm,
    posterior_variance,
    sample,
    squared_cosine_betas,
    variance_preserving_betas,
)

TWENTY = DiscreteNoise(squared_cosine_betas(20))


def column(*values: float) -> torch.Tensor:
    """Values as the positions of one sequence of one-dimensional actions [1, horizon, 1]."""
    return torch.tensor(values).view(1, -1, 1)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=rng(seed))


def close(tensor: torch.Tensor, expected: list[float], *, digits: int = 6) -> None:
    """The tensor's values are the expected ones, which were rounded to so many digits."""
    assert tensor.flatten().tolist() == pytest.approx(expected, abs=0.6 * 10**-digits)


# ---- schedules ---------------------------------------------------------------------------------------


def test_squared_cosine_signal_of_twenty_levels():
    close(TWENTY.signal[[0, 7, 19]], [0.992007, 0.647478, 6e-06])


def test_scaled_squared_cosine_betas_of_a_hundred_levels():
    scaled = DiscreteNoise([0.2 * beta for beta in squared_cosine_betas(100)])
    # Published as 1.262546e-4: a single-precision 1 - ratio there, which costs the fifth digit.
    assert float(scaled.betas[0]) == pytest.approx(1.262546e-4, rel=2e-5)
    close(scaled.betas[[-1]], [0.1998])
    close(scaled.signal[[-1]], [0.194647])


def test_posterior_variance_of_a_thousand_squared_cosine_levels():
    variance = posterior_variance(DiscreteNoise(squared_cosine_betas(1000)))
    close(variance[[100, 900]], [0.00052222, 0.01973224], digits=8)
    close(variance.clamp(min=0.01)[[100]], [0.01])


def test_variance_preserving_schedule_of_five_levels():
    noise = DiscreteNoise(variance_preserving_betas(5))
    close(noise.betas, [0.195875, 0.458818, 0.635781, 0.754878, 0.835031])
    close(noise.signal, [0.804125, 0.435178, 0.158500, 0.038852, 0.006409])


def test_variance_preserving_signal_is_the_continuous_one_at_the_end():
    # The exponents sum to -(slowest + (fastest - slowest) / 2), whatever the number of levels.
    for steps in (1, 7, 200):
        noise = DiscreteNoise(variance_preserving_betas(steps, slowest=0.3, fastest=4.0))
        assert float(noise.signal[-1]) == pytest.approx(math.exp(-0.3 - 0.5 * 3.7))


@settings(deadline=None, max_examples=30)
@given(steps=st.integers(1, 300), betas=st.sampled_from([squared_cosine_betas, variance_preserving_betas]))
def test_noise_grows_with_the_level(steps, betas):
    noise = DiscreteNoise(betas(steps))
    assert noise.steps == steps == len(noise.signal)
    assert float(noise.betas.min()) > 0
    assert float(noise.betas.max()) <= 0.999
    assert bool((noise.signal.diff() < 0).all())
    assert 0 < float(noise.signal[-1]) < float(noise.signal[0]) + 1e-12 < 1


@pytest.mark.parametrize("betas", [[0.0], [0.1, 1.0], [-0.1], [0.5, math.nan], [1.5]])
def test_a_beta_outside_its_range_is_named(betas):
    with pytest.raises(SettingError, match=f"is {betas[-1]}"):
        DiscreteNoise(betas)


def test_a_schedule_without_levels_is_refused():
    for steps in (0, -3):
        with pytest.raises(SettingError, match="without levels"):
            DiscreteNoise(squared_cosine_betas(steps))


def test_tables_follow_from_the_arguments_to_the_last_bit(tmp_path):
    assert dict(TWENTY.state_dict()) == {}
    assert list(TWENTY.parameters()) == []
    save_pretrained(TWENTY, tmp_path / "noise")
    loaded = from_pretrained(tmp_path / "noise", expected=DiscreteNoise)
    assert torch.equal(loaded.signal, TWENTY.signal)
    assert torch.equal(loaded.betas, TWENTY.betas)


def test_samplers_are_made_in_double_precision_where_the_noise_lives():
    # Some devices have no float64: moving the module must not try to move the schedule.
    elsewhere = DiscreteNoise(squared_cosine_betas(20)).half().to("meta")
    assert elsewhere.signal.dtype == torch.float64
    assert torch.equal(elsewhere.signal, TWENTY.signal)
    for process in (ddpm(elsewhere), ddim(elsewhere, steps=5)):
        assert {buffer.device.type for buffer in process.buffers()} == {"meta"}


# ---- adding noise ------------------------------------------------------------------------------------


def test_noise_is_mixed_in_by_the_roots_of_signal_and_rest():
    mixed = TWENTY.add(column(0.5, -1, 0.25, 2), column(2.0, 1, -1, 3), torch.tensor([[0, 7, 19, -1]]))
    a0, a7, a19 = TWENTY.signal[[0, 7, 19]].tolist()
    expected = [
        0.5 * math.sqrt(a0) + 2 * math.sqrt(1 - a0),
        -math.sqrt(a7) + math.sqrt(1 - a7),
        0.25 * math.sqrt(a19) - math.sqrt(1 - a19),
        2,
    ]
    close(mixed, expected)


def test_clean_positions_stay_bit_for_bit():
    clean, noise = normal(4, 6, 3), normal(4, 6, 3, seed=1)
    level = torch.randint(-1, 20, (4, 6), generator=rng())
    level[0], level[1, ::2] = -1, -1
    mixed = TWENTY.add(clean, noise, level)
    assert torch.equal(mixed[level == -1], clean[level == -1])
    assert not bool((mixed[level >= 0] == clean[level >= 0]).any())


def test_one_level_for_all_positions_is_a_level_per_sample():
    clean, noise = normal(5, 4, 2), normal(5, 4, 2, seed=1)
    level = torch.tensor([-1, 0, 7, 18, 19])
    assert torch.equal(TWENTY.add(clean, noise, level), TWENTY.add(clean, noise, level[:, None].expand(5, 4)))


def test_gradients_through_added_noise_are_its_weights():
    clean, noise = normal(1, 3, 1).requires_grad_(), normal(1, 3, 1, seed=1).requires_grad_()
    TWENTY.add(clean, noise, torch.tensor([[-1, 7, 19]])).sum().backward()
    close(clean.grad, [1, math.sqrt(0.647478), math.sqrt(6.0596e-06)])
    close(noise.grad, [0, math.sqrt(1 - 0.647478), math.sqrt(1 - 6.0596e-06)])


# ---- one reverse step --------------------------------------------------------------------------------


def test_ddpm_step_of_three_positions_at_three_levels():
    mean, deviation = ddpm(TWENTY).step(
        column(0.5, -0.8, 1.2), column(0.1, 0.4, -0.3), torch.tensor([[0, 7, 19]])
    )
    # At level 0 the mean is the clean estimate; published as 0.493033, a last digit lost in single precision.
    close(mean, [0.493034, -0.844932, 0.115484])
    close(deviation.square(), [0, 0.079903, 0.992952])
    close(posterior_variance(TWENTY)[[7, 19]], [0.079903, 0.992952])
    assert float(posterior_variance(TWENTY)[0]) == 1e-20


def test_ddpm_clean_estimates_are_clamped():
    # From x_prev back to the clean estimate: (mean - x d) / c with the weights of the posterior mean.
    x, eps, level = column(0.5, -0.8, 1.2), column(0.1, 0.4, -0.3), torch.tensor([0, 7, 19])
    mean, _ = ddpm(TWENTY).step(x, eps, level[None])
    signal, beta = TWENTY.signal, TWENTY.betas
    before = torch.cat([torch.ones(1), signal])[level]
    c = before.sqrt() * beta[level] / (1 - signal[level])
    d = (1 - beta[level]).sqrt() * (1 - before) / (1 - signal[level])
    close((mean.flatten() - x.flatten() * d) / c, [0.493034, -1, 1], digits=4)


def test_ddim_levels_and_trajectory_of_twenty_levels_in_five_steps():
    process = ddim(TWENTY, steps=5)
    assert process.training_level.flip(0).tolist() == [16, 12, 8, 4, 0]
    close(TWENTY.signal[process.training_level.flip(0)], [0.053659, 0.269168, 0.571527, 0.847012, 0.992007])
    x, trajectory = column(1.5, -0.7), []
    for level in (4, 3, 2, 1, 0):
        x, deviation = process.step(x, 0.3 * x, torch.tensor([level]))
        assert float(deviation) == 0
        trajectory += x.flatten().tolist()
    expected = [1.633432, -0.930400, 1.609446, -1.071141, 1.430304, -1.108646, 1.112560, -1.039038, 1, -1]
    assert trajectory == pytest.approx(expected, abs=1.5e-6)
    close(sample(lambda x, level: 0.3 * x, process, column(1.5, -0.7), rng=rng()), [1, -1])


def test_expo_step_is_an_unclamped_mean_a_large_variance_and_a_clamp_by_the_caller():
    # EXPO adds sqrt(beta) z (not the small variance) and clamps what comes out (not the clean estimate).
    noise = DiscreteNoise(variance_preserving_betas(5))
    mean, _ = ddpm(noise, limit=None).step(column(0.5, -1), column(0.2, -0.3), torch.tensor([2]))
    after = (mean + noise.betas[2].sqrt() * column(0.1, 0.4)).clamp(-1, 1)
    close(after, [0.678545, -0.993517])


@settings(deadline=None, max_examples=40)
@given(steps=st.integers(1, 60), betas=st.sampled_from([squared_cosine_betas, variance_preserving_betas]))
def test_ddpm_passes_the_forward_marginals_back(steps, betas):
    """With the true noise, x at level l becomes a draw of x at level l - 1: same mean, same variance."""
    noise = DiscreteNoise(betas(steps))
    table = ddpm(noise, limit=None)._table[1:].double()
    a, b, c, d, deviation = table.unbind(-1)
    before = torch.cat([torch.ones(1, dtype=torch.float64), noise.signal[:-1]])
    torch.testing.assert_close(c + d * noise.signal.sqrt(), before.sqrt(), atol=1e-6, rtol=1e-6)
    variance = d.square() * (1 - noise.signal) + deviation.square()
    torch.testing.assert_close(variance, 1 - before, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(a * noise.signal.sqrt(), torch.ones_like(a), atol=0, rtol=1e-6)
    torch.testing.assert_close(a * (1 - noise.signal).sqrt() + b, torch.zeros_like(a), atol=1e-2, rtol=0)


@settings(deadline=None, max_examples=40)
@given(steps=st.integers(1, 40), seed=st.integers(0, 1000))
def test_unclamped_ddpm_mean_is_the_step_against_the_predicted_noise(steps, seed):
    noise = DiscreteNoise(variance_preserving_betas(steps))
    x, eps = normal(steps, 3, 2, seed=seed), normal(steps, 3, 2, seed=seed + 1)
    mean, _ = ddpm(noise, limit=None).step(x, eps, torch.arange(steps))
    beta, signal = noise.betas.view(-1, 1, 1), noise.signal.view(-1, 1, 1)
    torch.testing.assert_close(
        mean.double(), (x - beta / (1 - signal).sqrt() * eps) / (1 - beta).sqrt(), atol=2e-5, rtol=1e-5
    )


@settings(deadline=None, max_examples=40)
@given(
    steps=st.integers(1, 50),
    stride=st.integers(1, 5),
    limit=st.sampled_from([0.3, 1.0, 2.5]),
    seed=st.integers(0, 1000),
)
def test_ddim_recomputes_the_noise_from_the_clamped_estimate(steps, stride, limit, seed):
    noise = DiscreteNoise(variance_preserving_betas(steps * stride))
    x, eps = normal(steps, 4, 1, seed=seed), normal(steps, 4, 1, seed=seed + 1)
    level = torch.arange(steps)
    after, deviation = ddim(noise, steps=steps, limit=limit).step(x, eps, level)
    signal = noise.signal[level * stride].view(-1, 1, 1)
    before = torch.cat([torch.ones(1, 1, 1), signal[:-1]])
    clean = ((x - (1 - signal).sqrt() * eps) / signal.sqrt()).clamp(-limit, limit)
    again = (x - signal.sqrt() * clean) / (1 - signal).sqrt()
    torch.testing.assert_close(
        after.double(), before.sqrt() * clean + (1 - before).sqrt() * again, atol=2e-5, rtol=2e-5
    )
    assert not bool(deviation.any())


def test_ddim_with_the_true_noise_moves_down_exactly():
    clean, eps = normal(20, 5, 2) / 4, normal(20, 5, 2, seed=1)
    level = torch.arange(20)
    after, _ = ddim(TWENTY, steps=20, limit=None).step(TWENTY.add(clean, eps, level), eps, level)
    torch.testing.assert_close(after, TWENTY.add(clean, eps, level - 1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("process", [ddpm(TWENTY), ddim(TWENTY, steps=20), ddpm(TWENTY, limit=None)])
def test_a_step_is_per_position(process):
    x, eps = normal(3, 6, 2), normal(3, 6, 2, seed=1)
    level = torch.randint(-1, 20, (3, 6), generator=rng())
    level[0, 0] = -1
    mean, deviation = process.step(x, eps, level)
    assert mean.shape == x.shape
    assert deviation.shape == (3, 6, 1)
    for row in range(3):
        for position in range(6):
            one = slice(row, row + 1), slice(position, position + 1)
            alone, spread = process.step(x[one], eps[one], level[one][:, 0])
            assert torch.equal(mean[one], alone)
            assert torch.equal(deviation[one], spread)
    same = torch.tensor([19, 7, 0])
    for ours, theirs in zip(
        process.step(x, eps, same), process.step(x, eps, same[:, None].expand(3, 6)), strict=True
    ):
        assert torch.equal(ours.expand(3, 6, -1), theirs)


@pytest.mark.parametrize("process", [ddpm(TWENTY), ddim(TWENTY, steps=5), ddpm(TWENTY, limit=None)])
def test_a_position_that_is_clean_stays_bit_for_bit_whatever_is_predicted(process):
    x, level = normal(2, 8, 3) * 3, torch.full((2, 8), -1)
    for predicted in (normal(2, 8, 3, seed=1), torch.full((2, 8, 3), 1e30)):
        mean, deviation = process.step(x, predicted, level)
        assert torch.equal(mean, x)
        assert not bool(deviation.any())
        assert torch.equal(mean + deviation * normal(2, 8, 3, seed=2), x)
    assert process.network_level(level).tolist() == torch.zeros(2, 8).tolist()


def test_the_last_step_adds_no_noise():
    _, deviation = ddpm(TWENTY).step(column(0.1, 0.2), column(0.0, 0.0), torch.tensor([[0, 1]]))
    assert float(deviation[0, 0]) == 0
    assert float(deviation[0, 1]) > 0


@pytest.mark.parametrize("steps", [0, -1, 21])
def test_more_sampling_steps_than_levels_or_none_are_refused(steps):
    with pytest.raises(SettingError, match=f"{steps} sampling steps") as caught:
        ddim(TWENTY, steps=steps)
    assert caught.value.expected == "1 to 20 steps"


def test_strided_levels_are_multiples_of_the_whole_stride():
    hundred = DiscreteNoise(squared_cosine_betas(100))
    assert ddim(hundred, steps=16).training_level.tolist() == [6 * level for level in range(16)]
    assert ddim(hundred, steps=100).training_level.tolist() == list(range(100))
    assert ddim(hundred, steps=1).training_level.tolist() == [0]
    assert ddim(hundred, steps=16).network_level(torch.tensor([[15, 0, -1]])).tolist() == [[90, 0, 0]]


# ---- whole runs --------------------------------------------------------------------------------------


def gaussian_denoiser(noise: DiscreteNoise, mean: float, deviation: float):
    """The best prediction of the noise where clean values are normal with this mean and deviation."""

    def predict(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        signal = noise.signal[level].float().view(len(x), -1, 1)
        spread = signal * deviation**2 + 1 - signal
        return (1 - signal).sqrt() * (x - signal.sqrt() * mean) / spread

    return predict


def test_ddpm_draws_from_the_distribution_that_the_denoiser_knows():
    noise = DiscreteNoise(squared_cosine_betas(200))
    process = ddpm(noise, limit=None)
    drawn = sample(gaussian_denoiser(noise, 0.3, 0.2), process, normal(4000, 2, 1), rng=rng(1))
    assert float(drawn.mean()) == pytest.approx(0.3, abs=0.01)
    # The small variance is the right one for a single data point, so a spread comes out a little too narrow.
    assert 0.94 < float(drawn.std()) / 0.2 < 1.0


def test_ddim_carries_quantiles_of_the_noise_to_quantiles_of_the_data():
    noise = DiscreteNoise(squared_cosine_betas(400))
    start = torch.linspace(-2, 2, 9).view(1, 9, 1)
    drawn = sample(gaussian_denoiser(noise, 0.3, 0.2), ddim(noise, steps=400, limit=None), start, rng=rng())
    torch.testing.assert_close(drawn, 0.3 + 0.2 * start, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("process", "told"), [(ddpm(TWENTY), list(range(19, -1, -1))), (ddim(TWENTY, steps=5), [16, 12, 8, 4, 0])]
)
def test_a_run_calls_the_network_once_per_level_from_noise_to_clean(process, told):
    seen = []

    def denoise(x, level):
        assert level.shape == (3,)
        seen.append(level.unique().tolist())
        return 0.1 * x

    sample(denoise, process, normal(3, 4, 2), rng=rng())
    assert seen == [[level] for level in told]
    assert process.steps == len(told)


def test_a_deterministic_run_draws_nothing_and_an_ancestral_one_repeats_with_its_stream():
    start, stream = normal(2, 3, 1), rng()
    before = stream.get_state()
    sample(lambda x, level: 0.1 * x, ddim(TWENTY, steps=5), start, rng=stream)
    assert torch.equal(stream.get_state(), before)
    draws = [sample(lambda x, level: 0.1 * x, ddpm(TWENTY), start, rng=rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(start, normal(2, 3, 1))


def test_gradients_reach_the_starting_noise_until_the_clamp_binds():
    start = column(0.2, 50.0).requires_grad_()
    sample(lambda x, level: torch.zeros_like(x), ddim(TWENTY, steps=5), start, rng=rng()).sum().backward()
    assert float(start.grad[0, 0]) != 0
    assert float(start.grad[0, 1]) == 0


def test_a_process_of_ones_own_is_a_table():
    """A network that predicts the clean sample needs no other sampler: a = 0, b = 1."""
    _, _, c, d, deviation = ddpm(TWENTY)._table[1:].unbind(-1)
    table = torch.stack([torch.zeros(20), torch.ones(20), c, d, deviation], dim=-1)
    process = ReverseProcess(torch.arange(20), table)
    target = normal(2, 3, 1).clamp(-1, 1)
    torch.testing.assert_close(sample(lambda x, level: target, process, normal(2, 3, 1), rng=rng()), target)


# ---- clean and noise from each other, and adjusting the mean -----------------------------------------


def test_clean_and_noise_are_found_again_from_what_was_mixed():
    clean, eps, level = normal(3, 4, 2) / 4, normal(3, 4, 2, seed=1), torch.tensor([0, 9, 19])
    noisy = TWENTY.add(clean, eps, level)
    torch.testing.assert_close(TWENTY.noise_in(noisy, clean, level), eps, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        TWENTY.clean(noisy, eps, torch.full((3, 4), 9))[1], clean[1], atol=1e-4, rtol=1e-4
    )


def test_an_adjusted_mean_is_what_noise_is_added_to_and_the_last_one_is_the_result():
    levels = []

    def adjust(mean, level):
        levels.append(level)
        return torch.full_like(mean, 0.25)

    start, seen = normal(2, 3, 1), []

    def denoise(x, level):
        seen.append(x)
        return 0.1 * x

    drawn = sample(denoise, ddpm(TWENTY), start, rng=rng(), adjust=adjust)
    assert levels == list(range(19, -1, -1))
    assert torch.equal(drawn, torch.full((2, 3, 1), 0.25))
    noise = torch.randn(2, 3, 1, generator=rng())
    torch.testing.assert_close(seen[1], 0.25 + posterior_variance(TWENTY)[19].sqrt().float() * noise)


def test_an_adjustment_that_changes_nothing_changes_no_number():
    plain, adjusted = (
        sample(lambda x, level: 0.1 * x, ddpm(TWENTY), normal(2, 3, 1), rng=rng(), adjust=adjust)
        for adjust in (None, lambda mean, level: mean)
    )
    assert torch.equal(plain, adjusted)
