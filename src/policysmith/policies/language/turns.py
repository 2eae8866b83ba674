"""How the turns of a conversation become tokens, without ever touching those already written.

A conversation is one growing row of tokens: an opening, what the policy wrote, the reply to it, what it wrote
next. Writing the text anew at every turn could cut it into other tokens than those that were drawn, or drop
part of it, as some templates do with thoughts of earlier turns; so a reply is made of what the chat template
puts *between* two answers, and is appended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from policysmith.common.errors import CapabilityError
from policysmith.policies.language.policy import LanguagePolicy

_ANSWER = "what the policy wrote"
"""Stands for an answer while the template is asked what comes behind it."""


class Turns(Protocol):
    """What is put around the words of a conversation."""

    def opening(self, said: str) -> list[int]:
        """The tokens before the policy's first answer, to somebody who `said` something."""
        ...

    def reply(self, said: str, last: int) -> list[int]:
        """The tokens between an answer that ended with the token `last` and the next one."""
        ...


@dataclass(frozen=True)
class ChatTurns:
    """Turns by the chat template of the policy's tokenizer: the policy is the assistant, the other the user.

    `system` is the message before the first turn. Raises `CapabilityError` for a template that does not write
    an answer as it is.
    """

    policy: LanguagePolicy
    system: str = ""

    def __post_init__(self) -> None:
        self._between("")

    def opening(self, said: str) -> list[int]:
        """See `Turns`."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return self.policy.encode_conversation([*system, {"role": "user", "content": said}])

    def reply(self, said: str, last: int) -> list[int]:
        """See `Turns`. An answer that was cut is closed as the template closes one."""
        token = self.policy.encode(self._between(said))
        closed = last in self.policy.end_tokens and token[:1] == [last]
        return token[1:] if closed else token

    def _between(self, said: str) -> str:
        whole = self.policy.tokenizer.apply_chat_template(
            [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": _ANSWER},
                {"role": "user", "content": said},
            ],
            tokenize=False,
            add_generation_prompt=True,
        )
        _, found, rest = whole.partition(_ANSWER)
        if not found:
            raise CapabilityError(
                "the chat template does not write an answer as it is, so nothing can be put behind one",
                where=f"{whole[:200]!r}",
                cure="set tokenizer.chat_template, or hold the conversation in plain text (PlainTurns)",
            )
        return rest


@dataclass(frozen=True)
class PlainTurns:
    """Turns as plain text: `before`, what the other said, `after`, and the policy goes on.

    The opening has no `before`, and begins with `system`. An answer's own end token stays where it is.
    """

    policy: LanguagePolicy
    system: str = ""
    before: str = "\n"
    after: str = "\n"

    def opening(self, said: str) -> list[int]:
        """See `Turns`."""
        begin = self.policy.tokenizer.bos_token_id
        text = self.system + said + self.after
        return ([] if begin is None else [begin]) + self.policy.encode(text)

    def reply(self, said: str, last: int) -> list[int]:
        """See `Turns`."""
        return self.policy.encode(self.before + said + self.after)


def turns_of(policy: LanguagePolicy, *, system: str = "") -> Turns:
    """Turns by the chat template where the tokenizer has one, in plain text otherwise."""
    return (ChatTurns if policy.tokenizer.chat_template else PlainTurns)(policy, system)
