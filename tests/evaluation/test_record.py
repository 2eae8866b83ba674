import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policysmith.common.errors import DataError, FileError
from policysmith.evaluation.record import (
    Arm,
    Claim,
    Comparison,
    Run,
    build_claim,
    duration,
    from_json,
    load,
    machine_facts,
    markdown,
    overall,
    save,
    summarise,
    to_json,
)
from policysmith.evaluation.statistics import Interval

VERDICTS = st.lists(st.sampled_from(["holds", "fails", "undecided"]))


def arm(name: str, *values: float) -> Arm:
    runs = [Run(seed, {"success": value}) for seed, value in enumerate(values)]
    return Arm(name, {"chunks": 3}, runs, summarise(runs))


def comparison(low: float = -0.05, high: float = 0.03) -> Comparison:
    difference = Interval((low + high) / 2, low, high)
    return Comparison("preserved", "SDP", "DP", "success", difference, 0.1, "not_lower")


def claim(**changes) -> Claim:
    parts = {
        "system": "sdp",
        "title": "Streaming Diffusion Policy",
        "paper_claim": "as good, and faster",
        "question": "is success preserved?",
        "arms": [arm("DP", 0.8, 0.9, 0.85), arm("SDP", 0.8, 0.88, 0.84)],
        "comparisons": [comparison()],
        "verdict": "holds",
        "reason": "the interval excludes a loss of 10 points",
        "seeds": [0, 1, 2],
        "settings": {"steps": 1500, "lr": 1e-4},
        "machine": {"cpu": "a | b", "cores": 2, "threads": 1, "torch": "2.5", "python": "3.11"},
        "seconds": 754.2,
        "recipe_version": 1,
        "commit": "0123456789abcdef",
        "library_version": "0.1.0",
        "date": "2025-03-01",
    }
    return Claim(**(parts | changes))


# ---- verdicts ----------------------------------------------------------------------------------------


def test_a_comparisons_verdict_comes_from_its_interval():
    assert comparison(-0.05, 0.03).verdict == "holds"
    assert comparison(-0.15, 0.03).verdict == "undecided"
    assert comparison(-0.30, -0.2).verdict == "fails"


def test_overall_fails_if_any_fails_and_holds_only_if_all_hold():
    assert overall(["holds", "holds"]) == "holds"
    assert overall(["holds", "undecided"]) == "undecided"
    assert overall(["undecided", "fails", "holds"]) == "fails"
    assert overall([]) == "undecided"


@given(VERDICTS, st.randoms())
def test_overall_ignores_the_order(verdicts, random):
    shuffled = list(verdicts)
    random.shuffle(shuffled)
    assert overall(verdicts) == overall(shuffled)


@pytest.mark.parametrize("verdict", ["holds", "fails"])
def test_a_claim_says_no_more_than_its_comparisons(verdict):
    open_question = comparison(-0.15, 0.03)
    with pytest.raises(DataError, match="undecided"):
        claim(comparisons=[open_question], verdict=verdict)
    assert claim(comparisons=[open_question], verdict="undecided").verdict == "undecided"


def test_a_claim_may_be_more_careful_than_its_comparisons():
    assert claim(verdict="undecided", reason="the baseline did not learn").verdict == "undecided"


# ---- JSON --------------------------------------------------------------------------------------------


def test_a_record_read_back_is_the_one_written(tmp_path):
    save(claim(), tmp_path / "sdp.json")
    assert load(tmp_path / "sdp.json") == claim()


def test_the_json_is_as_the_schema_says():
    plain = to_json(claim())
    assert plain["schema_version"] == 1
    assert plain["arms"][0]["runs"][1] == {"seed": 1, "metrics": {"success": 0.9}}
    assert set(plain["arms"][0]["summary"]["success"]) == {"value", "low", "high", "level"}
    assert plain["comparisons"][0]["verdict"] == "holds"
    json.dumps(plain, allow_nan=False)


def test_an_unbounded_interval_is_written_as_null(tmp_path):
    alone = claim(arms=[arm("DP", 0.8), arm("SDP", 0.9)])
    save(alone, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["arms"][0]["summary"]["success"]["low"] is None
    assert load(tmp_path / "a.json").arms[0].summary["success"] == Interval(0.8, -math.inf, math.inf)


def change(plain: dict, path: str, value: object) -> dict:
    plain = json.loads(json.dumps(plain))
    *steps, last = path.split(".")
    place = plain
    for step in steps:
        place = place[int(step) if step.isdigit() else step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return plain


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", 2, "schema version 2"),
        ("reason", None, "missing: reason"),
        ("author", "x", "not part of the schema: author"),
        ("seconds", "long", "where: seconds"),
        ("seeds", 3, "a list"),
        ("arms.1.runs.0.seed", True, r"arms\[1\]\.runs\[0\]\.seed"),
        ("arms.0.runs.0.metrics.success", "high", r"arms\[0\]\.runs\[0\]\.success"),
        ("arms.0.summary.success.low", 2.0, "above its high end"),
        ("comparisons.0.margin", "0.1", r"comparisons\[0\]\.margin"),
        ("comparisons.0.verdict", "fails", r"'holds', which the difference"),
        ("comparisons.0.direction", "up", "not_lower"),
        ("comparisons.0.arm", "SAC", "no arm 'SAC'"),
        ("verdict", "true", "holds, fails, undecided"),
        ("date", "yesterday", "YYYY-MM-DD"),
    ],
)
def test_a_damaged_record_is_refused_with_its_place(path, value, message):
    with pytest.raises(ValueError, match=message):
        from_json(change(to_json(claim()), path, value))


def test_a_file_that_does_not_fit_is_named(tmp_path):
    path = tmp_path / "sdp.json"
    path.write_text(json.dumps(change(to_json(claim()), "reason", None)))
    with pytest.raises(DataError, match=r"sdp\.json"):
        load(path)
    path.write_text("{")
    with pytest.raises(FileError, match="complete JSON"):
        load(path)
    with pytest.raises(FileError, match="no file"):
        load(tmp_path / "none.json")


# ---- what contradicts itself -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": []}, "at least one arm"),
        ({"arms": [arm("DP", 0.8), arm("DP", 0.8)]}, "its own name"),
        ({"seeds": [0, 1]}, "arm 'DP', seed 2"),
        ({"comparisons": [replace(comparison(), metric="reward")]}, "no summary of 'reward'"),
        ({"machine": {"cpu": "x"}}, "cores, threads, torch, python"),
        ({"seconds": -1.0}, "seconds is -1"),
        ({"settings": {"lr": math.nan}}, "settings"),
        ({"settings": {"policy": object()}}, "cannot be written"),
    ],
)
def test_a_claim_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        claim(**changes)


def test_a_metric_that_is_not_finite_is_refused():
    bad = Arm("DP", {}, [Run(0, {"success": math.nan})], {})
    with pytest.raises(DataError, match="arm 'DP', seed 0"):
        claim(arms=[bad], comparisons=[])


# ---- parts -------------------------------------------------------------------------------------------


def test_the_summary_is_each_metrics_mean_over_runs():
    runs = [Run(0, {"success": 0.5, "ms": 10.0}), Run(1, {"success": 0.7, "ms": 14.0})]
    summary = summarise(runs)
    assert (summary["success"].value, summary["ms"].value) == pytest.approx((0.6, 12.0))
    with pytest.raises(DataError, match="seed 1"):
        summarise([runs[0], Run(1, {"success": 0.7})])


def test_building_a_claim_fills_in_what_is_known():
    made = build_claim(
        "sdp",
        paper_claim="c",
        question="q",
        arms=[arm("DP", 0.8), arm("SDP", 0.9)],
        comparisons=[comparison(), comparison(-0.15, 0.03)],
        seeds=[0],
        settings={},
        seconds=1.0,
        recipe_version=1,
    )
    assert made.verdict == "undecided"
    assert "preserved: -0.06 [-0.15, 0.03], undecided" in made.reason
    assert made.title
    assert from_json(to_json(made)) == made


def test_machine_facts_are_enough_for_a_claim():
    facts = machine_facts()
    assert claim(machine=facts).machine["cores"] >= 1
    assert facts["cpu"]


def test_durations_are_in_a_persons_units():
    assert [duration(s) for s in (5, 89.6, 754, 3900)] == ["5 s", "90 s", "13 min", "1 h 05 min"]


def test_the_page_shows_arms_comparisons_settings_and_verdict():
    text = markdown(claim())
    assert text.startswith("## Streaming Diffusion Policy\n\n**Holds.** the interval")
    assert "| DP | 3 | 0.85 [0.73, 0.97] |" in text
    assert "| preserved | success | -0.01 [-0.05, 0.03] | at most 0.1 lower | holds |" in text
    assert '"steps": 1500' in text
    assert "13 min on a \\| b (1 of 2 cores); seeds 0, 1, 2" in text


def test_text_cannot_break_the_page():
    text = markdown(claim(reason="a | b\n\n# c <script>", arms=[arm("x | <b>", 0.5)], comparisons=[]))
    assert "a \\| b # c &lt;script>" in text
    assert "| x \\| &lt;b> | 1 | 0.5 (no interval) |" in text
