"""Small crisis counts are not published as they are: somebody could be recognised."""

from __future__ import annotations

from dataclasses import replace

from kidrails_guard.audit import AuditRecord
from kidrails_guard.transparency import (
    MonthCounts,
    count_by_month,
    published,
    to_markdown,
    write_report,
)


def record(month: str, action: str, hazard: str, stage: str = "input") -> AuditRecord:
    return AuditRecord(
        f"{month}-03T10:00:00+00:00", "r", "t", "", "7-9", stage, action, hazard, "mild", "",
        (), (), "0", 5, 3, "p", "m", 1.0, False, "", 1, "0",
    )  # fmt: skip


def test_counts_by_month_and_hides_small_crisis_numbers() -> None:
    rows = [record("2026-10", "crisis", "K01")] * 3 + [record("2026-11", "refuse", "K04")] * 2
    rows += [record("2026-11", "crisis", "K02")] * 7
    rows += [record("2026-11", "redirect", "K05", "output")]
    october, november = count_by_month(rows)
    assert (october.crisis_referrals, november.crisis_referrals) == (3, 7)
    assert november.hazards == {"K02": 7, "K04": 2, "K05": 1}
    assert (november.messages, november.replies) == (9, 1)
    text = to_markdown([october, november])
    assert "fewer than 5" in text.split("2026-10 |")[1].splitlines()[0]
    assert "| 7 |" in text
    assert [published(n) for n in (0, 1, 4, 5)] == ["0", "fewer than 5", "fewer than 5", "5"]


def test_says_which_days_are_counted() -> None:
    rows = [replace(record("2026-11", "allow", "K00"), time=f"2026-11-{day}T10:00:00+00:00")
            for day in (29, 12)]  # fmt: skip
    months = count_by_month([*rows, record("2027-01", "allow", "K00")])
    assert "The log holds 2026-11-12 to 2027-01-03 (UTC)." in to_markdown(months)


def month(*rows: AuditRecord) -> MonthCounts:
    (counts,) = count_by_month(rows)
    return counts


def cells(counts: MonthCounts) -> list[str]:
    row = next(r for r in to_markdown([counts]).splitlines() if r.startswith("| 2026-11 |"))
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def calm(messages: int, replies: int) -> list[AuditRecord]:
    return [record("2026-11", "allow", "K00")] * messages + [
        record("2026-11", "allow", "K00", "output")
    ] * replies


def test_a_small_crisis_count_cannot_be_worked_out_by_subtraction() -> None:
    shown = set()
    for crises in range(1, 5):
        rows = [*calm(46 - crises, 41), *[record("2026-11", "crisis", "K01")] * crises]
        shown.add(tuple(cells(month(*rows))[:2]))
    assert shown == {("about 50", "about 40")}  # whatever the number is
    assert cells(month(*calm(42, 40)))[:2] == ["42", "40"]
    many = [record("2026-11", "crisis", "K01")] * 5
    assert cells(month(*calm(42, 40), *many))[:2] == ["47", "40"]


def test_one_crisis_hazard_does_not_tell_the_other() -> None:
    rows = [record("2026-11", "crisis", "K01")] * 7 + [record("2026-11", "crisis", "K02")] * 2
    counts = month(*rows, *calm(10, 10))
    text = to_markdown([counts])
    assert "| K01 self_harm | not shown |" in text
    assert "| K02 abuse_disclosure | fewer than 5 |" in text
    assert cells(counts)[-2] == "9"  # nine children, of whom nobody knows which


def test_what_is_published_lies_beside_a_file_that_says_it_is_not(tmp_path) -> None:
    rows = [record("2026-11", "crisis", "K01")] * 2
    write_report(rows, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "internal.json",
        "report.md",
        "report.png",
    }
