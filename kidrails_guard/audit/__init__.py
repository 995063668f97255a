"""The audit log: what the guard did, hash-chained, without a child's words.

A folder holds one file a day and writer (``audit-2026-11-23.0.jsonl``), a key, the inbox of the
grown-ups, and, where the operator switched that on, encrypted texts in files of their own that are
deleted sooner. Every line carries the keyed hash of the line before it, so a changed, removed or
reordered line shows; ``head`` files show a removed end, ``anchor`` files where retention began.
Both are sealed with the key.

Source: COPPA rule of 2025 and the UK Age Appropriate Design Code (keep no child's words without
need, enforce retention); California SB 243 (count crisis referrals without identities).
"""

from kidrails_guard.audit.files import AuditError, audit_key, chain_files, log_files
from kidrails_guard.audit.inbox import InboxEntry, InboxKind, note_inbox, read_inbox
from kidrails_guard.audit.log import AuditLog
from kidrails_guard.audit.reading import (
    AuditRecord,
    Verification,
    iterate_records,
    parse_record,
    read_events,
    read_texts,
    verify,
)

__all__ = [
    "AuditError",
    "AuditLog",
    "AuditRecord",
    "InboxEntry",
    "InboxKind",
    "Verification",
    "audit_key",
    "chain_files",
    "iterate_records",
    "log_files",
    "note_inbox",
    "parse_record",
    "read_events",
    "read_inbox",
    "read_texts",
    "verify",
]
