"""CoPG: contrastive policy gradient, for any score of whole answers, from answers that are stored.

A preference hides how much better an answer is; a score from a reward model, unit tests or a rule says it.
CoPG learns from stored answers and their scores with no critic, no importance weights, no clipping and no
fresh samples: each answer's baseline is the regularised score of the other,

    loss = -[R_{beta/2}(y) - R_{beta/2}(y')] [h(y) - h(y')],    R_b = R - b h,    h = log pi/pi_ref

summed over every two of a prompt's answers and divided by one less than their number. Its minimum is the best
policy under the divergence penalty, pi_ref exp(R / beta), whoever wrote the answers. Scores of 1/4 and -1/4
make it `ipo`; on the policy's own answers it is a policy gradient with the leave-one-out baseline (`rloo`).

Reference: Flet-Berliac et al. 2024, Contrastive policy gradient: aligning LLMs on sequence-level scores in a
supervised-friendly fashion (2406.19185).
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError
from policysmith.experience.preferences import Preferences
from policysmith.objectives.contrastive import copg_loss
from policysmith.objectives.preferences import check_beta
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.preference import PreferenceLoss, PreferenceSettings, preference_run
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(PreferenceSettings):
    """Defaults of the paper (section 6): beta, learning rate, batch, with 10 % of the steps as warm-up.

    - `beta`: weight of the divergence, in units of the scores; 0.03 to 0.1 were good for its reward model.
    """

    steps: int = 1400
    batch_size: int = 128
    learning_rate: float = 1e-6
    warmup_steps: int = 140
    beta: float = 0.06

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta(self.beta)


PRESETS = {
    "paper": Config(),
    "bench": Config(steps=300, batch_size=32, learning_rate=1e-4, warmup_steps=30),
    "tiny": Config(steps=6, batch_size=2, learning_rate=1e-3, warmup_steps=0),
}
"""The paper's (two passes over its 92,820 pairs), a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    preferences: Preferences,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, trained in place) on answers with scores.

    The scores of a row are `data["scores"]`, or its labels where it has none: in any units, higher for
    better. Raises `DataError` naming a row whose scores are missing or not finite, and where no score differs
    from another.
    """
    check_row_scores(preferences)
    loss = contrastive(beta=config.beta)
    return preference_run(policy, preferences, loss=loss, settings=config, seed=seed, state=state)


def contrastive(*, beta: float) -> PreferenceLoss:
    """The loss of rows by their `score`, or by their `label` where they have none."""

    def loss(
        ratio: Float[Tensor, "row outcome"], batch: TensorDict
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        score = batch["score"] if "score" in batch.keys() else batch["label"]  # noqa: SIM118
        return copg_loss(ratio, score, batch["present"], beta=beta), {}

    return loss


def check_row_scores(preferences: Preferences) -> None:
    """Raise `DataError` where scores are missing, not finite or all the same; warn where some lack them."""
    having = [row for row in preferences if "scores" in row.data]
    if having and len(having) < len(preferences):
        warnings.warn(
            f"{len(preferences) - len(having)} of {len(preferences)} rows have no scores: "
            "all are learnt by their labels",
            stacklevel=3,
        )
    use = len(having) == len(preferences)
    differ = False
    for number, row in enumerate(preferences):
        scores = tuple(row.data["scores"]) if use else row.labels
        if len(scores) != len(row.answers) or not all(
            score is not None and math.isfinite(score) for score in scores
        ):
            raise DataError(
                f"scores {list(scores)} for {len(row.answers)} answers",
                where=f"row {number}: prompt {str(row.prompt.text)[:80]!r}",
                expected="a finite score for each",
            )
        differ = differ or max(scores) > min(scores)
    if not differ:
        raise DataError(
            "every answer has the score of the others to its prompt", expected="scores that differ somewhere"
        )
