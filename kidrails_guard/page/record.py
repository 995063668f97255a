"""Puts the audit log into plain words for the grown-up. Pure: records in, values out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from kidrails_guard.audit import AuditRecord, InboxEntry
from kidrails_guard.explain import CONDUCT_WORDS, HAZARDS, explain_finding
from kidrails_guard.page import texts
from kidrails_guard.types import Action, Finding, Hazard, Severity


@dataclass(frozen=True, slots=True)
class Happening:
    """One message and its reply, as a grown-up reads it.

    Attributes:
        time: when, UTC.
        action: the gravest thing that was done about the two.
        badge: that in one or two words.
        said: what happened, in sentences.
        why: the reasons, one a finding; empty where nothing was found.
        band: the age band that was used.
        request_id: ties the two records together.
        failed: a check did not work.
    """

    time: datetime
    action: Action
    badge: str
    said: tuple[str, ...]
    why: tuple[str, ...] = ()
    band: str = ""
    request_id: str = ""
    failed: bool = False

    @property
    def held_back(self) -> bool:
        """Whether the child read a kind message in place of what was asked or answered."""
        return self.action.answers

    @property
    def needs_someone(self) -> bool:
        """Whether a grown-up should act."""
        return self.action is Action.CRISIS


@dataclass(frozen=True, slots=True)
class Note:
    """One entry of the inbox.

    Attributes:
        time: when, UTC.
        kind: as in the audit log.
        said: what happened.
        advice: what to do about it.
        new: not yet looked at.
    """

    time: datetime
    kind: str
    said: str
    advice: str
    new: bool


@dataclass(frozen=True, slots=True)
class Tally:
    """How many messages of one day went which way."""

    messages: int = 0
    care: int = 0
    held_back: int = 0
    crisis: int = 0


@dataclass(slots=True)
class _Pair:
    input: AuditRecord | None = None
    output: AuditRecord | None = None


def happenings(records: Iterable[AuditRecord]) -> list[Happening]:
    """Return what happened, newest first; a message and its reply are one entry.

    Args:
        records: lines of the audit log in any order.
    """
    pairs: dict[str, _Pair] = {}
    for record in records:
        pair = pairs.setdefault(record.request_id, _Pair())
        if record.stage == "output":
            pair.output = record
        elif pair.input is None or _action(record) > _action(pair.input):
            pair.input = record
    found = [h for h in map(_happening, pairs.values()) if h is not None]
    return sorted(found, key=lambda h: h.time, reverse=True)


def tally(happened: Iterable[Happening], *, day: datetime, zone: tzinfo | None) -> Tally:
    """Return the counts of the local day that holds a moment."""
    today = day.astimezone(zone).date()
    of_today = [h for h in happened if h.time.astimezone(zone).date() == today]
    return Tally(
        messages=len(of_today),
        care=sum(h.action is Action.CARE for h in of_today),
        held_back=sum(h.held_back and not h.needs_someone for h in of_today),
        crisis=sum(h.needs_someone for h in of_today),
    )


def notes(entries: Sequence[InboxEntry], *, seen_until: str) -> list[Note]:
    """Return the inbox in plain words: unseen crises first, then in the order given.

    Args:
        entries: the inbox, newest first.
        seen_until: time of the newest entry that was looked at, as the inbox writes it.
    """
    # By their places: a clock that was set back since dates what is new before what was seen.
    seen_from = next((i for i, e in enumerate(entries) if e.time == seen_until), None)
    found = [
        Note(
            time=datetime.fromisoformat(entry.time),
            kind=entry.kind,
            said=_inbox_sentence(entry),
            advice=texts.INBOX_ADVICE.get(entry.kind, ""),
            new=entry.time > seen_until if seen_from is None else i < seen_from,
        )
        for i, entry in enumerate(entries)
    ]
    # What a child in danger wrote stays on top until somebody has looked.
    return sorted(found, key=lambda note: not (note.new and note.kind == "crisis"))


def _inbox_sentence(entry: InboxEntry) -> str:
    said = texts.INBOX.get(entry.kind, entry.kind)
    if entry.kind == "crisis" and entry.hazard in set(Hazard):
        said += f" Seen in it: {HAZARDS[Hazard(entry.hazard)]}."
    return said


def _action(record: AuditRecord) -> Action:
    return Action.parse(record.action)


def _happening(pair: _Pair) -> Happening | None:
    first = pair.input or pair.output
    if first is None:
        return None
    said: list[str] = []
    why: list[str] = []
    gravest, failed, masked = Action.ALLOW, False, False
    for record in (pair.input, pair.output):
        if record is not None:
            said += _sentences(record)
            why += _reasons(record)
            gravest = max(gravest, _action(record))
            failed = failed or bool(record.failed)
            masked = masked or _masked(record)
    return Happening(
        time=datetime.fromisoformat(first.time),
        action=gravest,
        badge=(
            texts.UNMASKED_BADGE
            if gravest is Action.REDACT and not masked
            else texts.BADGE[gravest]
        ),
        said=tuple(said),
        why=tuple(why),
        band=first.band,
        request_id=first.request_id,
        failed=failed,
    )


def _masked(record: AuditRecord) -> bool:
    """Return whether anything was masked; earlier logs do not say it, but which check masks."""
    return any(f.get("masks", f.get("check") == "personal_data") for f in record.findings)


def _done(record: AuditRecord, words: Mapping[Action, str]) -> str:
    action = _action(record)
    unmasked = action is Action.REDACT and not _masked(record)
    return texts.UNMASKED[record.stage] if unmasked else words[action]


def _sentences(record: AuditRecord) -> list[str]:
    action = _action(record)
    hazard = Hazard(record.hazard) if record.hazard in set(Hazard) else Hazard.BENIGN
    seen = HAZARDS[hazard]
    case = texts.CASE.get(record.case, "")
    checks = ", ".join(texts.CHECK.get(name, name) for name in record.failed)
    if record.stage == "input":
        if record.failed and hazard is Hazard.BENIGN:
            return [f"A message could not be checked: {checks} did not work.", texts.UNCHECKED]
        if hazard is Hazard.BENIGN:
            said = ["An everyday message."]
        else:
            said = [f"Seen in a message: {seen}" + (f"; the child {case}." if case else ".")]
        return [*said, _done(record, texts.ON_INPUT)]
    said = []
    if record.failed and hazard is Hazard.BENIGN:
        said = [f"The reply could not be checked: {checks} did not work.", texts.ON_OUTPUT[action]]
    elif action in {Action.REDACT} or action.answers:
        what = CONDUCT_WORDS.get(record.case) or f"seen in the program’s reply: {seen}"
        said = [f"{what[0].upper()}{what[1:]}.", _done(record, texts.ON_OUTPUT)]
    if note := texts.NOTE.get(record.note):
        said.append(note)
    return said


def _reasons(record: AuditRecord) -> list[str]:
    return [_reason(finding, record.stage) for finding in record.findings]


def _reason(finding: Mapping[str, Any], stage: str) -> str:
    """Return one finding in a sentence, with whose words, how grave and the hazard's code."""
    code = str(finding.get("hazard", ""))
    whose = "child’s message" if stage == "input" else "program’s reply"
    try:
        severity = Severity.parse(str(finding.get("severity", "none")))
        said = explain_finding(
            Finding(
                check=str(finding.get("check", "")),
                hazard=Hazard(code),
                severity=severity,
                score=float(finding.get("score", 1.0)),
                note=str(finding.get("note", "")),
                case=str(finding.get("case", "")),
            )
        )
        grave = "" if severity is Severity.NONE else f", {severity.label}"
    except (ValueError, TypeError):  # of a later version of the guard
        said, grave = f"The check {finding.get('check')!r} saw something.", ""
    return f"{said} ({whose}{grave}, {code})"


def local_time(moment: datetime, *, zone: tzinfo | None) -> str:
    """Return a time with its day, of today too: on paper, "today" is soon another day.

    Args:
        moment: when.
        zone: the reader's; None for the machine's.
    """
    return moment.astimezone(zone).strftime("%a %d %b %Y, %H:%M:%S %Z").rstrip()


def band_words(bands: Sequence[str]) -> str:
    """Return age bands in words.

    >>> band_words(["5-6", "7-9"])
    '5 to 6, 7 to 9'
    """
    return ", ".join(band.replace("-", " to ") for band in bands)
