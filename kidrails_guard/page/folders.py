"""Where a person's own files lie: settings in one folder, the audit log in another."""

from __future__ import annotations

import os
from pathlib import Path

from kidrails_guard.errors import UsageError


def config_folder() -> Path:
    """Return the folder for settings and keys: ``KIDRAILS_CONFIG`` or ``~/.config/kidrails``.

    Raises:
        UsageError: neither is set and there is no home.
    """
    return _folder("KIDRAILS_CONFIG", "XDG_CONFIG_HOME", ".config")


def state_folder() -> Path:
    """Return the folder for the audit log: ``KIDRAILS_STATE`` or ``~/.local/state/kidrails``.

    Raises:
        UsageError: neither is set and there is no home.
    """
    return _folder("KIDRAILS_STATE", "XDG_STATE_HOME", ".local/state")


def default_audit() -> Path:
    """Return the audit folder that `kidrails up` and `kidrails demo` share."""
    return state_folder() / "audit"


def _folder(own: str, base: str, below_home: str) -> Path:
    if chosen := os.environ.get(own):
        return Path(chosen).expanduser()
    if given := os.environ.get(base):
        return Path(given) / "kidrails"
    try:
        home = Path.home()
    except RuntimeError:  # a container's user that the machine does not know
        raise UsageError(
            f"HOME is not set, and user {os.getuid()} has no home; set {own} to a folder that "
            "this user may write"
        ) from None
    return home / below_home / "kidrails"
