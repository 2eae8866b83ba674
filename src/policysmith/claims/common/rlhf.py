"""The stages of learning from preferences, for experiments with reviews: each made once, and kept.

    supervised start  ->  its answers, compared or ranked by gold with noise  ->  reward model

A labeller prefers the first of two answers with probability sigmoid(scale (gold of it - gold of the other)),
and some labels of pairs are turned round besides, so that what is learnt from them is an imperfect reward.
Eight answers that are ranked say as much as 28 pairs and are read once each, so that reward models learn
from rankings. The start's words and sizes are the reward model's too.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Generator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from policysmith.claims.common.review_language import WORDS
from policysmith.claims.common.reviews import demonstrations, gold, gold_judge, prompts
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.errors import SettingError
from policysmith.common.rng import generator
from policysmith.common.saving import save_json, write_beside
from policysmith.common.stages import Stage
from policysmith.evaluation.answers import answer
from policysmith.experience.examples import Examples
from policysmith.experience.outcomes import preference_rows
from policysmith.experience.preferences import Preference, Preferences, flipped, preferences_from_dataset
from policysmith.policies.language.sampling import Sampling
from policysmith.rewards.reward_model import RewardModel, outcome_scores
from policysmith.training.learners.reward_models import RewardModelSettings, reward_model_run
from policysmith.training.learners.supervised import SupervisedSettings

ANSWER_LIMIT = 36
"""Tokens of an answer at most."""
SAMPLING = Sampling(limit=ANSWER_LIMIT, temperature=1.0)


def supervised_start(seed: int = 0, *, low: float = 0.3, steps: int = 1000) -> WarmStart:
    """A decoder of about 0.8 million weights that was shown reviews of qualities from `low` to 1."""
    return WarmStart(
        demonstrations(prompts(20_000, 3), 0, low=low),
        SupervisedSettings(steps=steps, batch_size=32, learning_rate=3e-3),
        seed=seed,
        context=64,
        words=WORDS,
        spread=0.088,
    )


def fine_tuned(
    seed: int, *, first: WarmStart | None = None, size: int = 2000, low: float = 0.6, steps: int = 150
) -> WarmStart:
    """The supervised start (or `first`) taught on by reviews of qualities from `low` to 1.

    Each seed is shown four fifths of the same `size` reviews, others than another seed, in another order.
    """
    shown = demonstrations(prompts(size, 17), 0, low=low)
    part = torch.randperm(size, generator=generator(seed, "part"))[: size * 4 // 5].sort().values
    first = first or supervised_start()
    return replace(
        first,
        examples=Examples([shown[i] for i in part.tolist()]),
        settings=SupervisedSettings(steps=steps, batch_size=32, learning_rate=1e-3),
        seed=seed,
        first=first,
    )


@dataclass(frozen=True)
class Lists:
    """Lists of a start's answers with their gold rewards, as labels and as `data["scores"]`.

    - `size`: prompts, `answers` to each; lists whose answers are all the same are left out.
    - `held_out`: of prompts that are asked in no training.
    """

    start: WarmStart
    size: int = 600
    answers: int = 8
    seed: int = 0
    held_out: bool = False

    def __post_init__(self) -> None:
        if self.size < 1 or self.answers < 2:
            raise SettingError(
                f"{self.size} lists of {self.answers} answers", expected="1 or more of 2 or more"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the lists."""
        return {**_own(self, but="start"), "start": self.start.identity, "sampling": asdict(SAMPLING)}

    def path(self, folder: Path) -> Path:
        """Their file in the cache `folder`."""
        return folder / "preferences" / f"{_key(self.identity)}.jsonl"

    def make(self, folder: Path) -> Generator[Stage, None, Preferences]:
        """The lists, sampled and kept in `folder` where they are not there yet."""
        if not self.path(folder).is_file():
            policy = yield from self.start.make(folder)
            yield Stage("sample answers", 0, 1)
            asked = prompts(self.size, 11 + self.seed, held_out=self.held_out)
            found = answer(policy, asked, gold, sampling=SAMPLING, copies=self.answers, seed=self.seed)
            rows = []
            for prompt, texts, scores in zip(asked, found.texts, found.score.tolist(), strict=True):
                scored = tuple(scores)
                rows.append(Preference(prompt, tuple(texts), scored, {"scores": scored}))
            with warnings.catch_warnings():  # the same answer twice is what a policy may say
                warnings.simplefilter("ignore")
                Preferences(rows, provenance={"start": _key(self.start.identity)}, drop=True).save(
                    self.path(folder)
                )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return preferences_from_dataset(str(self.path(folder)))


@dataclass(frozen=True)
class Pairs:
    """Pairs of a start's answers, the one first that a noisy labeller prefers; `data["scores"]` are gold.

    - `scale`: how sharply the labeller sees gold's differences (Bradley and Terry); `flip_rate`: the share of
      labels that are turned round besides.
    """

    start: WarmStart
    size: int = 3000
    scale: float = 5.0
    flip_rate: float = 0.1
    seed: int = 0
    held_out: bool = False

    def __post_init__(self) -> None:
        if not self.scale > 0 or not 0 <= self.flip_rate < 0.5:
            raise SettingError(
                f"a scale of {self.scale}, {self.flip_rate} flipped", expected="above 0; in [0, 0.5)"
            )

    @property
    def lists(self) -> Lists:
        """The answers, two to a prompt, before anybody has said which is better."""
        return Lists(self.start, self.size, 2, self.seed, self.held_out)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the pairs."""
        return {**_own(self, but="start"), "lists": self.lists.identity}

    def make(self, folder: Path) -> Generator[Stage, None, Preferences]:
        """The pairs; their answers are kept in `folder`, their labels drawn again, the same each time."""
        lists = yield from self.lists.make(folder)
        first, second = zip(*(row.answers for row in lists), strict=True)
        chance = torch.tensor(gold_judge(self.scale)(lists.prompts, first, second))
        straight = (torch.rand(len(lists), generator=generator(self.seed, "labels")) < chance).tolist()
        rows = []
        for row, way in zip(lists, straight, strict=True):
            step = 1 if way else -1
            scores = tuple(row.data["scores"])[::step]
            rows.append(Preference(row.prompt, row.answers[::step], data={"scores": scores}))
        pairs = Preferences(rows, provenance=lists.provenance)
        return flipped(pairs, self.flip_rate, seed=self.seed) if self.flip_rate else pairs


@dataclass(frozen=True)
class Rankings:
    """Lists of a start's answers, ranked by a noisy labeller: a label is the place from below, from 0 on.

    The labeller adds noise of Gumbel's distribution to `scale` times gold and sorts, so that it prefers one
    of any two answers with the probability of `Pairs` (Plackett and Luce). `data["scores"]` are gold.
    """

    start: WarmStart
    size: int = 800
    answers: int = 8
    scale: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise SettingError(f"a scale of {self.scale}", expected="above 0")

    @property
    def lists(self) -> Lists:
        """The answers before they are ranked."""
        return Lists(self.start, self.size, self.answers, self.seed)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the rankings."""
        return {**_own(self, but="start"), "lists": self.lists.identity}

    def make(self, folder: Path) -> Generator[Stage, None, Preferences]:
        """The rankings; their answers are kept in `folder`, their ranks drawn again, the same each time."""
        lists = yield from self.lists.make(folder)
        rng = generator(self.seed, "ranks")
        rows = []
        for row in lists:
            uniform = torch.rand(len(row.answers), generator=rng, dtype=torch.float64)
            seen = self.scale * torch.tensor(row.data["scores"]).double() - (-uniform.log()).log()
            rows.append(replace(row, labels=tuple(map(float, seen.argsort().argsort().tolist()))))
        with warnings.catch_warnings():  # the same answer twice is what a policy may say
            warnings.simplefilter("ignore")
            return Preferences(rows, provenance=lists.provenance)


def misordered(pairs: Preferences) -> float:
    """The share of pairs whose answers differ in gold in which the worse one stands first."""
    gaps = [better - worse for better, worse in (row.data["scores"] for row in pairs)]
    told = [gap for gap in gaps if gap != 0]
    return sum(gap < 0 for gap in told) / len(told) if told else 0.0


class ComparedAnswers(Protocol):
    """How answers of a start come to be compared, such as `Pairs` and `Rankings`."""

    @property
    def start(self) -> WarmStart:
        """Who answers."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the preferences."""
        ...

    def make(self, folder: Path) -> Generator[Stage, None, Preferences]:
        """The preferences."""
        ...


@dataclass(frozen=True)
class Proxy:
    """A reward model that begins as the start and learns how its answers were compared; the proxy of gold."""

    compared: ComparedAnswers
    settings: RewardModelSettings = field(
        default_factory=lambda: RewardModelSettings(
            steps=300,
            batch_size=8,
            learning_rate=1e-3,
            warmup_steps=10,
            language_weight=0.1,
            answer_limit=ANSWER_LIMIT,
        )
    )
    seed: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the reward model."""
        return {"compared": self.compared.identity, "settings": asdict(self.settings), "seed": self.seed}

    @property
    def name(self) -> str:
        """Tells it from other rewards where runs and measurements are kept."""
        return f"proxy {_key(self.identity)}"

    def path(self, folder: Path) -> Path:
        """Its folder in the cache `folder`."""
        return folder / "reward-models" / _key(self.identity)

    def make(self, folder: Path) -> Generator[Stage, None, RewardModel]:
        """The reward model, trained and kept in `folder` where it is not there yet."""
        path = self.path(folder)
        if not (path.with_suffix(".json")).is_file():
            compared = yield from self.compared.make(folder)
            policy = yield from self.compared.start.make(folder)
            model = RewardModel(policy)
            for now in reward_model_run(model, compared, settings=self.settings, seed=self.seed):
                yield Stage("reward model", now.step, now.total, now.metrics["loss"])
            model.eval()
            model.save_pretrained(path)
            with write_beside(path.with_suffix(".json")) as temporary:
                save_json(temporary, self.identity)
        return RewardModel.from_pretrained(path)


def proxy_accuracy(model: RewardModel, pairs: Preferences) -> float:
    """The share of pairs that the model ranks as gold does, among those whose answers differ in gold."""
    rows = preference_rows(model.policy, pairs, answer_limit=ANSWER_LIMIT)
    score = outcome_scores(model, rows)
    margin = score[:, 0] - score[:, 1]
    gap = torch.tensor([row.data["scores"][0] - row.data["scores"][1] for row in pairs])
    told = gap != 0
    agree = torch.sign(margin[told]) * torch.sign(gap[told])
    return float((agree / 2 + 0.5).mean())


def _own(recipe: Any, *, but: str) -> dict[str, Any]:
    return {name: value for name, value in vars(recipe).items() if name != but}


def _key(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
