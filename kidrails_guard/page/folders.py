"""Where a person's own files lie: settings in one folder, the audit log in another."""

from __future__ import annotations

import os
from pathlib import Path


def config_folder() -> Path:
    """Return the folder for settings and keys: ``KIDRAILS_CONFIG`` or ``~/.config/kidrails``."""
    return _folder("KIDRAILS_CONFIG", "XDG_CONFIG_HOME", Path.home() / ".config")


def state_folder() -> Path:
    """Return the folder for the audit log: ``KIDRAILS_STATE`` or ``~/.local/state/kidrails``."""
    return _folder("KIDRAILS_STATE", "XDG_STATE_HOME", Path.home() / ".local" / "state")


def default_audit() -> Path:
    """Return the audit folder that `kidrails up` and `kidrails demo` share."""
    return state_folder() / "audit"


def _folder(own: str, base: str, otherwise: Path) -> Path:
    if chosen := os.environ.get(own):
        return Path(chosen).expanduser()
    return (Path(os.environ[base]) if os.environ.get(base) else otherwise) / "kidrails"
