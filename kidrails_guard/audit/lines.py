"""What one line of the audit log says of an event."""

from __future__ import annotations

import re
from typing import Any, Final

from kidrails_guard.audit.files import keyed_digest, utc
from kidrails_guard.proxy.seams import AuditEvent

_MODEL: Final = re.compile(r"[\w./:@+-]{1,80}")


def line_values(event: AuditEvent, key: bytes) -> dict[str, Any]:
    """Return what a line holds of an event: no field holds anybody's words."""
    verdict = event.verdict
    return {
        "time": utc(event.time),
        "request_id": event.request_id,
        "tenant": event.tenant,
        "session": _hashed(key, event.session),
        "band": str(event.band),
        "stage": str(verdict.stage),
        "action": verdict.action.label,
        "hazard": str(verdict.hazard),
        "severity": verdict.severity.label,
        "case": verdict.case,
        "findings": [
            {
                "check": f.check,
                "hazard": str(f.hazard),
                "severity": f.severity.label,
                "score": round(f.score, 4),
                "case": f.case,
                "note": f.note,
                "masks": f.masks,
            }
            for f in verdict.findings
        ],
        "failed": list(verdict.failed),
        "text_hash": keyed_digest(key, "text", event.text)[:32],
        "length": len(event.text),
        "withheld_characters": event.withheld_characters,
        "policy": event.policy_digest,
        "model": event.model if _MODEL.fullmatch(event.model) else "other",
        "elapsed_ms": round(verdict.elapsed_ms, 3),
        "streamed": event.streamed,
        "note": event.note,
    }


def _hashed(key: bytes, session: str) -> str:
    """Return the keyed hash that stands for a session header, or empty for none."""
    return keyed_digest(key, "session", session)[:16] if session else ""
