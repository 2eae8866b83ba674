"""Token PPO as a system; its critic is tested with the stage it belongs to."""

from dataclasses import replace
from pathlib import Path

import pytest

from policysmith.common.errors import SettingError
from policysmith.evaluation.conformance import check_system, language_inputs
from policysmith.systems import token_ppo


def test_keeps_what_every_system_keeps(tmp_path: Path) -> None:
    check_system("token-ppo", tmp_path)


def test_the_paper_looks_at_the_divergence_and_the_bench_does_not(tmp_path: Path) -> None:
    tiny = token_ppo.PRESETS["tiny"]
    found = {
        kl: next(token_ppo.train(*language_inputs(tmp_path), config=replace(tiny, kl=kl), seed=0)).metrics
        for kl in (0.0, 0.5)
    }
    assert "kl" not in found[0.0]
    assert found[0.5]["kl"] == pytest.approx(0, abs=1e-4), "nothing has moved yet"


@pytest.mark.parametrize("wrong", [{"kl": -0.1}, {"clip": -0.1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="0 or more"):
        replace(token_ppo.Config(), **wrong)
