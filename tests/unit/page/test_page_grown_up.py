"""What the grown-up's page reads, counts and changes."""

from __future__ import annotations

import errno
import html
import re
import shlex
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from audited import NOON, event, write

pytest.importorskip("gradio", reason="the page's extra is not installed; run: make install")

import gradio as gr

from kidrails_guard.audit import note_inbox
from kidrails_guard.cli import main
from kidrails_guard.page import settings
from kidrails_guard.page.chat import ProxyChat
from kidrails_guard.page.gate import Sessions
from kidrails_guard.page.grown_up import FILTERS, GrownUpPage, _kept
from kidrails_guard.page.settings import SettingsStore
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action, AgeBand

LATER = datetime.fromtimestamp(NOON, UTC) + timedelta(hours=3)
DAY_S = 86_400.0


@pytest.fixture(autouse=True)
def greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page counts the machine's day: it must be the same one everywhere."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def page_of(folder: Path, *, now: Callable[[], datetime] = lambda: LATER) -> GrownUpPage:
    store = SettingsStore(folder / "config")
    store.set_up("8642", band=AgeBand.MIDDLE)
    chat = ProxyChat("http://guard.test/v1")
    audit = folder / "audit"
    return GrownUpPage(chat, store, load_policy(), Sessions(), audit=audit, now=now)


def words(page: str) -> str:
    return " ".join(re.sub("<[^>]+>", " ", page).split())


def test_the_page_is_drawn_anew_when_the_record_or_the_day_changes(tmp_path: Path) -> None:
    now = LATER
    page = page_of(tmp_path, now=lambda: now)
    stamps = [page.stamp(), page.stamp()]
    assert stamps[0] == stamps[1]
    (tmp_path / "audit").mkdir()
    note_inbox(tmp_path / "audit", "tell_a_grown_up")
    stamps.append(page.stamp())
    assert "Tell a grown-up" in page.inbox()
    assert page.notes()[0].new
    page.mark_seen(page.newest_note())
    assert not page.notes()[0].new
    stamps.append(page.stamp())
    now += timedelta(days=1)
    stamps.append(page.stamp())
    assert len(set(stamps)) == 4


def test_only_what_was_shown_has_been_seen(tmp_path: Path) -> None:
    page, audit = page_of(tmp_path), tmp_path / "audit"
    page.mark_seen(page.newest_note())
    audit.mkdir()
    note_inbox(audit, "tell_a_grown_up", now=NOON)
    shown = page.newest_note()
    note_inbox(audit, "crisis", now=NOON + 1)  # while the grown-up presses the button
    page.mark_seen(shown)
    assert [(note.kind, note.new) for note in page.notes()] == [
        ("crisis", True),
        ("tell_a_grown_up", False),
    ]
    page.mark_seen(page.newest_note())
    note_inbox(audit, "crisis", now=NOON - DAY_S)  # the clock has been set back
    assert [note.new for note in page.notes()] == [True, False, False]


async def test_a_whole_day_counts_however_much_is_said(tmp_path: Path) -> None:
    crisis = event(0, at=NOON, action=Action.CRISIS)
    held = event(1, at=NOON + 1, action=Action.REFUSE)
    rest = (event(i, at=NOON + i) for i in range(2, 450))
    await write(tmp_path / "audit", crisis, held, *rest)
    page = page_of(tmp_path)
    everything = words(page.record(FILTERS[0]))
    assert everything.startswith(
        "450 messages today 0 answered with care 1 held back 1 needed you "
        "These are the newest 200 of 450."
    )
    assert page.record(FILTERS[0]).count("<details") == 200
    found = words(page.record(FILTERS[2]))
    assert "Needs you" in found
    assert "These are the newest" not in found
    assert page.record(FILTERS[2]).count("<details") == 2


async def test_another_day_is_not_counted_and_is_read_as_far_as_it_is_shown(
    tmp_path: Path,
) -> None:
    before = (event(i, at=NOON - DAY_S + i) for i in range(500))
    await write(tmp_path / "audit", *before, event(500, at=NOON))
    page = page_of(tmp_path)
    assert words(page.record(FILTERS[0])).startswith("1 messages today")
    assert len(page.happened()) == 400


async def test_a_filter_that_finds_nothing_says_where_it_looked(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert "Nothing yet." in page.record(FILTERS[2])
    await write(tmp_path / "audit", event(0), event(1))
    assert "None of these among 2 messages." in page.record(FILTERS[2])


@pytest.mark.parametrize("name", ["audit", "Tom & Ann's <record>"])
async def test_the_command_that_settings_show_checks_the_record(tmp_path: Path, name: str) -> None:
    await write(tmp_path / name, event(0))
    command = re.findall("<code>(.+?)</code>", _kept(tmp_path / name))[-1]
    assert main(shlex.split(html.unescape(command))[1:]) == 0


def test_another_pin_ends_the_sessions_of_those_who_knew_the_old_one(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    mine, other = page.sessions.open(), page.sessions.open()
    assert "differ" in page.set_pin("97531", "97532", mine)
    assert page.sessions.holds(other)
    assert "new PIN" in page.set_pin("97531", "97531", mine)
    assert page.sessions.holds(mine)
    assert not page.sessions.holds(other)


def test_what_cannot_be_kept_is_said_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(tmp_path)
    assert page.set_people("x" * 41) == "Not saved: at most six names of at most 40 characters."

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(settings, "write_atomic", full)
    for said in (page.set_people("Papa"), page.set_band("10-12"), page.set_pin("97531", "97531")):
        assert said.startswith("Not ")
        assert "No space left on device" in said
        assert "six names" not in said
    with pytest.raises(gr.Error, match="No space left"):
        page.mark_seen("2026-01-01T00:00:00.000+00:00")
    assert page.band is AgeBand.MIDDLE
