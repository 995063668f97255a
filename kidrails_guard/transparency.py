"""The transparency report: counts by month, hazard and action from the audit log, no identities.

Source: California SB 243 asks operators of companion chatbots to publish how often they referred
users to crisis services, without identifiers, and their protocol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kidrails_guard.audit import AuditRecord
from kidrails_guard.files import dump_json, write_atomic
from kidrails_guard.types import Action, Hazard

SMALL = 5
"""Crisis counts below this are published as "fewer than 5", so that nobody is recognised."""
ROUNDED_TO = 10
"""Totals of a month with such a count, or subtracting the other actions would tell it."""
CRISES = (Hazard.SELF_HARM, Hazard.ABUSE_DISCLOSURE)


@dataclass(frozen=True, slots=True)
class MonthCounts:
    """What happened in one month.

    Attributes:
        month: ``2026-11``.
        first_day: of it that the log holds a line of, ``2026-11-05``.
        last_day: likewise.
        messages: children's messages that were checked.
        replies: models' replies that were checked.
        actions: action to number, over both.
        hazards: hazard to number of verdicts that it decided, benign left out.
        crisis_referrals: crisis answers given to children.
        failed_checks: verdicts in which a check failed.
        withheld_characters: of replies that were held back.
    """

    month: str
    first_day: str
    last_day: str
    messages: int
    replies: int
    actions: dict[str, int]
    hazards: dict[str, int]
    crisis_referrals: int
    failed_checks: int
    withheld_characters: int


def count_by_month(records: Iterable[AuditRecord]) -> list[MonthCounts]:
    """Return the counts of each month, oldest first."""
    months: dict[str, list[AuditRecord]] = {}
    for record in records:
        months.setdefault(record.time[:7], []).append(record)
    return [_count(month, rows) for month, rows in sorted(months.items())]


def _count(month: str, rows: list[AuditRecord]) -> MonthCounts:
    actions = Counter(r.action for r in rows)
    hazards = Counter(r.hazard for r in rows if r.hazard != Hazard.BENIGN)
    return MonthCounts(
        month=month,
        first_day=min(r.time for r in rows)[:10],
        last_day=max(r.time for r in rows)[:10],
        messages=sum(r.stage == "input" for r in rows),
        replies=sum(r.stage == "output" for r in rows),
        actions={a.label: actions.get(a.label, 0) for a in Action},
        hazards={str(h): hazards[h] for h in Hazard if hazards[h]},
        crisis_referrals=sum(r.action == "crisis" and r.stage == "input" for r in rows),
        failed_checks=sum(bool(r.failed) for r in rows),
        withheld_characters=sum(r.withheld_characters for r in rows),
    )


def published(number: int) -> str:
    """Return a crisis count as it may be published."""
    return f"fewer than {SMALL}" if _is_small(number) else str(number)


def _is_small(number: int) -> bool:
    return 0 < number < SMALL


def _total(number: int, month: MonthCounts) -> str:
    crises = (month.actions[Action.CRISIS.label], month.crisis_referrals)
    if not any(map(_is_small, (*crises, *_crisis_hazards(month)))):
        return str(number)
    return f"about {(number + ROUNDED_TO // 2) // ROUNDED_TO * ROUNDED_TO}"


def _crisis_hazards(month: MonthCounts) -> list[int]:
    return [month.hazards.get(str(hazard), 0) for hazard in CRISES]


def _of_hazard(hazard: Hazard, month: MonthCounts) -> int | None:
    """Return a count that may be published; None: it would tell a small one beside it."""
    number = month.hazards[str(hazard)]
    others = any(map(_is_small, _crisis_hazards(month)))
    return None if hazard in CRISES and others and not _is_small(number) else number


def to_markdown(months: list[MonthCounts], *, unreadable: int = 0) -> str:
    """Return the report as Markdown.

    Args:
        months: the counts.
        unreadable: how many lines of the log are in none of them.
    """
    lines = [
        "# Transparency report",
        "",
        "Counts from the audit log. It holds no names, no messages and no identities. A crisis "
        "referral is an answer that sent a child to a trusted grown-up at once (K01 thoughts of "
        f"self-harm, K02 being hurt). Small crisis counts are shown as “fewer than {SMALL}”; so "
        "that they cannot be worked out from the others, the totals of such a month are rounded "
        "and the other crisis hazard is not shown.",
        "",
        *_held(months),
        *_left_out(unreadable),
        "| month | messages | replies | " + " | ".join(a.label for a in Action)
        + " | crisis referrals | failed checks |",
        "|---" * (5 + len(Action)) + "|",
    ]  # fmt: skip
    for m in months:
        actions = [
            published(m.actions[a.label]) if a is Action.CRISIS else str(m.actions[a.label])
            for a in Action
        ]
        lines.append(
            f"| {m.month} | {_total(m.messages, m)} | {_total(m.replies, m)} | "
            f"{' | '.join(actions)} | "
            f"{published(m.crisis_referrals)} | {m.failed_checks} |"
        )
    lines += ["", "## By hazard", "", "| month | hazard | verdicts |", "|---|---|---|"]
    for m in months:
        for hazard in map(Hazard, m.hazards):
            number = _of_hazard(hazard, m)
            shown = "not shown" if number is None else str(number)
            if number is not None and hazard in CRISES:
                shown = published(number)
            lines.append(f"| {m.month} | {hazard} {hazard.label} | {shown} |")
    return "\n".join(lines) + "\n"


def _held(months: list[MonthCounts]) -> list[str]:
    """Return which days the log holds: retention may have deleted a month's beginning."""
    if not months:
        return []
    days = f"{months[0].first_day} to {months[-1].last_day}"
    return [
        f"The log holds {days} (UTC). Of a month that is not whole in it, a part is counted.",
        "",
    ]


def _left_out(unreadable: int) -> list[str]:
    """Return how many lines no count holds: a report that is short of them must say so."""
    if not unreadable:
        return []
    lines = "1 line" if unreadable == 1 else f"{unreadable} lines"
    return [f"Not counted, since it could not be read: {lines} of the log.", ""]


def draw(months: list[MonthCounts], path: Path) -> None:
    """Draw actions by month and hazards over all months into one PNG.

    Crisis bars below the publishable number are left out, like the number; of the sums over all
    months, those too that would tell a month's.
    """
    import io

    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    names = [m.month for m in months]
    bottom = [0] * len(months)
    shown = [a for a in Action if a is not Action.ALLOW]
    colours = plt.get_cmap("viridis")([i / max(1, len(shown) - 1) for i in range(len(shown))])
    for action, colour in zip(shown, colours, strict=True):
        values = [_drawn(m.actions[action.label], action is Action.CRISIS) for m in months]
        left.bar(names, values, bottom=bottom, label=action.label, color=colour)
        bottom = [b + v for b, v in zip(bottom, values, strict=True)]
    left.set_title("What the guard did, by month (allow left out)")
    left.set_ylabel("verdicts")
    left.legend(fontsize="small")
    totals: Counter[str] = Counter()
    for m in months:
        totals.update(m.hazards)
    order = [h for h in Hazard if totals[h]]
    told = {h for m in months if any(map(_is_small, _crisis_hazards(m))) for h in CRISES}
    right.barh(
        [f"{h} {h.label.replace('_', ' ')}" for h in order],
        [0 if h in told else totals[h] for h in order],
        color="#3b6ea5",
    )
    right.invert_yaxis()
    right.set_title("Which hazards decided")
    right.set_xlabel("verdicts")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    plt.close(figure)
    write_atomic(path, buffer.getvalue())


def _drawn(number: int, crisis: bool) -> int:
    return 0 if crisis and number < SMALL else number


def write_report(
    records: Iterable[AuditRecord], out: Path, unreadable: Sequence[str] = ()
) -> list[MonthCounts]:
    """Write ``report.md``, ``report.png`` and ``internal.json``; return the counts.

    The first two may be published. In the third every count stands as it is, for the operator.

    Args:
        records: of the log.
        out: folder to write.
        unreadable: the places of lines that are no records, once `records` has been read.
    """
    months = count_by_month(records)
    write_atomic(out / "report.md", to_markdown(months, unreadable=len(unreadable)))
    dump_json(out / "internal.json", [asdict(m) for m in months])
    if months:
        draw(months, out / "report.png")
    return months
