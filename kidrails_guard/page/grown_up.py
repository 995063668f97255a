"""The grown-up's page: what happened and why, what waits, the rules, the help lines, settings."""

from __future__ import annotations

import contextlib
import html
import os
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import gradio as gr
from starlette.concurrency import run_in_threadpool

from kidrails_guard.answers import load_answers, load_helplines
from kidrails_guard.audit import AuditError, read_events, read_inbox, read_texts
from kidrails_guard.page import texts, views
from kidrails_guard.page.chat import ProxyChat
from kidrails_guard.page.gate import Sessions, session_cookie
from kidrails_guard.page.record import Happening, Note, happenings, notes, tally
from kidrails_guard.page.settings import NotAcceptable, SettingsError, SettingsStore
from kidrails_guard.policy import Policy
from kidrails_guard.types import Action, AgeBand

#: Records that are read however old they are, and messages that are shown at once.
_NEWEST, _SHOWN = 400, 200
_EVERY_S: Final = 2.0
FILTERS: Final = ("Everything", "Care and held back", "Held back")

SCRIPT: Final = (Path(__file__).parent / "grown_up.js").read_text(encoding="utf-8")

_HEADER: Final = f"""
<header class="top"><h1>{texts.NAME} for grown-ups</h1>
<a class="grown" href="./lock">Lock and go to the child’s page</a></header>
<p id="cut-off"><span><span class="dot crisis"></span>{texts.CUT_OFF}</span></p>
"""


class GrownUpPage:
    """What the grown-up's page shows and changes.

    Args:
        chat: the guard proxy, for whether it answers.
        store: the settings.
        policy: for the rules.
        sessions: who has shown the PIN; another PIN ends those of others.
        audit: the audit folder.
        now: the present (for tests).
    """

    def __init__(
        self,
        chat: ProxyChat,
        store: SettingsStore,
        policy: Policy,
        sessions: Sessions,
        *,
        audit: Path,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.chat, self.store, self.policy, self.audit = chat, store, policy, audit
        self.sessions, self._now = sessions, now

    @property
    def band(self) -> AgeBand:
        """The age band of the child's page."""
        return self.store.band(self.policy)

    def notes(self) -> list[Note]:
        """Return the inbox, newest first."""
        settings = self.store.read()
        return notes(read_inbox(self.audit), seen_until=settings.seen_until if settings else "")

    def happened(self) -> list[Happening]:
        """Return what happened, newest first: all of today, and something of what was before."""
        midnight = self._now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        try:
            since = midnight.astimezone(UTC).isoformat(timespec="milliseconds")
            return happenings(read_events(self.audit, limit=_NEWEST, since=since))
        except (OSError, AuditError):
            return []

    async def status(self) -> str:
        """Return the line on top."""
        ready = await self.chat.ready()
        waiting = sum(note.new for note in self.notes())
        return views.status_line(ready=ready, band=self.band, new_notes=waiting)

    def stamp(self) -> tuple[object, ...]:
        """Return something that changes when the record, the inbox or the day does."""
        files = [*self.audit.glob("*.jsonl"), self.store.path]
        seen = [(f.name, s.st_mtime_ns, s.st_size) for f in files if (s := _stat(f))]
        return (self._now().astimezone().date(), *sorted(seen))

    def record(self, wanted: str) -> str:
        """Return today's counts and what happened.

        Args:
            wanted: one of `FILTERS`.
        """
        now, all_of_it = self._now(), self.happened()
        chosen = all_of_it
        if wanted == FILTERS[1]:
            chosen = [h for h in all_of_it if h.action is not Action.ALLOW or h.failed]
        elif wanted == FILTERS[2]:
            chosen = [h for h in all_of_it if h.held_back]
        shown = chosen[:_SHOWN]
        words: dict[str, str] = {}
        with contextlib.suppress(OSError, AuditError):  # without its key, there are no words
            words = read_texts(self.audit, [h.request_id for h in shown])
        counts = views.tally_view(tally(all_of_it, day=now, zone=None))
        return counts + views.happenings_view(
            shown, zone=None, words=words, chosen_of=len(all_of_it), found=len(chosen)
        )

    def inbox(self) -> str:
        """Return the inbox."""
        return views.inbox_view(self.notes(), zone=None)

    def newest_note(self) -> str:
        """Return the time of the inbox's newest entry, as it stands there; empty without one."""
        return next((entry.time for entry in read_inbox(self.audit)), "")

    def mark_seen(self, newest: str) -> None:
        """Note that the inbox has been looked at, up to the newest entry that was shown."""
        if not newest:
            return
        try:
            self.store.change(seen_until=newest)
        except SettingsError as error:
            raise gr.Error(f"Not kept: {error}", print_exception=False) from None

    def help(self) -> str:
        """Return the help lines and the words that a child in danger reads."""
        lines = views.helplines_view(load_helplines(), country=self.policy.country)
        return lines + views.crisis_view(load_answers(self.policy.locale), self.band)

    def set_band(self, band: str) -> str:
        """Set the age band; return what to say about it."""
        if band not in self.policy.bands:
            return "This policy does not serve that age band."
        try:
            self.store.change(band=AgeBand(band))
        except SettingsError as error:
            return f"Not set, the age is the one from before: {html.escape(str(error))}"
        return f"Set. The next answer is for ages {band.replace('-', ' to ')}."

    def set_people(self, people: str) -> str:
        """Set whom the child can tell, one a line; return what to say about it."""
        try:
            self.store.change(people=tuple(line for line in people.splitlines() if line.strip()))
        except NotAcceptable:
            return "Not saved: at most six names of at most 40 characters."
        except SettingsError as error:
            return f"Not saved: {html.escape(str(error))}"
        return "Saved."

    def set_pin(self, pin: str, again: str, session: str | None = None) -> str:
        """Change the PIN and end all sessions but this one; return what to say about it."""
        if pin != again:
            return "Not changed: the two PINs differ."
        try:
            self.store.change_pin(pin)
        except SettingsError as error:
            return f"Not changed: {html.escape(str(error))}"
        self.sessions.close_all(but=session)
        return "The new PIN holds from now on; whoever came in with the old one is locked out."


def build_grown_up_page(page: GrownUpPage) -> gr.Blocks:
    """Return the grown-up's page; the gate lets nobody in without the PIN."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    bands = [(f"{band.replace('-', ' to ')} years", str(band)) for band in page.policy.bands]
    with gr.Blocks(
        title=f"{texts.NAME} for grown-ups", analytics_enabled=False, fill_width=True
    ) as blocks:
        gr.HTML(_HEADER, elem_id="top")
        status = gr.HTML(elem_id="status")
        seen: gr.State = gr.State(())
        newest: gr.State = gr.State("")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("What happened"):
                wanted = gr.Radio(list(FILTERS), value=FILTERS[0], label="Show", elem_id="filter")
                record = gr.HTML(elem_id="record")
            with gr.Tab("Inbox"):
                inbox = gr.HTML(elem_id="inbox")
                mark = gr.Button("I have seen these", elem_id="mark")
            with gr.Tab("Rules"):
                gr.HTML(views.policy_view(page.policy), elem_id="rules")
            with gr.Tab("Help lines"):
                help_view = gr.HTML(elem_id="help")
            with gr.Tab("Settings", elem_id="settings"):
                band = gr.Radio(bands, label="How old is the child?", elem_id="band")
                band_said = gr.HTML(elem_classes="said")
                people = gr.Textbox(
                    label="Whom can the child tell? One a line, as the child calls them",
                    placeholder="\n".join(texts.PEOPLE),
                    lines=4,
                    max_lines=6,
                    elem_id="people",
                )
                keep = gr.Button("Save names", elem_id="keep-people")
                people_said = gr.HTML(elem_classes="said")
                with gr.Row():
                    pin = gr.Textbox(label="New PIN (4 to 12 digits)", type="password")
                    again = gr.Textbox(label="The new PIN once more", type="password")
                new_pin = gr.Button("Change the PIN", elem_id="new-pin")
                pin_said = gr.HTML(elem_classes="said")
                gr.HTML(_kept(page.audit))

        async def refresh(filter_: str, before: tuple[object, ...]) -> tuple[Any, ...]:
            # What stays the same is not read and not sent again: an opened reason stays open.
            line = await page.status()
            after = (filter_, *(await run_in_threadpool(page.stamp)))
            same = after == before[1:]
            return (
                gr.skip() if before[:1] == (line,) else line,
                gr.skip() if same else await run_in_threadpool(page.newest_note),
                gr.skip() if same else await run_in_threadpool(page.record, filter_),
                gr.skip() if same else await run_in_threadpool(page.inbox),
                (line, *after),
            )

        def open_settings() -> tuple[Any, ...]:
            settings = page.store.read()
            names = "\n".join(settings.people) if settings else ""
            return str(page.band), names, page.help()

        def change_pin(pin: str, again: str, request: gr.Request) -> str:
            return page.set_pin(pin, again, request.cookies.get(session_cookie(request.headers)))

        live = [status, newest, record, inbox, seen]
        blocks.load(refresh, [wanted, seen], live, **quiet)
        blocks.load(open_settings, None, [band, people, help_view], js=SCRIPT, **quiet)
        gr.Timer(_EVERY_S).tick(
            refresh, [wanted, seen], live, trigger_mode="once", concurrency_limit=4, **quiet
        )
        wanted.input(refresh, [wanted, seen], live, **quiet)
        mark.click(page.mark_seen, newest, None, **quiet).then(
            refresh, [wanted, seen], live, **quiet
        )
        band.input(page.set_band, band, band_said, **quiet).then(
            page.help, None, help_view, **quiet
        )
        keep.click(page.set_people, people, people_said, **quiet)
        new_pin.click(change_pin, [pin, again], pin_said, **quiet).then(
            lambda: ("", ""), None, [pin, again], **quiet
        )
    return blocks


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _kept(audit: Path) -> str:
    folder = str(audit.absolute())
    command = html.escape(f"kidrails audit verify {shlex.quote(folder)}")
    return (
        "<h2>What is kept</h2><p>Of each message: the time, its length, a keyed hash, what the "
        "guard found and did. No words, unless the service was started with text switched on. "
        f"It lies in <code>{html.escape(folder)}</code> and is deleted after the days of "
        f"retention; <code>{command}</code> shows whether somebody changed it.</p>"
    )
