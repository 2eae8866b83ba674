"""Errors in the user's terms: what was wrong, where, what was expected and what to do about it.

Every error that a user's input can cause is a `PolicysmithError`; the command line prints it without a
traceback. Anything else that escapes is a defect of the library.
"""

from __future__ import annotations


class PolicysmithError(Exception):
    """Something the user can act on.

    `what` is the finding in one sentence; `where` names the place (a file, an episode, a key, a step),
    `expected` what would have been right, `cure` what to do now. Empty parts are left out.
    """

    def __init__(self, what: str, *, where: str = "", expected: str = "", cure: str = "") -> None:
        self.what, self.where, self.expected, self.cure = what, where, expected, cure
        parts = [what] + [
            f"  {label}: {text}"
            for label, text in (("where", where), ("expected", expected), ("what to do", cure))
            if text
        ]
        super().__init__("\n".join(parts))


class SettingError(PolicysmithError, ValueError):
    """A setting is out of its range, or two settings contradict each other."""


class ShapeError(PolicysmithError, ValueError):
    """A tensor, a space or a batch has another shape than the part that received it can use."""


class DataError(PolicysmithError, ValueError):
    """A data set is missing something, is inconsistent, or holds values that are not finite."""


class FileError(PolicysmithError, OSError):
    """A file is missing, cut short, of another version, or would have been overwritten."""


class NotFiniteError(PolicysmithError, ArithmeticError):
    """Training produced a value that is not finite; the last good checkpoint is kept."""


class StaleError(PolicysmithError, TimeoutError):
    """An observation is too old to act on."""


class UnknownNameError(PolicysmithError, LookupError):
    """A name (of a system, an environment, a key) that nothing answers to."""


class MissingExtraError(PolicysmithError, ImportError):
    """An optional package is not installed."""


class CapabilityError(PolicysmithError, TypeError):
    """A policy, an environment or a learner lacks a capability that was asked of it."""
