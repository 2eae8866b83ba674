"""`eval` of a language policy: it answers prompts, and its answers are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from policysmith.cli import look
from policysmith.cli.answers import ANSWERS, answers_table
from policysmith.cli.language import PromptInputs
from policysmith.cli.pages import run_page
from policysmith.common.config import config_from_json
from policysmith.common.saving import load_json
from policysmith.evaluation.answers import answer
from policysmith.evaluation.statistics import Interval, mean_interval, paired_difference
from policysmith.policies.language.models import MODELS, open_policy
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.protocol import load_policy
from policysmith.rewards.named import reward_named
from policysmith.training.runs import RunDirectory


@dataclass(frozen=True)
class EvalAnswers(PromptInputs):
    """Let a language policy answer prompts, and count how often it is right."""

    path: tyro.conf.Positional[str] = ""
    """run directory, a folder with a model, or one of `policysmith models list`"""
    answers: int = 1
    """answers per prompt"""
    limit: int = 0
    """most tokens of an answer; by default what the run was trained with, else 256"""
    temperature: float = -1.0
    """0 takes the likeliest token; by default what the run was trained with, else 1"""
    questions: int = 200
    """at most so many of the prompts"""
    before: bool = True
    """of a run, measure the model it began with too"""
    seed: int = 0
    """seed of the draws, the same for every policy that is measured"""
    json: bool = False
    """print JSON and nothing else"""

    def run(self) -> None:
        """Answer, count, print, and keep the numbers with the run, where the path is one's."""

        config = run_config(self.path)
        inputs = self._inputs(config.get("inputs", {}))
        prompts = inputs.prompts()[: self.questions]
        reward = reward_named(inputs.reward)
        settings = config.get("settings", {})
        sampling = Sampling(
            limit=self.limit or settings.get("answer_limit", 256),
            temperature=self.temperature if self.temperature >= 0 else settings.get("temperature", 1.0),
            stop=tuple(settings.get("stop", ())),
        )
        found = {}
        for name, load in policies_at(self.path, config, before=self.before).items():
            look.note(f"{name}: {len(prompts)} prompts, {self.answers} answers each")
            found[name] = answer(
                load(), prompts, reward, sampling=sampling, copies=self.answers, seed=self.seed,
                system=settings.get("system", ""),
            )  # fmt: skip
        measured: dict[str, Any] = {
            "prompts": f"{inputs.subject}, {len(prompts)}",
            "reward": inputs.reward,
            "fingerprint": prompts.fingerprint,
            "answers": self.answers,
            "temperature": sampling.temperature,
            "limit": sampling.limit,
            "policies": {
                name: {
                    "score": plain_interval(mean_interval(one.score.mean(1))),
                    "tokens": float(one.tokens.mean()),
                    "finished": float(one.finished.mean()),
                    "entropy": one.entropy,
                }
                for name, one in found.items()
            },
            "samples": [
                {
                    "prompt": _shown(prompts[i].text),
                    **{name: one.texts[i][0] for name, one in found.items()},
                    **{f"score of {name}": float(one.score[i, 0]) for name, one in found.items()},
                }
                for i in range(min(8, len(prompts)))
            ],
        }
        if len(found) == 2:
            difference = paired_difference(
                found["trained"].score.mean(1)[None], found["before"].score.mean(1)[None]
            )
            measured["difference"] = plain_interval(difference)
        if config:
            ANSWERS.add(Path(self.path), measured)
            run_page(RunDirectory.open(self.path))
        if self.json:
            look.print_json(measured)
            return
        columns, rows = answers_table(measured)
        look.table(columns, rows, title=f"{measured['prompts']} prompts, reward: {inputs.reward}")
        if "difference" in measured:
            look.results.print(f"difference: {Interval(**measured['difference'])}, paired over the prompts")

    def _inputs(self, kept: Mapping[str, Any]) -> PromptInputs:
        """The prompts that are asked for, or those of the run; of a task, questions not trained on."""
        if self.data or self.task or not kept:
            chosen = PromptInputs(**{name: getattr(self, name) for name in _INPUTS})
            unchanged = bool(kept.get("reward")) and self.reward == PromptInputs.reward
            return replace(chosen, reward=kept["reward"]) if unchanged else chosen
        if "rejected" in kept:
            look.note("these are the prompts that the run was trained on; --data FILE asks others")
            return PromptInputs(data=kept["data"], prompt=kept["prompt"], reward=self.reward)
        inputs = config_from_json(PromptInputs, {name: kept[name] for name in _INPUTS})
        if inputs.task:
            # Question i of the task is drawn from seed + i.
            return replace(inputs, data_seed=inputs.data_seed + inputs.size)
        look.note("these are the prompts that the run was trained on; --data FILE asks others")
        return inputs


_INPUTS = tuple(one.name for one in fields(PromptInputs))


def run_config(path: str) -> dict[str, Any]:
    """The configuration of the language run at `path`; empty where there is none."""
    place = Path(path)
    if not (place / "config.json").is_file() or not (place / "policy").is_dir():
        return {}
    config = load_json(place / "config.json")
    return config if "model" in config.get("inputs", {}) else {}


def policies_at(path: str, config: Mapping[str, Any], *, before: bool) -> dict[str, Callable[[], Any]]:
    """What loads the policy at `path`, and of a run with `config` the model it began with, if `before`."""
    known = path in MODELS and not Path(path).exists()
    name = "trained" if config else "model"
    policies = {name: lambda: open_policy(path) if known else load_policy(path)}
    if config and before:
        policies = {"before": lambda: open_policy(config["inputs"]["model"]), **policies}
    return policies


def is_language(path: str) -> bool:
    """Whether a language policy is at `path`: a run's, a model's folder, or a model's name."""
    place = Path(path)
    if path in MODELS and not place.exists():
        return True
    folder = place / "policy" if (place / "policy").is_dir() else place
    if (folder / "policy.json").is_file() or place.suffix == ".gguf":
        return True
    config = folder / "config.json"
    return config.is_file() and "model_type" in load_json(config)


def plain_interval(interval: Interval) -> dict[str, float]:
    """An interval as plain data."""
    low, high = (float(np.nan_to_num(end, posinf=1e9, neginf=-1e9)) for end in (interval.low, interval.high))
    return {"value": interval.value, "low": low, "high": high}


def _shown(text: Any) -> str:
    return text if isinstance(text, str) else "\n".join(turn["content"] for turn in text)
