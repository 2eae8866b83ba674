"""Preference learning on what the policy writes: rounds of sampling, labelling and learning.

    collect   at a round's start: prompts -> answers -> rewards or judges -> rows of outcomes -> reference
              at every step: some of the round's rows
    update    steps on the loss of the rows' log-ratios

Rounds of one step with a reference that stays are online preference learning; long rounds whose reference is
the policy at their start are its iterated, batched form; a round without end is offline.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from tensordict import TensorDict

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import generator
from policysmith.experience.outcomes import Build, padded_together
from policysmith.experience.prompts import Prompts, PromptSampler
from policysmith.experience.rollouts import Sampler
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.language import opened
from policysmith.training.learners.language_collect import shown, usual_sampler
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.learners.language_update import adam_learner, logged, optimiser_batches
from policysmith.training.learners.preference import PreferenceLoss, over_outcomes, reference_log_prob
from policysmith.training.learners.references import MovableReference
from policysmith.training.loop import Progress, RunState, Stateful, run

Mix = Callable[[Sequence[TensorDict], torch.Generator], TensorDict]
"""The rows of the last rounds, the newest last -> the rows that this round learns from."""


def newest(rounds: Sequence[TensorDict], rng: torch.Generator) -> TensorDict:
    """The usual mix: the rows of this round alone."""
    return rounds[-1]


class RoundRows:
    """The rows that a round learns from, in random order, and those of earlier rounds; saved with the run."""

    def __init__(self, *, kept: int) -> None:
        self.kept = kept
        self.rounds: list[TensorDict] = []
        self.rows: TensorDict | None = None
        self._order = torch.zeros(0, dtype=torch.long)

    def begin(self, fresh: TensorDict) -> None:
        """A round with `fresh` rows has begun."""
        self.rounds = [*self.rounds, fresh][-self.kept :]

    def learn_from(self, rows: TensorDict) -> None:
        """Draw from these rows from here on."""
        self.rows, self._order = rows, torch.zeros(0, dtype=torch.long)

    def draw(self, count: int, rng: torch.Generator) -> TensorDict:
        """`count` rows, each once per pass, or all of them for 0; at most as many as there are."""
        assert self.rows is not None
        if count == 0 or count >= len(self.rows):
            return self.rows.clone(recurse=False)
        if len(self._order) < count:
            self._order = torch.cat([self._order, torch.randperm(len(self.rows), generator=rng)])
        chosen, self._order = self._order[:count], self._order[count:]
        return self.rows[chosen]

    def state_dict(self) -> dict[str, Any]:
        """All rows, and what is left of the pass."""
        return {
            "rounds": [one.to_dict() for one in self.rounds],
            "rows": {} if self.rows is None else self.rows.to_dict(),
            "order": self._order,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a round."""
        self.rounds = [_rows(one) for one in state["rounds"]]
        self.rows = _rows(state["rows"]) if state["rows"] else None
        self._order = state["order"]


def preference_rounds(
    model: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward | None,
    *,
    settings: LanguageSettings,
    build: Build,
    loss: PreferenceLoss,
    round_steps: int = 1,
    batch_size: int = 0,
    passes: int = 0,
    take_every: int = 0,
    writer: Literal["policy", "reference"] = "policy",
    wrap: Callable[[Sampler, LanguagePolicy], Sampler] = lambda sampler, policy: sampler,
    mix: Mix = newest,
    kept: int = 1,
    sources: Mapping[str, Stateful] = MappingProxyType({}),
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model on preferences among its own answers.

    - `settings`: a round asks `prompts` prompts for `group_size` answers each, a step has `optimizer_steps`.
    - `reward`: of an answer alone; None where `build` asks a judge or `wrap` brings its own.
    - `build`: answers -> rows of outcomes (`experience.outcomes`); prompts that give none are passed over.
    - `round_steps`: steps on the rows of a round, `batch_size` rows each (0: all of them), fewer where the
      rows would otherwise be seen more than `passes` times (0: as often as it takes).
    - `take_every`: after so many steps the policy becomes the reference; 0: the start stays it.
    - `writer`: who writes the answers. `wrap` makes the method's sampler of the usual one.
    - `mix`: what a round learns from, of the rows of the last `kept` rounds; the reference is asked anew
      about all of them.

    Raises `DataError` where no prompt of `settings.rounds` rollouts gives a row.
    """
    if round_steps < 1 or batch_size < 0 or take_every < 0 or kept < 1:
        raise SettingError(
            f"rounds of {round_steps} steps, batches of {batch_size}, the reference every {take_every} steps",
            expected="rounds of 1 step or more, the others 0 or more",
        )
    policy = opened(model, settings, seed=seed)
    reference = MovableReference(policy, temperature=settings.temperature)
    usual = usual_sampler(policy if writer == "policy" else reference.policy, reward, settings, wrap=wrap)
    source = PromptSampler(prompts, rng=generator(seed, "prompts"))
    answers, order = generator(seed, "answers"), generator(seed, "rows")
    rows = RoundRows(kept=kept)

    def rows_per_step(rows: RoundRows) -> int:
        if not passes:
            return batch_size
        assert rows.rows is not None
        most = max(1, len(rows.rows) * passes // round_steps)
        return min(batch_size, most) if batch_size else most

    def begin_round(state: RunState) -> dict[str, float]:
        for _ in range(settings.rounds):
            samples = usual(dict(enumerate(source.sample(settings.prompts))), rng=answers, version=state.step)
            fresh = build(samples)
            if len(fresh):
                break
        else:
            raise DataError(
                f"no prompt of {settings.rounds} rollouts gave a preference",
                cure="ask for more answers to a prompt, raise the temperature, or lower the margin",
            )
        state.shown = shown(samples)
        rows.begin(fresh)
        chosen = mix(rows.rounds, order)
        chosen["reference_log_prob"] = reference_log_prob(reference.policy, chosen)
        rows.learn_from(chosen)
        return {"rows": float(len(fresh)), "learnt_rows": float(len(chosen)), **logged(samples.batch)}

    def collect(state: RunState) -> tuple[TensorDict, dict[str, float]]:
        if take_every and state.step % take_every == 0:
            reference.take()
        metrics = begin_round(state) if state.step % round_steps == 0 else {}
        return rows.draw(rows_per_step(rows), order), metrics

    def update(state: RunState, collected: tuple[TensorDict, dict[str, float]]) -> dict[str, float]:
        batch, metrics = collected
        parts = optimiser_batches(batch, settings.optimizer_steps, rng=state.generators["update"])
        taken = [state.learners["policy"].step(part) for part in parts]
        return metrics | {name: sum(one[name] for one in taken) / len(taken) for name in taken[0]}

    run_state = RunState(
        learners={"policy": adam_learner(policy, over_outcomes(loss), settings)},
        generators={
            "prompts": source.rng,
            "answers": answers,
            "rows": order,
            "update": generator(seed, "update"),
        },
        sources={"prompts": source, "reference": reference, "rows": rows, **sources},
    ).restored(state)
    return run(run_state, collect=collect, update=update, steps=settings.steps)


def replayed(shares: Sequence[float], *, pad: int) -> Mix:
    """This round's rows with some of earlier rounds: `shares` of the newest, of the one before, and so on.

    A share is of this round's number of rows, drawn at random without going back to a row; at most what there
    is. Source: Rosset et al. 2024 (DNO), section 5.1.
    """
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise SettingError(f"replay shares {list(shares)}", expected="one or more, each from 0 to 1")

    def mix(rounds: Sequence[TensorDict], rng: torch.Generator) -> TensorDict:
        wanted = len(rounds[-1])
        parts = []
        for share, rows in zip(shares, reversed(rounds), strict=False):
            count = min(len(rows), round(share * wanted))
            if count:
                parts.append(rows[torch.randperm(len(rows), generator=rng)[:count]])
        return padded_together(parts, pad=pad)

    return mix


def _rows(saved: Mapping[str, Any]) -> TensorDict:
    return TensorDict(dict(saved), batch_size=[len(saved["label"])])
