"""What a game for preference pairs takes, from words on the command line: who writes, judges and knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policysmith.cli.language import PromptInputs
from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.named import load_named
from policysmith.policies.language.models import open_policy
from policysmith.rewards.named import reward_named
from policysmith.synthesis.feedback import alternatives, rewritten_by
from policysmith.synthesis.judging import LanguageJudge
from policysmith.synthesis.players import Assess, Players, Tool
from policysmith.synthesis.tools import calculator, facts_from_file


@dataclass(frozen=True)
class GameInputs(PromptInputs):
    """The model that writes, the judge, its tools and the feedback."""

    model: str = ""
    """who writes: a folder, a .gguf file, a name on the Hub, or one of `policysmith models list`"""
    judge: str = ""
    """who judges: your_package.module:function of prompt, candidates, knowledge and rubric, or a model"""
    rubric: str = ""
    """what the judge is told to look at"""
    tool: tuple[str, ...] = ()
    """what the judge may ask: calculator, or your_package.module:function of prompt and candidates, each"""
    facts: str = ""
    """a table of facts to look up: a file with the columns key and value"""
    feedback: str = ""
    """who rewrites instruction and rubric: a model, or your_package.module:function"""
    instruction: tuple[str, ...] = ()
    """in place of --feedback: instructions for the model that writes, to be tried"""
    reward: str = ""
    """whether an answer is right, where that is known: as for training; the pairs are then told the truth"""

    def arguments(self) -> tuple[Any, ...]:
        """Model, prompts and players."""
        if not self.model:
            raise SettingError(
                "which model writes?", cure="give --model FOLDER or NAME, such as smollm2-135m"
            )
        if not self.judge:
            raise SettingError("who judges?", cure="give --judge package.module:function, or a model")
        return open_policy(self.model), self.prompts(), self.players()

    def players(self) -> Players:
        """Judge, tools, feedback and verifier."""
        tools = {name: _tool(name) for name in self.tool}
        if self.facts:
            tools["facts"] = facts_from_file(self.facts)
        return Players(
            judge=_judge(self.judge),
            rubric=self.rubric,
            tools=tools,
            verify=reward_named(self.reward) if self.reward else None,
            revise=self._revise(),
        )

    @property
    def name(self) -> str:
        """What the results are named after."""
        return self.subject

    def _revise(self) -> Any:
        if self.feedback and self.instruction:
            raise SettingError("feedback from two places", cure="give --feedback or --instruction")
        if self.instruction:
            return alternatives(targets=self.instruction)
        if not self.feedback:
            return None
        if _is_function(self.feedback):
            return load_named(self.feedback, what="feedback")
        return rewritten_by(open_policy(self.feedback))


def _judge(name: str) -> Assess:
    return _function(name, "judge") if _is_function(name) else LanguageJudge(open_policy(name))


def _tool(name: str) -> Tool:
    return calculator() if name == "calculator" else _function(name, "tool")


def _function(name: str, what: str) -> Any:
    found = load_named(name, what=what)
    if not callable(found):
        raise CapabilityError(f"'{name}' cannot be called", expected=f"a function to be the {what}")
    return found


def _is_function(name: str) -> bool:
    return ":" in name and not Path(name).exists()
