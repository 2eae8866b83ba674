"""`eval`: what is measured is printed, kept with the run, and shown on its page."""

import json

import numpy as np
import pytest

from policysmith.cli import evaluations
from policysmith.cli.main import main
from policysmith.evaluation.conformance import ENVIRONMENT
from policysmith.training.runs import RunDirectory


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLICYSMITH_CACHE", str(folder / "cache"))
        words = ["--preset", "tiny", "--env", ENVIRONMENT, "--episodes", "3", "--out", str(folder / "run")]
        assert main(["run", "sdp", *words]) == 0
    return folder / "run"


def evaluate(capsys, run, *words):
    capsys.readouterr()
    assert main(["eval", str(run), "--episodes", "2", *words]) == 0
    return capsys.readouterr().out


def test_ticks_that_would_be_late_are_told_at_the_usual_rates_and_the_loops_own(run, capsys):
    measured = json.loads(evaluate(capsys, run, "--json", "--rate", "1e6"))
    assert list(measured["missed_deadlines"]) == ["10 Hz", "30 Hz", "100 Hz", "1e+06 Hz"]
    assert measured["missed_deadlines"]["1e+06 Hz"] == 1.0  # nothing is done in a microsecond
    for what in ("ms_per_action", "ms_per_tick"):
        assert measured[what]["median"] <= measured[what]["p99"]


def test_a_person_sees_tail_and_late_ticks_beside_the_mean(run, capsys):
    lines = [line.split() for line in evaluate(capsys, run, "--rate", "7.5").splitlines()]
    assert ["environment", "per", "mean", "median", "p99"] in lines
    assert [line[:2] for line in lines if line[1:2] in (["action"], ["tick"])] == [
        [ENVIRONMENT, "action"],
        [ENVIRONMENT, "tick"],
    ]
    header = ["environment", "7.5", "Hz", "10", "Hz", "30", "Hz", "100", "Hz"]
    late = lines[lines.index(header) + 1]
    assert late[0] == ENVIRONMENT
    assert all(share.endswith("%") for share in late[1:])
    assert len(late) == 5


def test_measurements_are_kept_with_the_run_and_shown_on_its_page(run, capsys):
    evaluate(capsys, run)
    evaluate(capsys, run, "--spread")
    evaluate(capsys, run, "--spread")  # in place of the one before it
    kept = evaluations.EVALUATIONS.of(run)
    assert [entry["spread"] for entry in kept] == [False, True]
    assert all(len(entry["tick_ms"]) > 50 for entry in kept)
    page = (RunDirectory.open(run).path / "report.html").read_text(encoding="utf-8")
    assert f"{ENVIRONMENT}, calls spread" in page
    assert "Ticks of a control loop that would be late" in page
    assert "how many ticks waited so long" in page


def test_a_policy_of_its_own_is_measured_without_writing_beside_it(run, capsys):
    before = sorted((run / "policy").iterdir())
    evaluate(capsys, run / "policy", "--env", ENVIRONMENT)
    assert sorted((run / "policy").iterdir()) == before


def test_a_rate_that_is_none_is_refused(run, capsys):
    assert main(["eval", str(run), "--rate", "0"]) == 1
    assert "0.0 ticks per second" in capsys.readouterr().err


def test_times_are_summed_up_by_mean_median_and_tail():
    summary = evaluations.summary_of(np.arange(101.0))
    assert summary == {"mean": 50, "median": 50, "p99": 99}
