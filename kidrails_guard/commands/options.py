"""Types for command-line options: a wrong value is named before any work begins."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T", int, float)


def at_least(least: T) -> Callable[[str], T]:
    """Return an `argparse` type for finite numbers from ``least`` on, of its kind.

    Example:
        >>> at_least(1)("3"), at_least(0.0)("0.5")
        (3, 0.5)
    """
    kind = type(least)

    def number(text: str) -> T:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not math.isfinite(value) or value < least:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} of {least} or more")
        return value

    return number
