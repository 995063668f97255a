"""Finds the content folders (`recipes`, `serve`, `data`, `evals`) in a checkout or a wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from kidrails_guard.errors import UsageError

FOLDERS = ("recipes", "serve", "data", "evals")


@cache
def content_root() -> Path:
    """Return the folder that holds the content folders.

    In a checkout that is the repository's root, in an installed wheel
    ``kidrails_guard/_content``.

    Raises:
        UsageError: neither is there.
    """
    package = Path(__file__).resolve().parent
    for root in (package / "_content", package.parent):
        if all((root / folder).is_dir() for folder in FOLDERS):
            return root
    raise UsageError(
        f"the folders {', '.join(FOLDERS)} are neither in {package / '_content'} nor in "
        f"{package.parent}; install again: pip install --force-reinstall kidrails-guard"
    )


def content_path(relative: str) -> Path:
    """Return the path of a shipped file, such as ``serve/policies/default.yaml``."""
    return content_root() / relative
