"""Clip-Cov and KL-Cov: the published settings, what becomes of marked tokens, what is refused."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from language_seams import gradient, made_samples, seams

from policysmith.common.errors import SettingError
from policysmith.evaluation.conformance import check_system, check_training, language_inputs
from policysmith.policies.language.small import small_decoder
from policysmith.systems import dapo, entropy_cov
from policysmith.systems.entropy_cov import PRESETS, Config, train

torch.set_num_threads(1)

TINY = PRESETS["tiny"]
REWARDS, LENGTHS = [1.0, 0.0, 0.2, 1.0], [3, 5, 2, 4]


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("entropy-cov", tmp_path)


def test_the_other_method_goes_on_where_it_was_too(tmp_path: Path) -> None:
    settings = replace(TINY, method="clip-cov", dropped=0.2, low_quantile=0.5)
    recipe = SimpleNamespace(PRESETS={"tiny": settings}, train=train)
    check_training(recipe, language_inputs(tmp_path), tmp_path)


def test_defaults_are_the_published_settings():
    config = Config()
    assert (config.held, config.beta) == (0.002, 1.0)
    assert (config.dropped, config.low, config.high, config.clip) == (0.0002, 1.0, 5.0, 1.0)
    assert (config.prompts, config.group_size, config.optimizer_steps) == (256, 8, 8)
    assert (config.learning_rate, config.weight_decay, config.max_grad_norm) == (5e-7, 0.0, 1.0)
    assert (config.answer_limit, config.temperature, config.filter_agreeing) == (8192, 1.0, True)
    assert config.low_quantile is None
    assert config.recompute_old
    assert PRESETS["clip-cov"] == replace(config, method="clip-cov")


def with_marks(config: Config, marked: bool) -> torch.Tensor:
    """The gradient of a method's loss, moved up by 0.5, with all tokens marked or none."""
    parts = seams(entropy_cov, config)
    label = parts["label"]

    def marking(samples):
        batch = label(samples).batch
        batch["marked"] = batch["mask"] & marked
        for name in ("eligible", "covariance", "largest_covariance"):
            batch[name] = torch.zeros_like(batch["old_log_prob"])
        return samples

    return gradient(parts | {"label": marking}, made_samples(REWARDS, lengths=LENGTHS), moved=0.5)


def test_without_marked_tokens_both_are_the_baseline_without_its_clip():
    wide = seams(dapo, dapo.Config(overlong_buffer=0, clip_low=1.0, clip_high=1.0))
    baseline = gradient(wide, made_samples(REWARDS, lengths=LENGTHS), moved=0.5)
    for method in ("kl-cov", "clip-cov"):
        torch.testing.assert_close(with_marks(replace(TINY, method=method), False), baseline)


def test_marked_tokens_get_no_gradient_from_clip_cov():
    assert (with_marks(replace(TINY, method="clip-cov"), True) == 0).all()


def test_marked_tokens_are_pushed_back_by_kl_cov():
    plain, held = (with_marks(replace(TINY, beta=2.0), marked) for marked in (False, True))
    pushed = torch.zeros_like(plain)
    mask = made_samples(REWARDS, lengths=LENGTHS).batch["mask"]
    pushed[mask] = 2.0 / sum(LENGTHS)  # beta x sign(0.5) / tokens
    torch.testing.assert_close(held - plain, pushed)


def test_one_step_per_rollout_leaves_kl_cov_without_effect_and_says_so():
    with pytest.warns(UserWarning, match="its penalty has no gradient"):
        seams(entropy_cov, replace(TINY, optimizer_steps=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seams(entropy_cov, replace(TINY, optimizer_steps=1, method="clip-cov"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"held": 0.0}, r"held is 0.0\n.*in \(0, 1\]"),
        ({"held": 2.0}, r"held is 2.0"),
        ({"dropped": -0.1}, r"dropped is -0.1"),
        ({"low": 5.0, "high": 1.0}, "low is 5.0 and high is 1.0"),
        ({"low": 1.0, "high": 1.0}, "low is 1.0 and high is 1.0"),
        ({"low_quantile": 1.0}, "low_quantile is 1.0"),
        ({"method": "cov"}, "method is 'cov'"),
    ],
)
def test_settings_that_make_no_sense_are_named(change, words):
    with pytest.raises(SettingError, match=words):
        Config(**change)


def test_a_group_of_equal_scores_that_reaches_the_loss_is_reported_by_its_prompt(tmp_path: Path):
    policy = small_decoder(0, width=32, layers=2, heads=2, context=64)
    _, prompts, _ = language_inputs(tmp_path)
    config = replace(TINY, filter_agreeing=True)
    with pytest.warns(UserWarning, match=r"none was left whose answers differ .* '\d\+\d='"):
        list(itertools.islice(train(policy, prompts, lambda text, prompt: 1.0, config=config), 1))


def test_a_run_tells_what_was_chosen(tmp_path: Path):
    model, prompts, reward = language_inputs(tmp_path)
    for method in ("kl-cov", "clip-cov"):
        config = replace(TINY, method=method, group_size=4, held=0.1, dropped=0.1, low_quantile=0.5)
        steps = [now.metrics for now in train(model, prompts, reward, config=config, seed=0)]
        for one in steps:
            assert 0 < one["marked"] <= one["eligible"] <= 1
            assert one["covariance"] <= one["largest_covariance"]
            assert one["log_ratio"] >= 0
        assert steps[-1]["log_ratio"] > 0  # the second step of a rollout sees a policy that has moved
