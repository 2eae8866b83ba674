"""The test that every system passes, ours and anybody's, in at most five seconds.

    from policysmith.evaluation.conformance import check_system
    def test_my_system(tmp_path):
        check_system("my-system", tmp_path)

A system that trains takes three steps at its `tiny` preset, is written to disk, read back in a fresh run and
must go on to the same numbers, bit for bit; its policy is saved, loaded and must play the same episodes. Any
other system is called twice at its `tiny` preset, and must find the same, as data that JSON can hold.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import torch

from policysmith.common.catalogue import ENTRY, find_system
from policysmith.common.config import config_from_json, config_to_json
from policysmith.common.saving import load_tree, save_tree
from policysmith.common.stages import result_of
from policysmith.evaluation.answers import answer
from policysmith.evaluation.findings import Findings
from policysmith.evaluation.rollouts import roll_out
from policysmith.experience.collect import record
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt, Prompts, from_rows
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder
from policysmith.policies.protocol import Policy, load_policy
from policysmith.rewards.verifiers import Verifier
from policysmith.synthesis.players import Players
from policysmith.synthesis.tools import calculator
from policysmith.training.loop import Progress
from policysmith.worlds import registry
from policysmith.worlds.point import PointExpert

ENVIRONMENT = "point-reach"
"""The small world in which systems that act are tried."""


def check_system(
    name: str,
    folder: Path,
    *,
    inputs: tuple[Any, ...] | None = None,
    make: Callable[[], gymnasium.Env] | None = None,
) -> None:
    """Raise `AssertionError` saying what the system called `name` does not keep; writes into `folder`.

    `inputs` are what its entry is called with; small standard ones by default, for what it takes. `make`
    makes the environment that a trained policy is tried in, where it is not the standard one.
    """
    system = find_system(name)
    module = system.load()
    entry = ENTRY[system.kind]
    assert callable(getattr(module, entry, None)), f"a {system.kind} has a public function `{entry}`"
    assert (module.__doc__ or "").strip(), "a system's module opens with what it is and where it is from"
    check_presets(module)
    inputs = standard_inputs(system.takes, folder) if inputs is None else inputs
    if entry == "train":
        check_training(module, inputs, folder, make)
    else:
        check_findings(getattr(module, entry), inputs, module.PRESETS["tiny"])


def check_presets(module: ModuleType) -> None:
    """The settings are frozen dataclasses, survive JSON, and come as `paper` and `tiny` at least."""
    presets = getattr(module, "PRESETS", {})
    assert {"paper", "tiny"} <= set(presets), (
        "PRESETS holds `paper` (the defaults) and `tiny` (a test's size)"
    )
    for name, settings in presets.items():
        assert dataclasses.is_dataclass(settings), f"preset '{name}' is a dataclass"
        assert type(settings).__dataclass_params__.frozen, f"preset '{name}' is frozen"  # type: ignore[attr-defined]
        again = config_from_json(type(settings), config_to_json(settings))
        assert again == settings, f"preset '{name}' comes back from JSON as it was"
    assert presets["paper"] == type(presets["paper"])(), "`paper` is what the settings default to"


def check_training(
    module: Any,
    inputs: tuple[Any, ...],
    folder: Path,
    make: Callable[[], gymnasium.Env] | None = None,
) -> None:
    """Three steps, to disk and back, the same numbers; the policy saved, loaded, the same episodes."""
    settings = module.PRESETS["tiny"]
    assert settings.steps >= 6, "the `tiny` preset takes six steps or more"
    whole = module.train(*inputs, config=settings, seed=1)
    third = list(itertools.islice(whole, 3))[-1]
    save_tree(folder / "state.safetensors", third.state.state_dict())
    uninterrupted = list(whole)
    saved = load_tree(folder / "state.safetensors")
    resumed = list(module.train(*inputs, config=settings, seed=1, state=saved))
    assert _numbers(resumed) == _numbers(uninterrupted), "a resumed run goes on to the same metrics"
    assert resumed[-1].step == resumed[-1].total == settings.steps, "a run takes the steps it is set"
    differing = _differences(resumed[-1].state.state_dict(), uninterrupted[-1].state.state_dict())
    assert not differing, f"a resumed run ends in the same state; not the same: {differing[:3]}"

    policy = resumed[-1].state.policy()
    policy.save_pretrained(folder / "policy")
    played, again = (_plays(one, make) for one in (policy, load_policy(folder / "policy")))
    assert played == again, "a saved policy plays the same episodes"


def check_findings(entry: Callable[..., Any], inputs: tuple[Any, ...], settings: Any) -> None:
    """Two calls find the same, and say it as data that JSON can hold."""
    first, second = (result_of(entry(*inputs, config=settings)) for _ in range(2))
    assert isinstance(first, Findings), "the entry is a generator of stages that returns `Findings`"
    assert first.summary, "the findings have a summary"
    said = [json.dumps(one.to_json(), sort_keys=True) for one in (first, second)]
    assert said[0] == said[1], "the same call finds the same"


def standard_inputs(takes: tuple[str, ...], folder: Path) -> tuple[Any, ...]:
    """Small inputs for a system by what it takes; `AssertionError` for a combination not yet provided for.

    Models are written into `folder`: each run of a check then starts from the same weights.
    """
    if set(takes) == {"environment"}:
        return (ENVIRONMENT,)
    recorded_steps = {"episodes", "transitions"}
    if recorded_steps & set(takes) and set(takes) <= {"environment", *recorded_steps}:
        recorded = Demonstrations(ENVIRONMENT, episodes=6, action_noise=0.1).record()
        return (Episodes.from_arrays(recorded),)
    if "episodes" in takes and set(takes) <= {"environment", "episodes", "goals"}:
        environment = registry.make(ENVIRONMENT, goal=True)
        recorded = record(environment, PointExpert(), episodes=6, seed=0, action_noise=0.1)
        return (Episodes.from_arrays(recorded),)
    if "policy" in takes and {"pairs", "rankings", "scores"} & set(takes):
        inputs = preference_inputs(folder, lists="rankings" in takes)
        return (*inputs, size_of_the_sum) if "reward" in takes else inputs
    if {"policy", "prompts"} < set(takes) <= {
        "policy", "prompts", "verifier", "reward", "answers", "images",
    }:  # fmt: skip
        return language_inputs(folder)
    if set(takes) == {"policy", "prompts", "model"}:
        return game_inputs(folder)
    raise AssertionError(f"no standard inputs for a system that takes {', '.join(takes)}")


def language_inputs(folder: Path) -> tuple[Path, Prompts, Verifier]:
    """A tiny model, sums with solutions and good answers, a verifier that it satisfies now and then."""
    model = folder / "model"
    small_decoder(0, width=32, layers=2, heads=2, context=256).save_pretrained(model)
    sums = [(a, b) for a in range(4) for b in range(4)]
    prompts = from_rows(
        {
            "prompt": f"{a}+{b}=",
            "answer": str(a + b),
            "solution": f"{a} and {b} make {a + b}",
            "chosen": str(a + b),
        }
        for a, b in sums
    )
    return model, prompts, lambda text, prompt: float(sum(map(ord, text)) % 2 == 0)


def size_of_the_sum(text: str, prompt: Prompt) -> float:
    """A reward of right answers that tells some pairs apart by more than others."""
    return float(prompt.answer) if text == prompt.answer else 0.0


def game_inputs(folder: Path) -> tuple[Path, Prompts, Players]:
    """A tiny model, sums, and a judge with a calculator that prefers early letters."""
    model, prompts, _ = language_inputs(folder)

    def judge(prompt: Any, candidates: Sequence[str], knowledge: Any, rubric: Any) -> list[float]:
        return [10 - sum(map(ord, text)) / len(text) / 13 for text in candidates]

    return model, prompts, Players(judge, tools={"calculator": calculator()})


def preference_inputs(folder: Path, *, lists: bool = False) -> tuple[Path, Preferences]:
    """A tiny model, and scored answers to sums: pairs of a right and a wrong one, or lists of three."""
    model, prompts, _ = language_inputs(folder)
    rows = []
    for prompt in prompts:
        right = int(prompt.answer)
        answers, scores = (str(right), str(right + 1), "none"), (1.0, 0.6, 0.0)
        count = 3 if lists else 2
        labels = scores if lists else (1.0, 0.0)
        rows.append(Preference(prompt, answers[:count], labels, {"scores": scores[:count]}))
    return model, Preferences(rows)


def _plays(policy: Policy | LanguagePolicy, make: Callable[[], gymnasium.Env] | None = None) -> list[Any]:
    if isinstance(policy, LanguagePolicy):
        said = answer(
            policy, from_rows([{"prompt": "1+1="}]), lambda *_: 0.0, sampling=Sampling(limit=8), copies=4
        )
        return [*said.texts, said.entropy]
    if make is None:
        goal = bool(policy.goal_size)
        make = partial(registry.make, ENVIRONMENT, goal=goal, pictures=policy.pictures)
    rollouts = roll_out(policy, make, seeds=[0, 1], seed=0, limit=10)
    assert np.isfinite(rollouts.returns).all(), "returns are finite"
    return [*rollouts.returns.tolist(), *rollouts.lengths.tolist(), *rollouts.network_calls.tolist()]


def _numbers(progress: list[Progress]) -> list[tuple[int, dict[str, float]]]:
    return [(now.step, now.metrics) for now in progress]


def _differences(a: Any, b: Any, place: str = "") -> list[str]:
    """The places where two trees differ."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [place]
    if isinstance(a, Mapping):
        return [d for key in a for d in _differences(a[key], b[key], f"{place}.{key}")]
    if isinstance(a, list | tuple):
        return [
            d for i, pair in enumerate(zip(a, b, strict=True)) for d in _differences(*pair, f"{place}.{i}")
        ]
    return [] if a == b else [place]
