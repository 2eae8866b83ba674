"""DNO: rounds of preferences among the policy's answers and a teacher's, by clear differences only.

Each round of direct Nash optimisation regresses the policy's log-ratio to itself, as it was at the round's
start, on how much more often an answer wins against that policy. Where the winners are clear this is `dpo`
with the last round as reference, and what matters is how pairs are made:

1. The policy writes `group_size` answers to each of the round's prompts, which no other round has; the
   teacher's answer (`data["teacher"]`, or the prompt's answer) stands beside them.
2. All are scored. A better answer has `floor` points at least, and `margin_teacher` more than the worse one
   where it is the teacher's, `margin_student` where it is the policy's own. Every such pair is learnt.
3. Pairs of earlier rounds come again in shares that halve; the reference is asked anew about all of them.
4. At most one pass, and the policy becomes the next round's reference.

`variant` restrictive keeps pairs that the teacher wins alone, spin takes the teacher's answer as better than
all others unseen. `online-dpo` has neither teacher nor rounds.

Reference: Rosset et al. 2024, Direct Nash optimization: teaching language models to self-improve with general
preferences (2404.03715).
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from tensordict import TensorDict

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.explanations import reciting
from policysmith.experience.outcomes import Build, in_groups, pair_rows
from policysmith.experience.pairing import teacher_pairs
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.experience.rollouts import Groups, Sampler
from policysmith.experience.world_prompts import check_answered
from policysmith.objectives.preferences import check_beta, dpo_loss
from policysmith.policies.language.models import open_policy
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples, in_order, join
from policysmith.rewards.scored import scored
from policysmith.training.learners.language_collect import as_scoring
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.learners.preference import on_pairs
from policysmith.training.learners.preference_rounds import preference_rounds, replayed
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the paper (section 5.1): answers, points, margins, shares, batch, eta; three rounds.

    - `eta`: weight of the divergence from the round's start. `round_steps`, `batch_size`: of a round.
    - `lowest`, `highest`: the range of the scores, which is checked. `floor`, `margin_teacher`,
      `margin_student`: what makes a pair, in points.
    - `shares`: of the pairs of this round, the last one, the one before.
    - `repeated`: an answer that says the same `repeated` words more than twice has the lowest score; 0: not.
    - `reference`: `round` for the policy at the round's start, `start` for the model as it was given.
    """

    steps: int = 2850
    prompts: int = 20_000
    group_size: int = 5
    temperature: float = 0.7
    top_p: float = 0.95
    learning_rate: float = 5e-5
    variant: Literal["dno", "restrictive", "spin"] = "dno"
    eta: float = 0.1
    round_steps: int = 950
    batch_size: int = 64
    lowest: float = 0.0
    highest: float = 6.0
    floor: float = 5.0
    margin_teacher: float = 2.0
    margin_student: float = 1.0
    shares: tuple[float, ...] = (1.0, 0.3, 0.15)
    repeated: int = 4
    reference: Literal["round", "start"] = "round"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.eta > 0:
            raise SettingError(f"eta is {self.eta}", expected="above 0")
        check_beta(self.eta)
        if not self.lowest < self.highest:
            raise SettingError(f"scores from {self.lowest} to {self.highest}", expected="a range")
        if min(self.margin_teacher, self.margin_student) < 0 or self.repeated < 0:
            raise SettingError("a margin or a number of words below 0", expected="0 or more")
        for name, words in (("variant", ("dno", "restrictive", "spin")), ("reference", ("round", "start"))):
            if getattr(self, name) not in words:
                raise SettingError(f"{name} is '{getattr(self, name)}'", expected=", ".join(words))
        if not self.shares or not all(0 <= share <= 1 for share in self.shares):
            raise SettingError(f"replay shares {list(self.shares)}", expected="one or more, each from 0 to 1")


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=500, answer_limit=48, temperature=1.0, top_p=1.0, steps=180, round_steps=60, batch_size=32,
        learning_rate=1e-4,
    ),
    "tiny": Config(
        prompts=5, group_size=3, answer_limit=4, steps=6, round_steps=2, batch_size=2, learning_rate=1e-3,
        lowest=0, highest=1, floor=1, margin_teacher=1, margin_student=1,
    ),
}  # fmt: skip
"""The paper's, a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, trained in place) in rounds beside a teacher.

    The reward gives points from `config.lowest` to `config.highest`. Raises `DataError` naming a prompt
    without a teacher's answer or a score outside the range, and where no prompt gives a pair. Warns where
    rounds share prompts.
    """
    check_answered(prompts, "a teacher answers the same prompts beside the policy")
    for prompt in prompts:
        teacher_answer(prompt)
    rounds = -(-config.steps // config.round_steps)
    if rounds * config.prompts > len(prompts):
        warnings.warn(
            f"{rounds} rounds of {config.prompts} prompts out of {len(prompts)}: rounds share prompts, which "
            "are learnt by heart sooner",
            stacklevel=2,
        )
    policy = policy if isinstance(policy, LanguagePolicy) else open_policy(policy)
    teacher = scored(reciting(policy, system=config.system, text_of=teacher_answer), as_scoring(reward))
    return preference_rounds(
        policy,
        prompts,
        reward,
        settings=config,
        wrap=lambda sampler, _: beside_teacher(sampler, teacher),
        build=building(config),
        loss=on_pairs(partial(dpo_loss, beta=config.eta)),
        round_steps=config.round_steps,
        batch_size=config.batch_size,
        passes=1,
        take_every=config.round_steps if config.reference == "round" else 0,
        mix=replayed(config.shares, pad=policy.tokenizer.pad_token_id),
        kept=len(config.shares),
        seed=seed,
        state=state,
    )


def teacher_answer(prompt: Prompt) -> str:
    """`data["teacher"]`, or the prompt's answer; `DataError` naming a prompt that has neither."""
    text = prompt.data.get("teacher") or prompt.answer
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            "a prompt has no answer of the teacher",
            where=f"prompt {str(prompt.text)[:80]!r}",
            cure="give it one in the column 'teacher' or 'answer'",
        )
    return text


def beside_teacher(sampler: Sampler, teacher: Sampler) -> Sampler:
    """The answers of `sampler` and one of the teacher in each group; `batch["teacher"]` tells which."""

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        own = sampler(groups, rng=rng, version=version, copies=copies)
        others = teacher(groups, rng=rng, version=version)
        own.batch["teacher"] = torch.zeros(len(own), dtype=torch.bool)
        others.batch["teacher"] = torch.ones(len(others), dtype=torch.bool)
        return in_order(join([own, others]))

    return sample


def building(config: Config) -> Build:
    """The pairs of a rollout, by points, floor and margins; counts each kind in the log."""

    def build(samples: Samples) -> TensorDict:
        scores, is_teacher = judged(samples, config), samples.batch["teacher"]
        pairs = []
        for rows in in_groups(samples).values():
            taught = is_teacher[rows].tolist()
            if config.variant == "spin":
                every = range(len(rows))
                found = [(i, j) for i in every for j in every if taught[i] and not taught[j]]
            else:
                found = teacher_pairs(
                    scores[rows],
                    taught,
                    floor=config.floor,
                    margin_teacher=config.margin_teacher,
                    margin_student=config.margin_student,
                    only_teacher=config.variant == "restrictive",
                )
            pairs += [
                (rows[i], rows[j]) for i, j in found if samples.texts[rows[i]] != samples.texts[rows[j]]
            ]
        sides = Counter((bool(is_teacher[i]), bool(is_teacher[j])) for i, j in pairs)
        kinds = {
            "teacher_wins": (True, False),
            "student_wins": (False, True),
            "among_students": (False, False),
        }
        for name, kind in kinds.items():
            samples.log(f"pairs/{name}", sides[kind])
        samples.log("own_score", scores[~is_teacher].mean())
        return pair_rows(samples, pairs)

    return build


def judged(samples: Samples, config: Config) -> torch.Tensor:
    """The points of each answer, the lowest for one that repeats itself; `DataError` for others' ranges."""
    scores = samples.batch["reward"].clone()
    outside = (scores < config.lowest) | (scores > config.highest)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise DataError(
            f"a score of {float(scores[row]):g}",
            where=f"prompt {str(samples.about[row].text)[:80]!r}, answer {samples.texts[row][:80]!r}",
            expected=f"{config.lowest:g} to {config.highest:g}",
            cure="set lowest and highest to the range of your reward",
        )
    for row, text in enumerate(samples.texts):
        if config.repeated and repeats(text, config.repeated):
            scores[row] = config.lowest
    return scores


def repeats(text: str, words: int) -> bool:
    """Whether the same so many words in a row stand in a text more than twice."""
    said = text.split()
    runs = Counter(tuple(said[i : i + words]) for i in range(len(said) - words + 1))
    return bool(runs) and max(runs.values()) > 2
