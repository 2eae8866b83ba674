"""Rows of outcomes: what preference learning reads, whatever an outcome is.

A row is a list of outcomes with a label each, [row, outcome]; a pair is a list of two, the better one first.
Shorter lists are filled up, and `present` tells. An outcome in text is its tokens, [row, outcome, time].
Segments of a robot's path or samples of a diffusion policy make rows of their own keys, and only the function
that says how likely an outcome is (`training.learners.preference`) has to know them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.passes import SimilarLengths
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.rollouts import encode_prompt
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples


@dataclass(frozen=True)
class Tokens:
    """A preference as tokens: its prompt, and each answer with its end token."""

    prompt: list[int]
    answers: list[list[int]]

    @property
    def length(self) -> int:
        """Of the longest answer with its prompt."""
        return len(self.prompt) + max(map(len, self.answers))


def tokenised(
    policy: LanguagePolicy,
    preference: Preference,
    *,
    answer_limit: int | None = None,
    system: str = "",
    where: str = "",
) -> Tokens:
    """The tokens of a preference, `where` naming it.

    An answer ends with the policy's end token; one of more than `answer_limit` tokens is cut there and has
    none. Raises `DataError` for an answer of which no token is left, or that does not fit the context.
    """
    prompt = encode_prompt(policy, preference.prompt, system=system)
    answers = []
    for place, text in enumerate(preference.answers):
        answer = policy.encode(text)
        if not answer:
            raise DataError(
                f"the tokenizer makes nothing of answer {place}, {text[:40]!r}",
                where=where,
                expected="an answer of at least one token",
            )
        answer = [*answer, policy.end_tokens[0]][:answer_limit]
        if len(prompt) + len(answer) > policy.context:
            raise DataError(
                f"a prompt of {len(prompt)} tokens and answer {place} of {len(answer)} exceed the context",
                where=where,
                expected=f"at most {policy.context} tokens together",
                cure="shorten or drop the prompt, or set answer_limit",
            )
        answers.append(answer)
    if all(answer == answers[0] for answer in answers):
        raise DataError(
            "all answers are the same" + ("" if answer_limit is None else f" in their first {answer_limit}"),
            where=where,
            expected="answers that differ in their tokens",
            cure="raise answer_limit, or leave the row out",
        )
    return Tokens(prompt, answers)


def preference_rows(
    policy: LanguagePolicy,
    preferences: Sequence[Preference],
    *,
    answer_limit: int | None = None,
    system: str = "",
) -> TensorDict:
    """Preferences as rows: `token`, `attended`, `mask`, `label`, `present`, `row_id`, and `score` if known.

    See `tokenised` for what is raised; errors name the row.
    """
    if answer_limit is not None and answer_limit < 1:
        raise SettingError(f"answers of at most {answer_limit} tokens", expected="at least 1")
    tokens = [
        tokenised(policy, one, answer_limit=answer_limit, system=system, where=f"row {number}")
        for number, one in enumerate(preferences)
    ]
    return collated(policy, list(preferences), tokens, list(range(len(tokens))))


def collated(
    policy: LanguagePolicy,
    preferences: Sequence[Preference],
    tokens: Sequence[Tokens],
    row_id: Sequence[int],
) -> TensorDict:
    """Tokenised preferences as one batch, padded to its longest."""
    most = max(len(one.answers) for one in tokens)

    def filled(values: Sequence[Sequence[float]], filler: float = 0) -> Tensor:
        return torch.tensor([[*one, *[filler] * (most - len(one))] for one in values])

    start = torch.tensor([len(one.prompt) for one in tokens])[:, None, None]
    end = filled([[len(one.prompt) + len(answer) for answer in one.answers] for one in tokens])
    place = torch.arange(int(end.max()))
    attended = place < end[..., None]
    token = torch.full(attended.shape, policy.tokenizer.pad_token_id)
    token[attended] = torch.tensor(
        [number for one in tokens for answer in one.answers for number in chain(one.prompt, answer)]
    )
    batch = {
        "token": token,
        "attended": attended,
        "mask": attended & (place >= start),
        "label": filled([one.labels for one in preferences]).float(),
        "present": end > 0,
        "row_id": torch.tensor(row_id),
    }
    if all("scores" in one.data for one in preferences):
        batch["score"] = filled([one.data["scores"] for one in preferences]).float()
    return TensorDict(batch, batch_size=[len(tokens)]).to(policy.device)


class PreferenceSampler(SimilarLengths[Preference]):
    """Draws rows of preferences of similar length, each once per pass.

    What the reference says of a row is computed once, by `prepare`, kept, and saved with the run.
    """

    def __init__(
        self,
        preferences: Preferences,
        policy: LanguagePolicy,
        *,
        rng: torch.Generator,
        answer_limit: int | None = None,
        system: str = "",
    ) -> None:
        super().__init__(preferences, rng=rng)
        self._policy = policy
        self._tokens = [
            tokenised(policy, one, answer_limit=answer_limit, system=system, where=f"row {number}")
            for number, one in enumerate(preferences)
        ]
        most = max(len(one.answers) for one in preferences)
        self._reference = torch.full((len(preferences), most), torch.nan)

    def length(self, place: int) -> int:
        """Tokens of the longest answer with its prompt."""
        return self._tokens[place].length

    def rows(self, places: Sequence[int]) -> TensorDict:
        """The preferences at these places, with what the reference said of them."""
        preferences = [self.items[place] for place in places]
        batch = collated(self._policy, preferences, [self._tokens[place] for place in places], places)
        reference = self._reference[list(places), : batch["present"].shape[1]]
        batch["reference_log_prob"] = reference.to(self._policy.device)
        return batch

    def missing(self, draws: int) -> list[int]:
        """Which of the next `draws` items the reference has not been asked about, the shortest first.

        As many batches are drawn at a time as `experience.passes` says: ask for a whole number of those.
        """
        places = {*self._waiting.flatten().tolist(), *self.coming(draws).tolist()}
        asked = ~self._reference[:, 0].isnan()
        return sorted((place for place in places if not asked[place]), key=lambda p: (self.length(p), p))

    def prepare(self, places: Sequence[int], log_prob: Float[Tensor, "row outcome"]) -> None:
        """Keep what the reference says of the preferences at these places."""
        self._reference[list(places), : log_prob.shape[1]] = log_prob.detach().cpu().float()

    def state_dict(self) -> dict[str, Any]:
        """What is left of the pass, and what the reference said."""
        return super().state_dict() | {"reference": self._reference}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a pass."""
        super().load_state_dict(state)
        self._reference = state["reference"]


# ---- of what a policy wrote --------------------------------------------------------------------------

Build = Callable[[Samples], TensorDict]
"""Answers that a policy wrote -> rows of outcomes, not more tokens than the answers had."""


def outcome_rows(
    samples: Samples, index: Int[Tensor, "row outcome"], label: Float[Tensor, "row outcome"]
) -> TensorDict:
    """Rows of the answers at `index`, -1 where a list has no more, under `label`; nothing is tokenised again.

    Keeps `group_id`, and `score`, the answers' rewards where they have some.
    """
    present = index >= 0
    place = index.clamp(min=0)
    batch = samples.batch
    rows = {key: batch[key][place] for key in ("token", "attended", "mask")}
    for key in ("attended", "mask"):
        rows[key] = rows[key] & present[..., None]
    rows |= {
        "label": torch.where(present, label.float(), 0.0),
        "present": present,
        "row_id": torch.arange(len(index)),
        "group_id": batch["group_id"][place[:, 0]],
    }
    if "reward" in batch.keys():  # noqa: SIM118
        rows["score"] = torch.where(present, batch["reward"][place], 0.0)
    return TensorDict(rows, batch_size=[len(index)])


def pair_rows(samples: Samples, pairs: Sequence[tuple[int, int]]) -> TensorDict:
    """Rows of pairs of answers, (better, worse) each."""
    index = torch.tensor([list(pair) for pair in pairs], dtype=torch.long).view(-1, 2)
    return outcome_rows(samples, index, torch.tensor([1.0, 0.0]).expand(len(index), 2))


def in_groups(samples: Samples) -> dict[int, list[int]]:
    """The places of the answers by their prompt, in order."""
    found: dict[int, list[int]] = {}
    for row, group in enumerate(samples.batch["group_id"].tolist()):
        found.setdefault(group, []).append(row)
    return found


def picked(pick: Callable[[Float[Tensor, "outcome"]], Sequence[tuple[int, int]]]) -> Build:
    """Pairs among the answers to each prompt, as `pick` chooses by their rewards (`experience.pairing`)."""

    def build(samples: Samples) -> TensorDict:
        pairs = [
            (rows[better], rows[worse])
            for rows in in_groups(samples).values()
            for better, worse in pick(samples.batch["reward"][rows])
        ]
        return pair_rows(samples, pairs)

    return build


def padded_together(parts: Sequence[TensorDict], *, pad: int) -> TensorDict:
    """Rows of several rollouts as one batch, with as many outcomes and tokens as the longest has.

    Only what all parts have is kept.
    """
    keys = sorted(set.intersection(*(set(part.keys()) for part in parts)))
    most = [max(part["token"].shape[axis] for part in parts) for axis in (1, 2)]

    def filled(part: TensorDict) -> TensorDict:
        rows = {}
        for key in keys:
            value = part[key]
            if value.dim() >= 2 and key != "observation":
                shape = [len(value), *most[: value.dim() - 1]]
                whole = value.new_full(shape, pad if key == "token" else 0)
                whole[tuple(slice(size) for size in value.shape)] = value
                value = whole
            rows[key] = value
        return TensorDict(rows, batch_size=[len(part)])

    return torch.cat([filled(part) for part in parts])  # type: ignore[return-value]
