"""What may stand under ``litellm_params`` of our guardrail in LiteLLM's configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from kidrails_guard.errors import UsageError
from kidrails_guard.proxy.records import Records, smtp_from_environment
from kidrails_guard.types import AgeBand

_ENVIRONMENT: Final = "os.environ/"
_DISCARDING: Final = ("run_in_parallel", "scan_raw_request")


def refuse_discarding(options: Mapping[str, Any]) -> None:
    """Refuse those of LiteLLM's own options that make it ignore what a guardrail changes.

    Raises:
        UsageError: one of them is on.
    """
    for name in _DISCARDING:
        if options.get(name):
            raise UsageError(
                f"litellm_params.{name}: LiteLLM throws away what such a guardrail changes, so "
                "unchecked words would pass; leave it out"
            )


def _listed(value: Any) -> Any:
    """Return one value or several as a list, read from the environment where they name it.

    LiteLLM itself reads ``os.environ/NAME`` outside lists only, and leaves an option out whose
    variable is not set: an alert would be lost without a word.
    """
    values = value if isinstance(value, list | tuple) else [value]
    return [_read(one) if isinstance(one, str) else one for one in values]


def _read(value: str) -> str:
    if not value.startswith(_ENVIRONMENT):
        return value
    name = value.removeprefix(_ENVIRONMENT)
    if not os.environ.get(name):
        raise ValueError(f"the environment variable {name} is not set")
    return os.environ[name]


_Several = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class GuardrailOptions(BaseModel):
    """The options, named and meant as those of `kidrails serve`.

    Attributes:
        band: age band of the children behind this LiteLLM; the policy's youngest without it.
        policy: path of a policy.
        audit: folder of the audit log; without it nothing is written down.
        audit_days: how long it is kept.
        audit_text_days: how long texts are kept, encrypted; without it none are.
        audit_on_failure: what a log that cannot be written means for a request.
        alert_webhook: URLs that are told of a crisis.
        alert_host: private hosts that a webhook may be on.
        alert_email: addresses that are told of a crisis, by the server in ``KIDRAILS_SMTP_HOST``.
        alert_with_text: whether an alert carries the child's words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    band: AgeBand | None = None
    policy: str | None = None
    audit: str | None = Field(default=None, min_length=1)
    audit_days: int = Field(default=30, ge=1)
    audit_text_days: int | None = Field(default=None, ge=1)
    audit_on_failure: Literal["refuse", "continue"] = "refuse"
    alert_webhook: _Several = ()
    alert_host: _Several = ()
    alert_email: _Several = ()
    alert_with_text: bool = False

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> GuardrailOptions:
        """Return the options that were given.

        Raises:
            UsageError: one is not known.
            ValidationError: one has a value that it cannot have.
        """
        for name in given:
            if name not in cls.model_fields:
                accepted = ", ".join(cls.model_fields)
                raise UsageError(f"litellm_params.{name}: not an option; accepted: {accepted}")
        return cls.model_validate(dict(given))

    def records(self) -> Records:
        """Return what is written down and who is told."""
        return Records(
            audit=self.audit,
            audit_days=self.audit_days,
            audit_text_days=self.audit_text_days,
            audit_on_failure=self.audit_on_failure,
            webhooks=self.alert_webhook,
            webhook_hosts=self.alert_host,
            emails=self.alert_email,
            smtp=smtp_from_environment(),
            alert_text=self.alert_with_text,
        )

    def told(self) -> str:
        """Return what is kept and who is told, for the operator to read at start."""
        kept = f"audit log in {self.audit}" if self.audit else "no audit log (audit: DIR keeps one)"
        ways = [f"{len(self.alert_webhook)} webhook(s)"] * bool(self.alert_webhook)
        ways += [f"{len(self.alert_email)} address(es)"] * bool(self.alert_email)
        return f"{kept}, alerts to {' and '.join(ways) or 'nobody'}"
