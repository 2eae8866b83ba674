"""Combinations of methods: each runs, and each of the guide's lines is in the example."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")

import combined_methods as example

from policysmith.evaluation.conformance import check_presets, language_inputs
from policysmith.training.loop import finish

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return language_inputs(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("method", example.COMBINATIONS)
def test_a_combination_trains(method, inputs):
    config = replace(example.PRESETS["tiny"], method=method, steps=2, group_size=4)
    state = finish(example.train(*inputs, config=config))
    assert state.step == 2


def test_the_settings_conform():
    check_presets(example)


def test_the_guide_shows_the_combinations_as_they_are():
    source = (ROOT / "examples" / "combined_methods.py").read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "guides" / "combining.md").read_text(encoding="utf-8")
    lines = source.split("# The combinations, a line each:\n")[1].split("}  # fmt: skip")[0]
    assert "\n".join(line.removeprefix("    ") for line in lines.rstrip().splitlines()) in guide
