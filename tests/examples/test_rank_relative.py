"""The guide to group-relative methods: its example learns, conforms, and is shown as it is."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

import rank_relative as example

from policysmith.evaluation.conformance import check_presets, check_training, language_inputs

ROOT = Path(__file__).parents[2]


def test_the_guides_method_conforms(tmp_path):
    check_presets(example)
    check_training(example, language_inputs(tmp_path), tmp_path)


def test_ranks_are_shared_by_ties_and_do_not_care_for_distances():
    reward, group = torch.tensor([9.0, 1.0, 1.0, 0.0, 5.0]), torch.tensor([0, 0, 0, 0, 7])
    expected = torch.tensor([1.0, 0.0, 0.0, -1.0, 0.0])
    assert torch.equal(example.rank_advantage(reward, group), expected)
    assert torch.equal(example.rank_advantage(reward.exp(), group), expected)


def test_it_is_written_in_under_forty_lines_and_the_guide_shows_them():
    source = (ROOT / "examples" / "rank_relative.py").read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "guides" / "group-relative.md").read_text(encoding="utf-8")
    code = source.split('"""', 2)[2]
    assert sum(bool(line.strip()) for line in code.splitlines()) < 40
    for part in ("@dataclass(frozen=True)", "def rank_advantage", "def train"):
        begin = source.index(part)
        body = source[begin:].split("\n\n\n")[0].rstrip()
        assert body in guide
