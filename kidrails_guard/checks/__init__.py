"""The checks: each looks at a text in one way and returns findings.

The registry below names those that ship; a package adds its own with the entry-point group
``kidrails.checks`` (name = ``package.module:factory``). A factory takes the policy and the check's
options as keyword arguments and returns a `Check`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Final

from kidrails_guard.errors import PolicyError
from kidrails_guard.policy import CheckRule, Policy
from kidrails_guard.types import Check

Factory = Callable[..., Check]

BUILT_IN: Final[dict[str, str]] = {
    "lexicon": "kidrails_guard.checks.lexicon:build",
    "classifier": "kidrails_guard.checks.classifier:build",
    "personal_data": "kidrails_guard.checks.personal_data:build",
    "conversation": "kidrails_guard.checks.conversation:build",
    "conduct": "kidrails_guard.checks.conduct:build",
    "readability": "kidrails_guard.checks.readability:build",
    "judge": "kidrails_guard.checks.judge:build",
}


def known_checks() -> dict[str, str]:
    """Return every check's name and where its factory is: the shipped ones, then plug-ins."""
    plugins = {point.name: point.value for point in entry_points(group="kidrails.checks")}
    return plugins | BUILT_IN


def _build(rule: CheckRule, policy: Policy) -> Check:
    known = known_checks()
    if rule.name not in known:
        raise PolicyError(
            f"checks: {rule.name!r} is not a known check; accepted: {', '.join(sorted(known))}; "
            "a package adds one with the entry-point group kidrails.checks"
        )
    module, _, attribute = known[rule.name].partition(":")
    factory: Factory = getattr(importlib.import_module(module), attribute)
    try:
        return factory(policy, **rule.options)
    except TypeError as error:
        raise PolicyError(f"checks.{rule.name}.options: {error}") from None


def load_checks(policy: Policy) -> tuple[Check, ...]:
    """Return the checks that a policy names, built with their options.

    Raises:
        PolicyError: a check is unknown or its options are wrong.
    """
    return tuple(_build(rule, policy) for rule in policy.checks)
