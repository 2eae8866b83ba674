"""Training a classifier of success: once from examples, or beside the policy whose frames are its failures.

`success_learner` minimises the cross-entropy of equal halves of success and failure. `vice_learner` also
smooths the labels, mixes inputs, and holds the gradient of its logit near length one:

    L = cross-entropy of mixed features under mixed labels + 10 (|d logit / d features| - 1)^2

Whatever is random about a batch (mixing shares, partners, interpolates, shifts of pictures) is drawn where
the batch is made and is part of it.

Source: Luo et al. 2024 (SERL), section IV-B and its agents/continuous/vice.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.common.observations import Observation
from policysmith.common.rng import generator, global_randomness, seeded_initialisation
from policysmith.experience.episodes import Episodes
from policysmith.experience.replay import transitions_of
from policysmith.networks.vision import PictureEncoder, shifted
from policysmith.objectives.classification import (
    classification_loss,
    gradient_penalty,
    mixed,
    smoothed_label,
)
from policysmith.rewards.classifier import SuccessClassifier, paid_by
from policysmith.training.learner import Learner
from policysmith.training.loop import RunState

SMOOTHING, PENALTY = 0.2, 10.0
"""Of the labels, and how much the gradient penalty counts; SERL's values."""


def success_batch(
    success: Observation, failure: Observation, *, rows: int, pad: int = 4, rng: torch.Generator
) -> dict[str, Any]:
    """`rows` rows, half drawn from each, with `label` 1 or 0; pictures shifted.

    Raises `DataError` where there is nothing to draw from.
    """
    for name, frames in (("success", success), ("failure", failure)):
        if len(frames) == 0:
            raise DataError(f"there are no frames of {name}", expected="at least one of either")
    half = rows // 2
    chosen = [
        frames[torch.randint(len(frames), (count,), generator=rng)]
        for frames, count in ((success, half), (failure, rows - half))
    ]
    observation: Any = torch.cat(chosen)  # type: ignore[arg-type]
    label = torch.cat([torch.ones(half), torch.zeros(rows - half)])
    return {"observation": shifted(observation, pad=pad, rng=rng), "label": label}


def success_loss(classifier: SuccessClassifier, batch: Any) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
    """Cross-entropy per row, and whether the row is judged rightly."""
    logit, label = classifier.logit(batch["observation"]), batch["label"]
    right = ((logit >= 0) == (label > 0.5)).float()
    return classification_loss(logit, label), {"accuracy": right}


def success_learner(classifier: SuccessClassifier, *, learning_rate: float = 1e-4) -> Learner:
    """Adam on the classifier's weights under `success_loss`."""
    optimizer = torch.optim.Adam(classifier.parameters(), lr=learning_rate)
    return Learner(classifier, success_loss, optimizer=optimizer)


def fit_classifier(
    classifier: SuccessClassifier,
    success: Observation,
    failure: Observation,
    *,
    steps: int = 100,
    rows: int = 256,
    learning_rate: float = 1e-4,
    rng: torch.Generator,
) -> dict[str, float]:
    """Train in place on frames [row, ...] of success and of failure; returns the last batch's metrics.

    The state is brought to a common scale first. Defaults are SERL's. The classifier is left in eval mode.
    """
    seen: Any = [success, failure]
    classifier.fit_scale(torch.cat(seen))
    learner = success_learner(classifier, learning_rate=learning_rate)
    metrics: dict[str, float] = {}
    with global_randomness(rng):  # of the dropout
        for _ in range(steps):
            metrics = learner.step(_rows(success_batch(success, failure, rows=rows, rng=rng)))
    classifier.eval()
    return metrics


def vice_batch(
    goal: Observation, seen: Observation, *, rows: int, pad: int = 4, rng: torch.Generator
) -> dict[str, Any]:
    """Half goal frames, half frames that the policy saw, and all of them once more with pictures shifted.

    Beside `observation` and the smoothed `label` [row] there are `partner` [row] (indices into the rows), the
    share of mixup `mix` [row], one for all rows drawn from Beta(1, 1), and `interpolate` [row], where between
    a row and one of the other class the gradient is looked at. `rows`, an even number, is the size without
    the copies.
    """
    if rows < 2 or rows % 2:
        raise SettingError(f"a batch of {rows} rows for the classifier", expected="an even number")
    plain = success_batch(goal, seen, rows=rows, pad=0, rng=rng)
    copies = shifted(plain["observation"], pad=pad, rng=rng)
    observation: Any = torch.cat([plain["observation"], copies])  # type: ignore[list-item]
    count = 2 * rows
    return {
        "observation": observation,
        "label": smoothed_label(plain["label"].repeat(2), SMOOTHING),
        "partner": torch.randperm(count, generator=rng),
        "mix": torch.rand(1, generator=rng).expand(count).clone(),  # Beta(1, 1) is uniform
        "interpolate": torch.rand(count, generator=rng),
    }


def vice_loss(classifier: SuccessClassifier, batch: Any) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
    """Cross-entropy of the mixed features, and ten times the gradient penalty at interpolates of the classes.

    Rows depend on each other through `partner`, so that a batch must not be cut.
    """
    features = classifier.features(batch["observation"])
    label, share = batch["label"], batch["mix"]
    logit = classifier.of_features(mixed(features, features[batch["partner"]], share))
    loss = classification_loss(logit, mixed(label, label[batch["partner"]], share))
    # Rows come as (success, failure, success, failure): half a half on is a row of the other class.
    other = features.roll(len(features) // 4, dims=0)
    point = mixed(features, other, batch["interpolate"])
    if not point.requires_grad:
        point.requires_grad_()
    penalty = gradient_penalty(classifier.of_features(point), point)
    return loss + PENALTY * penalty, {"cross_entropy": loss, "gradient_penalty": penalty}


def vice_learner(classifier: SuccessClassifier, *, learning_rate: float = 3e-4) -> Learner:
    """Adam on the classifier's weights under `vice_loss`."""
    optimizer = torch.optim.Adam(classifier.parameters(), lr=learning_rate)
    return Learner(classifier, vice_loss, optimizer=optimizer)


def _rows(batch: dict[str, Any]) -> TensorDict:
    return TensorDict(batch, batch_size=[len(batch["label"])])


def success_frames(demonstrations: Episodes) -> tuple[Tensor, Tensor]:
    """What was seen after each step, where that was success and where it was not: [row, observation] each.

    Raises `DataError` where no step is marked as a success, or all are.
    """
    after = transitions_of(demonstrations)["next_observation"]
    success = demonstrations.steps["success"]
    if not success.any() or success.all():
        found = int(success.sum())
        raise DataError(
            f"{found} of {len(success)} demonstrated steps are marked as success",
            expected="some that are and some that are not, for a classifier to tell apart",
            cure="record them in an environment that says `success` in info, or set reward to environment",
        )
    return after[success], after[~success]


def demonstrated_classifier(
    demonstrations: Episodes | None, *, goes_on: bool, steps: int, learning_rate: float, seed: int
) -> SuccessClassifier:
    """A classifier of the demonstrations' frames of success against the others, trained for `steps`.

    One that `goes_on` being trained (VICE) is only brought to the scale of the frames. Raises `DataError`
    without demonstrations, and for those that `success_frames` refuses.
    """
    if demonstrations is None:
        raise DataError(
            "a classifier of success needs demonstrations to learn from",
            cure="give demonstrations, or set reward to environment",
        )
    success, failure = success_frames(demonstrations)
    with seeded_initialisation(seed):
        seen = demonstrations.pictures
        encoder = PictureEncoder(tuple(seen), tuple(seen.values())) if seen else None
        classifier = SuccessClassifier(demonstrations.observation_size, encoder=encoder)
    if goes_on:
        return classifier.fit_scale(torch.cat([success, failure])).eval()
    fit_classifier(
        classifier,
        success,
        failure,
        steps=steps,
        learning_rate=learning_rate,
        rng=generator(seed, "classifier"),
    )
    return classifier


def with_vice(
    arguments: Mapping[str, Any],
    classifier: SuccessClassifier,
    demonstrations: Episodes,
    *,
    every: int,
    rows: int,
    learning_rate: float,
    seed: int,
) -> dict[str, Any]:
    """What `off_policy_run` is given of `arguments`, with rewards by the classifier's present word.

    Every `every` steps it learns from about `rows` frames: the demonstrations' successes, and as failures
    what the run has seen.
    """
    goal, rng, store = success_frames(demonstrations)[0], generator(seed, "classifier"), arguments["store"]
    learner: Learner = vice_learner(classifier, learning_rate=learning_rate)

    def before_step(state: RunState) -> dict[str, float]:
        if state.step % every or not len(store):
            return {}
        seen = store.sample(rows, rng)["next_observation"]
        with global_randomness(rng):  # of the dropout
            found = learner.step(vice_batch(goal, seen, rows=max(2, rows - rows % 2), rng=rng))
        return {f"classifier/{name}": value for name, value in found.items()}

    return {
        "label": paid_by(classifier),
        "before_step": before_step,
        "learners": {**arguments["learners"], "classifier": learner},
        "generators": {**arguments["generators"], "classifier": rng},
    }
