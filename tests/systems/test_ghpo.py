from pathlib import Path
from policysmith.evaluation.conformance import check_system


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("ghpo", tmp_path)


def test_c(tmp_path: Path) -> None:
    check_system("critique-grpo", tmp_path)
