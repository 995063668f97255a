"""Where a person's own files lie: settings in one folder, the audit log in another."""

from __future__ import annotations

from pathlib import Path

from kidrails_guard.files import own_folder


def config_folder() -> Path:
    """Return the folder for settings and keys: ``KIDRAILS_CONFIG`` or ``~/.config/kidrails``.

    Raises:
        UsageError: neither is set and there is no home.
    """
    return own_folder("KIDRAILS_CONFIG", "XDG_CONFIG_HOME", ".config")


def state_folder() -> Path:
    """Return the folder for the audit log: ``KIDRAILS_STATE`` or ``~/.local/state/kidrails``.

    Raises:
        UsageError: neither is set and there is no home.
    """
    return own_folder("KIDRAILS_STATE", "XDG_STATE_HOME", ".local/state")


def default_audit() -> Path:
    """Return the audit folder that `kidrails up` and `kidrails demo` share."""
    return state_folder() / "audit"
