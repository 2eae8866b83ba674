"""Learning from preferences what is good: rewards by the margins of pairs, and models that compare.

    reward       loss(r(better) - r(worse))  over all pairs of a row, the mean over rows
    comparison   loss(+-z(first, second)),   the order of the two drawn anew each time

`loss` is any loss of a margin: the logistic one of Bradley and Terry, a bounded, a smoothed or a robust one.
What is scored need not be text: `outcome_run` takes any module that scores the outcomes of preference rows,
such as the sum of a reward over stretches of a robot's trajectory.

Sources: Christiano et al. 2017; Ouyang et al. 2022, section 3.5; Zheng et al. 2023 (PPO-max), section 4.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import DataError, SettingError
from policysmith.common.keys import require_keys
from policysmith.common.rng import generator
from policysmith.experience.outcomes import preference_rows
from policysmith.experience.passes import PassSampler
from policysmith.experience.preferences import Preferences
from policysmith.objectives.reward_models import bradley_terry_loss, mean_over_pairs, ordered_pairs
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.scalar import laid_out
from policysmith.rewards.preference_model import PreferenceModel
from policysmith.rewards.reward_model import RewardModel
from policysmith.training.learner import Loss
from policysmith.training.learners.supervised import SupervisedSettings, supervised_learner
from policysmith.training.loop import Progress, RunState, run, step_policy

PairLoss = Callable[[Float[Tensor, "pair"]], Float[Tensor, "pair"]]
"""From the margins of pairs, the better outcome's score less the worse one's, to a loss for each."""


@dataclass(frozen=True)
class RewardModelSettings(SupervisedSettings):
    """How preferences are learnt from; defaults of Zheng et al. for a model of 7 billion weights.

    - `language_weight`: what the cross-entropy of the best answer's tokens counts beside a row's loss, so
      that the body goes on being a language model. Zheng et al. write 1, their script has 0.
    - `answer_limit`: answers are cut behind so many tokens, as those that will be scored are; 0: not cut.
    """

    learning_rate: float = 5e-6
    language_weight: float = 0.0
    answer_limit: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.language_weight < math.inf:
            raise SettingError(f"language_weight is {self.language_weight}", expected="0 or more, and finite")
        if self.answer_limit < 0:
            raise SettingError(f"answer_limit is {self.answer_limit}", expected="0 or more")


def reward_model_run(
    model: RewardModel,
    preferences: Preferences,
    *,
    settings: RewardModelSettings,
    loss: PairLoss = bradley_terry_loss,
    seed: int,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Fit a reward model to preferences, in place; see `outcome_run`.

    Raises `DataError` naming the row whose answers do not fit the context, or are all the same once cut.
    """
    rows = preference_rows(
        model.policy,
        preferences,
        answer_limit=settings.answer_limit or None,
        system=model.settings["system"],
    )
    return outcome_run(
        model,
        rows,
        settings=settings,
        loss=outcome_loss(loss, language_weight=settings.language_weight),
        seed=seed,
        state=state,
    )


def outcome_run(
    module: nn.Module,
    rows: TensorDict,
    *,
    settings: SupervisedSettings,
    loss: Loss | None = None,
    seed: int,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Fit a module with `score_outcomes` to preference rows: `label`, `present` [row, outcome], and its own.

    Rows in which nothing is better than anything are left out; `DataError` where no other is there. The
    learner is called `policy`. Metrics are the loss, `accuracy` (the share of pairs that are the right way
    round, ties as half) and `margin`.
    """
    rows = in_order(rows)
    source = PassSampler(_Rows(rows), rng=generator(seed, "preferences"))
    run_state = RunState(
        learners={"policy": supervised_learner(module, settings, loss=loss or outcome_loss())},
        generators={"preferences": source.rng},
        sources={"preferences": source},
    ).restored(state)
    return run(
        run_state,
        collect=lambda state: rows[source.draw(settings.batch_size)],
        update=step_policy,
        steps=settings.steps,
    )


def preference_model_run(
    model: PreferenceModel,
    preferences: Preferences,
    *,
    settings: SupervisedSettings,
    loss: PairLoss = bradley_terry_loss,
    seed: int,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Fit a model that compares two answers, in place: every pair of every list, in either order.

    Metrics are those of `outcome_run`, the margin being that of the order that was drawn.
    """
    source = PassSampler(preferences.as_pairs(), rng=generator(seed, "preferences"))
    order = generator(seed, "order")
    run_state = RunState(
        learners={"policy": supervised_learner(model, settings, loss=partial(comparison_loss, loss=loss))},
        generators={"preferences": source.rng, "order": order},
        sources={"preferences": source},
    ).restored(state)

    def collect(state: RunState) -> TensorDict:
        drawn = source.sample(settings.batch_size)
        straight = torch.rand(len(drawn), generator=order) < 0.5
        texts = [
            pair.answers[:: 1 if way else -1] for pair, way in zip(drawn, straight.tolist(), strict=True)
        ]
        first, second = zip(*texts, strict=True)
        rows = model.rows([pair.prompt for pair in drawn], first, second)
        token, attended, mask = laid_out(model.policy, rows)
        batch = {"token": token, "attended": attended, "mask": mask, "label": straight.float()}
        return TensorDict(batch, batch_size=[len(drawn)]).to(model.policy.device)

    return run(run_state, collect=collect, update=step_policy, steps=settings.steps)


# ---- losses ------------------------------------------------------------------------------------------


def outcome_loss(loss: PairLoss = bradley_terry_loss, *, language_weight: float = 0.0) -> Loss:
    """`loss` of all pairs of a row, their mean; with a `language_weight` also of the best answer as text."""

    def of_rows(model: Any, batch: TensorDict) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        require_keys(batch, ["label", "present"], reader="learning from preferences")
        score = model.score_outcomes(batch)
        row, better, worse = ordered_pairs(batch["label"], batch["present"])
        margin = score[row, better] - score[row, worse]
        mean = partial(mean_over_pairs, row=row, rows=len(batch))
        values, statistics = mean(loss(margin)), _statistics(margin)
        if language_weight:
            values = values + language_weight * best_cross_entropy(model.policy, batch)
        return values, {name: mean(value) for name, value in statistics.items()}

    return of_rows


def comparison_loss(
    model: PreferenceModel, batch: TensorDict, *, loss: PairLoss = bradley_terry_loss
) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
    """`loss` of a model that compares; `label` [row] is 1 where the first answer is the better one."""
    logit = model.at_end(batch["token"], batch["attended"], mask=batch["mask"])
    margin = torch.where(batch["label"] > 0.5, logit, -logit)
    return loss(margin), _statistics(margin)


def best_cross_entropy(policy: LanguagePolicy, batch: TensorDict) -> Float[Tensor, "row"]:
    """Of each row's best answer (the first of equals) the mean over tokens of minus the log-probability."""
    best = batch["label"].masked_fill(~batch["present"], -torch.inf).argmax(1)
    row = torch.arange(len(best), device=best.device)
    token, attended, mask = (batch[key][row, best] for key in ("token", "attended", "mask"))
    log_prob, _ = policy.log_prob(token, attended, mask=mask)
    return -log_prob.sum(1) / mask.sum(1).clamp(min=1)


def _statistics(margin: Tensor) -> dict[str, Tensor]:
    margin = margin.detach()
    return {"accuracy": torch.sign(margin) / 2 + 0.5, "margin": margin}


# ---- rows --------------------------------------------------------------------------------------------


def in_order(rows: TensorDict) -> TensorDict:
    """The rows in which some outcome is better than another; `DataError` where there is none."""
    require_keys(rows, ["label", "present"], reader="learning from preferences")
    row, _, _ = ordered_pairs(rows["label"], rows["present"])
    if len(row) == 0:
        raise DataError(
            "in no row is one outcome better than another",
            where=f"{len(rows)} rows",
            expected="labels that differ",
        )
    return rows[row.unique()]


class _Rows:
    """Rows in memory, to be drawn from in passes."""

    def __init__(self, rows: TensorDict) -> None:
        self.rows = rows
        digest = hashlib.sha256()
        for key in sorted(rows.keys(True, True), key=str):
            value: Any = rows[key]
            digest.update(str(key).encode())
            digest.update(value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> TensorDict:
        return self.rows[index]
