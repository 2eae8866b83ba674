"""GRPO as a system; its loss and its run are tested with the stages they belong to."""

from pathlib import Path

from policysmith.evaluation.conformance import check_system


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("grpo", tmp_path)
