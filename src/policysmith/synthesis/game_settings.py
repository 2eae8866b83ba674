"""How a game of preferences is played: candidates, which pairs are good enough, how often is revised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policysmith.common.errors import SettingError
from policysmith.training.learners.language_settings import LanguageSettings


@dataclass(frozen=True)
class GameSettings(LanguageSettings):
    """How the game is played: `group_size` candidates for a prompt, drawn as `LanguageSettings` says.

    - `threshold`: pairs with a reward of so much are kept. `max_feedback`: revisions proposed for a prompt.
    - `margin`, `scale`, `floor`: of the plain reward of a pair (`players.by_scores`), in points of 0 to 10.
    - `pair`: the best over the worst, or `all_margin`: every two that are `margin` points apart.
    - `orders`: 1: the judge sees candidates in a random order; 2: also in its reverse, and the mean counts.
    - `probe`: so many prompts decide whether a revision is kept.
    - `at_a_time`: prompts that are played together, and share their revisions.
    - `reset_prompts`: each prompt (those that are played together) starts from the first instructions.
    - `finished_only`: answers that the limit cut off are no candidates.
    - `tool_seconds`: a tool that takes longer has failed; 0: tools are waited for.
    - `positive`: `label` takes the prompt's right answer for the better one, and the worst candidate. Never
      compare that with the others: it is told the truth.
    """

    group_size: int = 5
    threshold: float = 0.5
    max_feedback: int = 3
    margin: float = 2.0
    scale: float = 1.0
    floor: float = 6.0
    pair: Literal["best_worst", "all_margin"] = "best_worst"
    orders: int = 1
    probe: int = 8
    at_a_time: int = 1
    reset_prompts: bool = False
    finished_only: bool = True
    tool_seconds: float = 0.0
    positive: Literal["judge", "label"] = "judge"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2 and self.positive == "judge":
            raise SettingError(f"group_size is {self.group_size}", expected="2 candidates or more")
        if not 0 <= self.threshold <= 1:
            raise SettingError(f"threshold is {self.threshold}", expected="from 0 to 1, as rewards of pairs")
        for name in ("max_feedback", "margin", "tool_seconds"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more")
        for name in ("probe", "at_a_time", "scale"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0")
        if self.orders not in (1, 2):
            raise SettingError(f"orders is {self.orders}", expected="1, or 2 for the mean of both")
        for name, known in (("pair", ("best_worst", "all_margin")), ("positive", ("judge", "label"))):
            if getattr(self, name) not in known:
                raise SettingError(f"{name} is '{getattr(self, name)}'", expected=" or ".join(known))
