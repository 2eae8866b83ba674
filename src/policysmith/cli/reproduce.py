"""`reproduce`: run a system's experiment and judge its claim."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from policysmith.cli import look
from policysmith.cli.pages import claim_page
from policysmith.common.cache import cache_folder
from policysmith.common.catalogue import find_system
from policysmith.common.errors import SettingError
from policysmith.evaluation import record

CLAIM_FAILS = 3
"""Exit code of an experiment that ran and whose claim fails."""


@dataclass(frozen=True)
class Reproduce:
    """Run a system's small-scale experiment: system and baseline under one budget, with intervals."""

    name: tyro.conf.Positional[str]
    seeds: int = 3
    """runs per arm"""
    evaluate: int | None = None
    """episodes (or questions) per run; by default the experiment's own number"""
    ablations: bool = False
    """run the experiment's ablations too"""
    out: str = ""
    """folder of the record and its page; by default runs/claim-NAME"""
    json: bool = False
    """print the record as JSON and nothing else"""

    def run(self) -> int:
        """Run it; exit code 3 where the claim fails."""
        if self.seeds < 1 or (self.evaluate is not None and self.evaluate < 1):
            raise SettingError("an experiment needs at least one run and one episode")
        experiment = find_system(self.name).load_claim()
        wanted = {} if self.evaluate is None else {"evaluate": self.evaluate}
        claim = look.watch(
            experiment.reproduce(
                seeds=list(range(self.seeds)), folder=cache_folder(), ablations=self.ablations, **wanted
            )
        )
        folder = Path(self.out or f"runs/claim-{claim.system}")
        record.save(claim, folder / f"{claim.system}.json")
        page = claim_page(folder, claim)
        if self.json:
            look.print_json(record.to_json(claim))
        else:
            _print(claim)
            look.results.print(f"record: {folder / claim.system}.json\npage: {page}", soft_wrap=True)
        return CLAIM_FAILS if claim.verdict == "fails" else 0


def _print(claim: record.Claim) -> None:
    metrics = list(dict.fromkeys(metric for arm in claim.arms for metric in arm.summary))
    look.table(
        ["arm", *metrics],
        [[arm.name, *(str(arm.summary.get(metric, "")) for metric in metrics)] for arm in claim.arms],
        title=claim.question,
    )
    look.results.print()
    look.table(
        ["comparison", "arm minus baseline", "claimed", "verdict"],
        [
            [one.name, str(one.difference), f"{one.direction} (margin {one.margin:g})", _styled(one.verdict)]
            for one in claim.comparisons
        ],
    )
    look.results.print(
        f"\nverdict: {_styled(claim.verdict)}  ({record.duration(claim.seconds)} of machine time)"
    )


def _styled(verdict: str) -> str:
    style = look.VERDICT[verdict]
    return f"[{style}]{verdict}[/{style}]"
