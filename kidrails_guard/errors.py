"""Every error that KidRails raises on purpose.

::

    KidRailsError
    ├── UsageError            wrong use: exit status 2
    │   ├── PolicyError       a policy file does not say what it must
    │   ├── DataError         a row or a data file is wrong
    │   ├── ScanError         a checkpoint or a scan cannot be read
    │   ├── RecipeError       a recipe does not hold
    │   └── KeysError         the key file is wrong
    ├── MissingDependency     an optional package or program is not installed
    ├── CheckFailed           a check raised, timed out or answered nonsense
    ├── UpstreamError         the model server did not answer as OpenAI's API does
    └── EngineError           the embedded model server does not start or died

Messages say what was wrong (the value), where (file and key), what is accepted, and what to run
next. They never hold a child's words.
"""

from __future__ import annotations


class KidRailsError(Exception):
    """Base of all errors raised on purpose; its text may be shown to the operator as it is."""


class UsageError(KidRailsError):
    """The caller asked for something that cannot be."""


class PolicyError(UsageError):
    """A policy file does not say what it must."""


class DataError(UsageError):
    """A row or a data file is wrong."""


class ScanError(UsageError):
    """A checkpoint or a scan file cannot be read."""


class RecipeError(UsageError):
    """A recipe does not hold."""


class KeysError(UsageError):
    """The key file is wrong."""


class MissingDependency(KidRailsError):
    """An optional package or program is not installed.

    Args:
        what: the package or program.
        command: the exact command that installs it.
        purpose: what it is needed for.
    """

    def __init__(self, what: str, *, command: str, purpose: str) -> None:
        self.what, self.command, self.purpose = what, command, purpose
        super().__init__(f"{what} is needed for {purpose} and is not installed; run: {command}")


class CheckFailed(KidRailsError):
    """A check raised, timed out or answered nonsense.

    Args:
        check: the name of the check.
        reason: ``raised``, ``timed out`` or ``nonsense``, with the exception's type.
    """

    def __init__(self, check: str, reason: str) -> None:
        self.check, self.reason = check, reason
        super().__init__(f"check {check!r} failed: {reason}")


class UpstreamError(KidRailsError):
    """The model server did not answer as OpenAI's API does."""


class EngineError(KidRailsError):
    """The embedded model server does not start, or died."""
