"""Configurations: to JSON and back without loss, and what does not fit is named."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.config import config_from_json, config_to_json
from policysmith.common.errors import SettingError
from policysmith.systems import diffusion_policy, sdp


@dataclass(frozen=True)
class Inner:
    size: int = 3
    shape: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    name: str
    rate: float = 0.1
    inner: Inner = Inner()
    maybe: Inner | None = None
    steps: int | None = None
    parts: tuple[Inner, ...] = ()
    pair: tuple[float, float] = (0.9, 0.95)
    items: tuple[str, ...] | None = None


def through_json(config):
    return config_from_json(type(config), json.loads(json.dumps(config_to_json(config))))


@pytest.mark.parametrize(
    "config",
    [
        Outer("plain"),
        Outer("full", 1e-17, Inner(9, ()), Inner(1), 0, (Inner(2), Inner(4, (7,))), (0.0, 1.0), ("a", "")),
        *sdp.PRESETS.values(),
        *diffusion_policy.PRESETS.values(),
    ],
)
def test_a_configuration_comes_back_equal(config):
    again = through_json(config)
    assert again == config
    assert hash(again) == hash(config)  # tuples are tuples again, not lists
    assert all(
        type(getattr(again, field.name)) is type(getattr(config, field.name)) for field in fields(config)
    )


@settings(deadline=None, max_examples=50)
@given(
    rate=st.floats(0, 1e6),
    sampling=st.none() | st.integers(1, 100),
    widths=st.lists(st.integers(1, 999), min_size=1, max_size=4),
    position=st.lists(st.integers(0, 30), max_size=3),
)
def test_settings_of_a_system_survive_json(rate, sampling, widths, position):
    config = replace(
        sdp.Config(horizon=24),  # a multiple of 8, as four widths need
        learning_rate=rate, sampling_steps=sampling, widths=tuple(widths), position=tuple(position),
    )  # fmt: skip
    assert through_json(config) == config


def test_plain_data_holds_no_tuples_and_no_objects():
    assert config_to_json(Outer("x", parts=(Inner(),))) == {
        "name": "x", "rate": 0.1, "inner": {"size": 3, "shape": [1, 2]}, "maybe": None, "steps": None,
        "parts": [{"size": 3, "shape": [1, 2]}], "pair": [0.9, 0.95], "items": None,
    }  # fmt: skip


def test_missing_settings_take_their_defaults():
    assert config_from_json(Outer, {"name": "x"}) == Outer("x")
    assert config_from_json(sdp.Config, {}) == sdp.Config()


def test_unknown_settings_are_listed_with_the_known_ones():
    with pytest.raises(SettingError) as caught:
        config_from_json(Outer, {"name": "x", "zeta": 1, "alpha": 2})
    assert caught.value.what == "unknown settings ['alpha', 'zeta']"
    assert "'rate'" in caught.value.expected
    with pytest.raises(SettingError, match=r"unknown settings \['colour'\]"):
        config_from_json(Outer, {"name": "x", "inner": {"colour": 1}})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "'name'"),
        ({"name": "x", "pair": None}, "do not fit"),
        ({"name": "x", "inner": 3}, "do not fit"),
        ({"name": "x", "parts": [4]}, "do not fit"),
    ],
)
def test_values_that_do_not_fit_are_a_setting_error(data, message):
    with pytest.raises(SettingError, match=message) as caught:
        config_from_json(Outer, data)
    assert "saved configuration" in caught.value.where


def test_settings_out_of_range_are_refused_from_a_file_as_from_code():
    with pytest.raises(SettingError, match="noise_levels is 0"):
        config_from_json(sdp.Config, {"noise_levels": 0})
