"""Small crisis counts are not published as they are: somebody could be recognised."""

from __future__ import annotations

from kidrails_guard.audit import AuditRecord
from kidrails_guard.transparency import count_by_month, published, to_markdown


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
