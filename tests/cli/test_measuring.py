"""Running a system that does not train: from words to findings on disk."""

import json
from dataclasses import dataclass

import pytest
import torch

from policysmith.cli import measuring
from policysmith.common.catalogue import System
from policysmith.common.errors import CapabilityError, FileError
from policysmith.common.stages import Stage
from policysmith.evaluation.findings import Findings, Table
from policysmith.experience.transitions import episodes_of


@dataclass(frozen=True)
class Settings:
    scale: float = 2.0


def entry(subject, *, config):
    yield Stage("count", 0, 1)
    rows = [["steps", float(subject) * config.scale]]
    yield Stage("count", 1, 1)
    return Findings("counted", {"steps": 3.0 * config.scale}, [Table("all", ["what", "number"], rows)])


class Three:
    name = "three"

    def arguments(self):
        return (3,)


def system(takes):
    return System("counter", "Counter", "", "robot-learning", "measure", takes, ("scores",), "", "", ())


def test_findings_are_written_and_never_overwritten(tmp_path, capsys):
    writing = measuring.Writing(out=str(tmp_path / "found"), json=True)
    measuring.measure(system(("episodes",)), entry, Settings(), Three(), writing)
    written = json.loads((tmp_path / "found" / "findings.json").read_text())
    assert json.loads(capsys.readouterr().out) == written
    assert written["findings"]["summary"] == {"steps": 6.0}
    assert written["settings"] == {"scale": 2.0}
    assert "counted" in (tmp_path / "found" / "report.html").read_text()
    with pytest.raises(FileError, match="already holds"):
        measuring.measure(system(("episodes",)), entry, Settings(), Three(), writing)


def test_what_the_command_line_cannot_bring_is_said_before_anything_runs():
    assert measuring.inputs_of(system(("policy",))) is measuring.PolicyInput
    with pytest.raises(CapabilityError, match="from Python"):
        measuring.inputs_of(system(("audio",)))


def test_transitions_that_a_system_makes_are_written_and_read_back_as_data(tmp_path):
    made = episodes_of(
        {
            "observation": torch.ones(3, 2),
            "action": torch.ones(3, 1),
            "reward": torch.ones(3),
            "next_observation": torch.ones(3, 2),
            "terminated": torch.zeros(3, dtype=torch.bool),
        }
    )

    def makes(subject, *, config):
        yield Stage("make", 0, 1)
        return Findings("made", {"made": 3}, transitions=made)

    writing = measuring.Writing(out=str(tmp_path / "found"))
    measuring.measure(system(("transitions",)), makes, Settings(), Three(), writing)
    inputs = measuring.EpisodesInput(data=str(tmp_path / "found" / "transitions.safetensors"))
    assert inputs.load().fingerprint == made.fingerprint
    assert measuring.inputs_of(system(("transitions",))) is measuring.EpisodesInput
