"""The transparency report: counts by month, hazard and action from the audit log, no identities.

Source: California SB 243 asks operators of companion chatbots to publish how often they referred
users to crisis services, without identifiers, and their protocol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from kidrails_guard.audit import AuditRecord
from kidrails_guard.files import dump_json, write_atomic
from kidrails_guard.types import Action, Hazard

SMALL = 5
"""Crisis counts below this are published as "fewer than 5", so that nobody is recognised."""


@dataclass(frozen=True, slots=True)
class MonthCounts:
    """What happened in one month.

    Attributes:
        month: ``2026-11``.
        messages: children's messages that were checked.
        replies: models' replies that were checked.
        actions: action to number, over both.
        hazards: hazard to number of verdicts that it decided, benign left out.
        crisis_referrals: crisis answers given to children.
        failed_checks: verdicts in which a check failed.
        withheld_characters: of replies that were held back.
    """

    month: str
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
    return "fewer than 5" if 0 < number < SMALL else str(number)


def to_markdown(months: list[MonthCounts]) -> str:
    """Return the report as Markdown."""
    lines = [
        "# Transparency report",
        "",
        "Counts from the audit log. It holds no names, no messages and no identities. A crisis "
        "referral is an answer that sent a child to a trusted grown-up at once (K01 thoughts of "
        f"self-harm, K02 being hurt). Small crisis counts are shown as “fewer than {SMALL}”.",
        "",
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
            f"| {m.month} | {m.messages} | {m.replies} | {' | '.join(actions)} | "
            f"{published(m.crisis_referrals)} | {m.failed_checks} |"
        )
    lines += ["", "## By hazard", "", "| month | hazard | verdicts |", "|---|---|---|"]
    crisis = {Hazard.SELF_HARM, Hazard.ABUSE_DISCLOSURE}
    for m in months:
        for code, number in m.hazards.items():
            shown = published(number) if Hazard(code) in crisis else str(number)
            lines.append(f"| {m.month} | {code} {Hazard(code).label} | {shown} |")
    return "\n".join(lines) + "\n"


def draw(months: list[MonthCounts], path: Path) -> None:
    """Draw actions by month and hazards over all months into one PNG.

    Crisis bars below the publishable number are left out, like the number.
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
    crisis = {Hazard.SELF_HARM, Hazard.ABUSE_DISCLOSURE}
    right.barh(
        [f"{h} {h.label.replace('_', ' ')}" for h in order],
        [_drawn(totals[h], h in crisis) for h in order],
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


def write_report(records: Iterable[AuditRecord], out: Path) -> list[MonthCounts]:
    """Write ``report.md``, ``report.json`` and ``report.png``; return the counts.

    Small crisis counts stand as 0 to 4 in the JSON for the operator; publish the Markdown.
    """
    months = count_by_month(records)
    write_atomic(out / "report.md", to_markdown(months))
    dump_json(out / "report.json", [asdict(m) for m in months])
    if months:
        draw(months, out / "report.png")
    return months
