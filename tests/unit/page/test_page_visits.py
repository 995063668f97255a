"""When a break is suggested."""

from __future__ import annotations

from kidrails_guard.page.visits import Visits


def test_a_break_is_due_after_the_time_and_again_after_as_much() -> None:
    now = 0.0
    visits = Visits(3_600, clock=lambda: now)
    due = []
    for minute in range(0, 200, 5):
        now = minute * 60.0
        if visits.break_is_due("a"):
            due.append(minute)
    assert due == [60, 120, 180]


def test_a_pause_counts_as_a_break() -> None:
    now = 0.0
    visits = Visits(3_600, clock=lambda: now)
    visits.break_is_due("a")
    now = 3_000.0
    visits.break_is_due("a")  # after 50 minutes of silence: begins anew
    now = 3_700.0
    assert not visits.break_is_due("a")
    now = 3_000.0 + 1_000
    assert not visits.break_is_due("a")


def test_browsers_are_told_apart_and_forgotten_in_the_end() -> None:
    now = 0.0
    visits = Visits(10, clock=lambda: now)
    visits.break_is_due("a")
    now = 11.0
    assert not visits.break_is_due("b")
    assert visits.break_is_due("a")
    for number in range(20_000):
        visits.break_is_due(str(number))
    assert len(visits._visits) <= 10_000
