"""LiPO: preference learning as learning to rank a list of answers.

Where a prompt has several answers with graded labels psi, pairs throw away how much better one is than the
other and where both stand. Here the log-ratios of a list are the scores of a ranking, s = beta log pi/pi_ref,
and any ranking loss learns from it; with two answers the pairwise and list-wise ones are `dpo` and `slic`.
The paper's own weighs each pair by how much the ranking would gain if the two swapped where they now stand:

    sum over psi_i > psi_j of Delta_ij log(1 + exp(-(s_i - s_j))),
    Delta_ij = |2^psi_i - 2^psi_j| |1 / log2(1 + rank_i) - 1 / log2(1 + rank_j)|

with ranks by the scores of now, held constant. Ranks break ties by the order of the answers, and at the start
all scores are equal: so the answers of each list are shuffled first. The loss of a batch is the mean over its
terms: all pairs, all outcomes, or all lists. Lists whose labels all agree rank nothing and count nothing.

Reference: Liu et al. 2024, LiPO: listwise preference optimization through learning-to-rank (2402.01878).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args, get_type_hints

from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.lists import deduplicated, shuffled
from policysmith.experience.preferences import Preferences
from policysmith.objectives.preferences import check_beta
from policysmith.objectives.ranking import (
    LambdaWeights,
    lambda_loss,
    list_mle_loss,
    pair_hinge_loss,
    pair_logistic_loss,
    pair_terms,
    point_mse_loss,
    point_sigmoid_loss,
    softmax_loss,
)
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.preference import (
    PreferenceLoss,
    PreferenceSettings,
    RowWeight,
    preference_run,
)
from policysmith.training.loop import Progress, RunState

RECIPE_VERSION = 2

Kind = Literal["lambda", "pair-logistic", "pair-hinge", "list-mle", "softmax", "point-mse", "point-sigmoid"]

LOSSES: dict[str, Callable[..., Tensor]] = {
    "lambda": lambda_loss,
    "pair-logistic": pair_logistic_loss,
    "pair-hinge": pair_hinge_loss,
    "list-mle": list_mle_loss,
    "softmax": softmax_loss,
    "point-mse": point_mse_loss,
    "point-sigmoid": point_sigmoid_loss,
}
"""By name: sums per list (`objectives.ranking`)."""


@dataclass(frozen=True)
class Config(PreferenceSettings):
    """Defaults of the paper (section 5): beta, lists per batch and learning rate (of Adafactor there).

    - `kind`: the ranking loss. `beta`: of the scores; for `pair-hinge` it plays the margin's part.
    - `weights`: of `lambda`: `dcg`, or for comparison its difference of gains or of discounts alone (`gain`,
      `discount`), or none.
    - `scale_by_length`: of `lambda`: weights times the number of outcomes, as the authors' library has it.
    - `reduction`: `mean` over the terms of a batch, as that library has it, or `sum` per list, lists alike.
    - `deduplicate`: an answer that is in a list more than once counts once, with the mean of its labels.
    """

    batch_size: int = 32
    learning_rate: float = 2e-5
    beta: float = 0.05
    kind: Kind = "lambda"
    weights: LambdaWeights = "dcg"
    scale_by_length: bool = True
    reduction: Literal["mean", "sum"] = "mean"
    deduplicate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta(self.beta)
        for name in ("kind", "weights", "reduction"):
            words = get_args(get_type_hints(Config)[name])
            if getattr(self, name) not in words:
                raise SettingError(f"{name} is '{getattr(self, name)}'", expected=", ".join(words))


PRESETS = {
    "paper": Config(),
    "bench": Config(steps=200, learning_rate=1e-4, warmup_steps=10),
    "tiny": Config(steps=6, batch_size=2, learning_rate=1e-3),
}
"""The paper's, a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    preferences: Preferences,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, which is then trained in place) on lists of answers.

    Labels are from 0 to 1. Raises `DataError` naming a list with others, and for a batch in which no answer
    is labelled above another.
    """
    check_labels(preferences)
    lists = deduplicated(preferences) if config.deduplicate else preferences
    return preference_run(
        policy,
        shuffled(lists, seed=seed),
        loss=ranking(config),
        weight=terms_weight(config),
        settings=config,
        seed=seed,
        state=state,
    )


def ranking(config: Config) -> PreferenceLoss:
    """The ranking loss that the configuration names, of log-ratios."""
    loss = LOSSES[config.kind]
    if config.kind == "lambda":
        loss = partial(loss, weights=config.weights, scale_by_length=config.scale_by_length)

    def of_lists(
        ratio: Float[Tensor, "row outcome"], batch: TensorDict
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        return loss(config.beta * ratio, batch["label"], batch["present"]), {}

    return of_lists


def terms_weight(config: Config) -> RowWeight:
    """What each list counts: one over the terms of the batch, or over its lists; 0 where labels all agree.

    Raises `DataError` for a batch in which they do in every list.
    """

    def weight(batch: TensorDict) -> Float[Tensor, "row"]:
        label, present = batch["label"], batch["present"]
        pairs = pair_terms(label, present)
        told = pairs > 0
        if not bool(told.any()):
            raise DataError(
                "no preference pairs in a batch: no answer of its lists is labelled above another",
                where=f"preferences {batch['row_id'].tolist()[:10]}",
                cure="leave out lists whose labels are all equal",
            )
        if config.reduction == "sum" or config.kind in ("list-mle", "softmax"):
            terms = told
        else:
            terms = present.sum(1) * told if config.kind.startswith("point") else pairs
        return told.float() / terms.sum()

    return weight


def check_labels(preferences: Preferences) -> None:
    """Raise `DataError` naming the first list with a label outside [0, 1]."""
    for number, row in enumerate(preferences):
        if not all(0 <= label <= 1 for label in row.labels):
            raise DataError(
                f"labels {list(row.labels)}",
                where=f"row {number}: prompt {str(row.prompt.text)[:80]!r}",
                expected="from 0 to 1",
                cure="bring them there, such as (label - lowest) / (highest - lowest) over the data",
            )
