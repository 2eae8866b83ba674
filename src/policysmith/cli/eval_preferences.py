"""`eval` of a policy that learnt from preferences: how many held-out pairs it has the right way round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from policysmith.cli import look
from policysmith.cli.pages import run_page
from policysmith.cli.paired import COLUMNS, PAIRS, TITLE, pairs_row
from policysmith.cli.preferences import ComparedAnswers
from policysmith.common.config import config_from_json
from policysmith.common.saving import load_json
from policysmith.evaluation.preference_reports import share_right
from policysmith.evaluation.statistics import Interval, mean_interval
from policysmith.experience.outcomes import preference_rows
from policysmith.experience.preferences import Preferences
from policysmith.policies.language.models import open_policy
from policysmith.policies.protocol import load_policy
from policysmith.training.learners.preference import reference_log_prob
from policysmith.training.runs import RunDirectory


@dataclass(frozen=True)
class EvalPreferences(ComparedAnswers):
    """Count how many pairs a trained policy has the right way round, against the model it began with.

    The margin is how much further the policy has moved towards the chosen answer than towards the rejected
    one. With --reward, answers to the prompts are scored instead, before and after.
    """

    path: tyro.conf.Positional[str] = ""
    """run directory of a system that learns from preferences"""
    most: int = 1000
    """at most so many pairs"""
    json: bool = False
    """print JSON and nothing else"""

    def run(self) -> None:
        """Score, count, print, and keep the numbers with the run."""
        config = load_json(Path(self.path) / "config.json")
        inputs = self._inputs(config["inputs"])
        pairs = inputs.preferences().as_pairs()[: self.most]
        settings = config["settings"]
        ratio = self._ratios(pairs, config["inputs"]["model"], settings)
        margin = ratio[:, 0] - ratio[:, 1]
        ordered = (margin > 0).astype(float) + 0.5 * (margin == 0)
        measured = {
            "data": inputs.subject,
            "fingerprint": pairs.fingerprint,
            "pairs": len(pairs),
            "ordered": _plain(share_right(ordered)),
            **{
                name: _plain(mean_interval(values))
                for name, values in (
                    ("margin", margin),
                    ("chosen", ratio[:, 0]),
                    ("rejected", ratio[:, 1]),
                )
            },
        }
        PAIRS.add(Path(self.path), measured)
        run_page(RunDirectory.open(self.path))
        if self.json:
            look.print_json(measured)
            return
        look.table(COLUMNS, [pairs_row(measured)], title=TITLE)

    def _inputs(self, kept: Mapping[str, Any]) -> ComparedAnswers:
        if self.data:
            return ComparedAnswers(**{name: getattr(self, name) for name in _INPUTS})
        look.note("these are the pairs that the run was trained on; --data FILE measures held-out ones")
        inputs = config_from_json(ComparedAnswers, {name: kept[name] for name in _INPUTS})
        return replace(inputs, drop=inputs.drop or self.drop)

    def _ratios(self, pairs: Preferences, start: str, settings: Mapping[str, Any]) -> np.ndarray:
        """Log-ratios of the trained policy to the model it began with, [pair, 2]."""
        said = []
        for name, policy in (("before", open_policy(start)), ("trained", load_policy(self.path))):
            look.note(f"{name}: {len(pairs)} pairs")
            said.append(pair_log_prob(policy, pairs, settings))
        return said[1] - said[0]


def pair_log_prob(policy: Any, pairs: Preferences, settings: Mapping[str, Any]) -> np.ndarray:
    """The log-probabilities of both answers [pair, 2], read as a run with these settings reads them."""
    limit, system = settings.get("answer_limit") or None, settings.get("system", "")
    parts = [
        reference_log_prob(policy, preference_rows(policy, part, answer_limit=limit, system=system))
        for part in (pairs[i : i + 64] for i in range(0, len(pairs), 64))
    ]
    return torch.cat(parts).double().numpy()


_INPUTS = tuple(one.name for one in fields(ComparedAnswers))


def is_preference_run(config: Mapping[str, Any]) -> bool:
    """Whether a run with this configuration learnt from stored preferences."""
    return "rejected" in config.get("inputs", {})


def _plain(interval: Interval) -> dict[str, float]:
    low, high = (float(np.nan_to_num(end, posinf=1e9, neginf=-1e9)) for end in (interval.low, interval.high))
    return {"value": interval.value, "low": low, "high": high}
