"""How a diagnosis of a policy's instability is shown: numbers, tables, heat maps and the trace of a run.

`systems.unstable_directions` diagnoses; here what it found becomes `Findings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from policysmith.evaluation.direction_plots import heat_maps, largest_entries, traces
from policysmith.evaluation.findings import Findings, Table
from policysmith.objectives.directions import Direction, Reference, concentration, spectrum, variation

SHARE = 0.05
"""The share of an observation's places whose part of a direction is told."""
FEW = 3.0
"""A direction that changes no more than so many times the decisions that random ones do is doubtful."""


@dataclass(frozen=True)
class Moved:
    """States that were moved: what became of the direction, and of the decisions.

    `quotient` is by the reference asked for, `mirrored` by the other; `changed` is the share of decisions
    that are others, `distance` how far states moved on average (l2). The name "" is of states as they were.
    """

    name: str
    quotient: float
    mirrored: float
    changed: float
    distance: float


@dataclass(frozen=True)
class Probe:
    """The share of decisions that change by a step of `size` along the direction, and at random."""

    size: float
    along: float
    random: float


@dataclass(frozen=True)
class Diagnosis:
    """What was found of a policy.

    `direction` is of a state's shape, [height, width, plane] where it holds planes; `lengths` are |v(s)| of
    the first set of episodes, [step] each, `states` how many states there were in both sets; `independent`
    has the other set's states as they were, `moved` as they were moved.
    """

    direction: Direction
    lengths: Sequence[Float[Tensor, "step"]]
    states: int
    independent: Moved
    moved: Sequence[Moved]
    probes: Sequence[Probe]
    reference: Reference
    temperature: float


def instability_findings(found: Diagnosis) -> Findings:
    """The report of one policy."""
    together = torch.cat(list(found.lengths))
    vector = found.direction.vector
    smallest = min(found.probes, key=lambda probe: probe.size)
    summary: dict[str, float | int | str] = {
        "share of all instability along the direction": found.direction.explained,
        f"share of it in {SHARE:.0%} of the observation": concentration(vector, share=SHARE),
        "mean length of a state's direction": float(together.mean()),
        "its variation over time": variation(together),
        "quotient of an independent set": found.independent.quotient,
        "least quotient": min((one.quotient for one in found.moved), default=found.independent.quotient),
        f"decisions changed along it (step {smallest.size:g})": smallest.along,
        "decisions changed at random (same step)": smallest.random,
        "states": found.states,
    }
    names = ["shifted", "base"] if found.reference == "shifted" else ["base", "shifted"]
    rows = [
        [one.name or "as they were", one.quotient, one.mirrored, one.changed, one.distance]
        for one in (found.independent, *found.moved)
    ]
    tables = [
        Table(
            "How well the direction of one set serves on another, as it was and moved",
            ["states", *(f"quotient, {name}" for name in names), "decisions changed", "distance"],
            rows,
        ),
        Table(
            "Decisions changed by a step of all states",
            ["step", "along the direction", "at random"],
            [[one.size, one.along, one.random] for one in found.probes],
        ),
    ]
    return Findings(
        f"Unstable directions in {found.states} states",
        summary,
        tables=tables,
        figures=_figures(found),
        notices=_notices(found, together),
        data={
            "direction": vector.flatten().tolist(),
            "shape": list(vector.shape),
            "eigenvalue": found.direction.eigenvalue,
            "explained": found.direction.explained,
            "concentration": concentration(vector, share=SHARE),
            "mean_length": float(together.mean()),
            "variation": variation(together),
            "lengths": [one.tolist() for one in found.lengths],
            "reference": found.reference,
            "temperature": found.temperature,
            "independent": vars(found.independent),
            "moved": [vars(one) for one in found.moved],
            "probes": [vars(one) for one in found.probes],
        },
    )


def _figures(found: Diagnosis) -> list[tuple[str, Figure]]:
    vector = found.direction.vector
    longest = max(found.lengths, key=len)
    run = ("Instability over the longest episode", traces({"": longest.tolist()}))
    if vector.dim() != 3:
        return [("Where the policy is most easily upset: the largest entries", largest_entries(vector)), run]
    planes = {f"plane {number}": vector[..., number] for number in range(vector.shape[2])}
    waves = {f"plane {number}": spectrum(vector)[..., number] for number in range(vector.shape[2])}
    return [
        ("Where the policy is most easily upset, plane by plane", heat_maps(planes)),
        ("The same in frequencies, none in the middle", heat_maps(waves)),
        run,
    ]


def _notices(found: Diagnosis, lengths: Tensor) -> list[str]:
    notices = []
    doubtful = all(probe.along <= FEW * probe.random for probe in found.probes)
    if doubtful:
        notices.append(
            f"No step along the direction changes more than {FEW:g} times the decisions that random steps "
            "do: it says little of this policy."
        )
    if silent := int((lengths == 0).sum()):
        notices.append(
            f"In {silent} of {len(lengths)} states the softmax is saturated and there is no direction: a "
            "higher temperature shows them."
        )
    if found.independent.quotient < 0.5:
        notices.append(
            "Two independent sets agree on less than half: quotients of moved states mean little. More "
            "episodes make them agree, or `normalise`, where a few states have most of the length."
        )
    return notices
