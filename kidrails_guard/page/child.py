"""The child's page: a talk in large type, a way to a grown-up, and nothing else."""

from __future__ import annotations

import html
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import gradio as gr

from kidrails_guard.answers import load_answers
from kidrails_guard.audit import note_inbox
from kidrails_guard.errors import UpstreamError
from kidrails_guard.page import texts
from kidrails_guard.page.chat import Ended, Piece, ProxyChat, plain, whole_sentences
from kidrails_guard.page.settings import SettingsStore
from kidrails_guard.page.visits import Visits
from kidrails_guard.policy import Policy
from kidrails_guard.types import AgeBand, Message

_log = logging.getLogger(__name__)

#: The child's page has a box for questions, not for essays; the proxy has its own, larger limit.
LONGEST_MESSAGE: Final = 1_000
_TOKENS_A_WORD: Final = 2

SCRIPT: Final = (Path(__file__).parent / "child.js").read_text(encoding="utf-8")
_TO_BOX: Final = "() => { kidrails.toBox(); }"


@dataclass(frozen=True, slots=True)
class Line:
    """One bubble; ``repr`` never shows its text."""

    message: Message
    to_model: bool = True


@dataclass(frozen=True, slots=True)
class Talk:
    """One talk, kept in memory for as long as the page is open.

    Attributes:
        lines: the bubbles, oldest first.
        session: a random name for this talk; the proxy keeps a hash of it.
    """

    lines: tuple[Line, ...] = ()
    session: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)

    def add(self, role: str, text: str, *, to_model: bool = True) -> Talk:
        """Return the talk with one more bubble."""
        assert role in {"user", "assistant"}
        message = Message("user" if role == "user" else "assistant", text)
        return replace(self, lines=(*self.lines, Line(message, to_model)))

    def for_model(self) -> list[Message]:
        """Return the turns that the model is given."""
        return [line.message for line in self.lines if line.to_model]

    def bubbles(self, unfinished: str = "") -> list[dict[str, str]]:
        """Return the bubbles as Gradio's chat shows them."""
        shown = [{"role": ln.message.role, "content": ln.message.content} for ln in self.lines]
        return [*shown, {"role": "assistant", "content": unfinished}] if unfinished else shown


class ChildPage:
    """What happens on the child's page.

    Args:
        chat: the guard proxy.
        store: what the grown-up set.
        policy: for the fixed words and the break.
        audit: the folder with the grown-up's inbox.
        visits: how long each browser talks.
    """

    def __init__(
        self,
        chat: ProxyChat,
        store: SettingsStore,
        policy: Policy,
        *,
        audit: Path,
        visits: Visits | None = None,
    ) -> None:
        self.chat, self.store, self.policy, self.audit = chat, store, policy, audit
        self.visits = visits or Visits(policy.break_after_minutes * 60)
        self._answers = load_answers(policy.locale)

    @property
    def band(self) -> AgeBand:
        """The age band that the grown-up set."""
        settings = self.store.read()
        band = settings.band if settings else self.policy.fallback_band
        return band if band in self.policy.bands else self.policy.youngest

    def begin(self) -> Talk:
        """Return a new talk, which begins by saying what this is."""
        talk = Talk()
        hello = self._answers.notice("disclosure", self.band, seed=talk.session)
        return talk.add("assistant", hello, to_model=False)

    async def answer(self, text: str, talk: Talk, *, visit: str) -> AsyncIterator[Turn]:
        """Yield what the page shows while the child's message is answered.

        Args:
            text: the child's message.
            talk: the talk before it.
            visit: the browser, for the break.
        """
        band = self.band
        talk = talk.add("user", text.strip()[:LONGEST_MESSAGE])
        due = self.visits.break_is_due(visit)
        yield Turn(talk, texts.THINKING)
        said, ended = "", Ended("stop")
        tokens = self.policy.bands[band].max_words * _TOKENS_A_WORD
        try:
            async for event in self.chat.stream(
                talk.for_model(), band=band, session=talk.session, max_tokens=tokens
            ):
                if isinstance(event, Piece):
                    said += event.text
                    if shown := plain(said):
                        yield Turn(talk, shown)
                else:
                    ended = event
        except Exception as error:
            # By its type alone, unless we wrote it: it could hold the child's words.
            _log.error("%s", error if isinstance(error, UpstreamError) else type(error).__name__)
            kind = self._answers.notice(
                "interrupted" if plain(said) else "unavailable", band, seed=talk.session
            )
            talk = talk.add("assistant", f"{plain(said)}\n{kind}".strip(), to_model=False)
            yield Turn(talk, announce=kind)
            return
        reply = plain(whole_sentences(said) if ended.reason == "length" else said)
        if not reply:
            reply = self._answers.notice("unavailable", band, seed=talk.session)
        talk = talk.add("assistant", reply)
        announce = reply
        if due:
            pause = self._answers.notice("break", band, seed=talk.session)
            talk, announce = talk.add("assistant", pause, to_model=False), f"{reply} {pause}"
        yield Turn(talk, announce=announce, crisis=ended.action == "crisis")

    def tell(self) -> None:
        """Put a note into the grown-up's inbox."""
        try:
            note_inbox(self.audit, "tell_a_grown_up", band=str(self.band), tenant="page")
        except OSError as error:
            # The child is sent to a grown-up all the same.
            _log.error("%s: the inbox cannot be written (%s)", self.audit, error.strerror)

    def people(self) -> tuple[str, ...]:
        """Return whom the child can tell."""
        settings = self.store.read()
        return (settings.people if settings else ()) or texts.PEOPLE


@dataclass(frozen=True, slots=True)
class Turn:
    """What the page shows at one moment of an answer.

    Attributes:
        talk: the talk so far.
        unfinished: the answer as far as it has come.
        announce: what a screen reader is to say; whole answers only, or it would stutter.
        crisis: the way to a grown-up is to stand out.
    """

    talk: Talk
    unfinished: str = field(default="", repr=False)
    announce: str = field(default="", repr=False)
    crisis: bool = False


def people_panel(people: tuple[str, ...]) -> str:
    """Return the panel that says whom to tell, and that a note has gone to the grown-up."""
    cards = "".join(f"<li>{html.escape(person)}</li>" for person in people)
    return (
        '<section class="tell-panel" aria-labelledby="tell-title">'
        '<h2 id="tell-title" tabindex="-1">Go to a grown-up you trust</h2>'
        f"<ul>{cards}</ul>"
        "<p>You can say: <q>I need to tell you something.</q> Or show them this page.</p>"
        "<p>If one grown-up does not help, or is the one who scares you, tell another one.</p>"
        "<p>I left a note for the grown-up of this page that you want to talk. "
        "Your words are not in it.</p></section>"
    )


_HEADER: Final = f"""
<header class="top">
  <div class="face" aria-hidden="true"><svg viewBox="0 0 64 64" width="56" height="56">
    <rect x="10" y="18" width="44" height="36" rx="12" fill="#0b6477"/>
    <rect x="16" y="25" width="32" height="20" rx="9" fill="#e8f5f7"/>
    <circle cx="25.5" cy="35" r="3.5" fill="#0b3b47"/>
    <circle cx="38.5" cy="35" r="3.5" fill="#0b3b47"/>
    <path d="M27 48.5h10" stroke="#e8f5f7" stroke-width="3" stroke-linecap="round"/>
    <path d="M32 18v-8" stroke="#0b6477" stroke-width="4" stroke-linecap="round"/>
    <circle cx="32" cy="8" r="4" fill="#f2b134"/></svg></div>
  <h1>{texts.NAME}</h1><p class="program">{texts.PROGRAM}</p>
  <a class="grown" href="./grown-up/">For grown-ups</a>
</header>
"""


def build_child_page(page: ChildPage, *, visit_of: Callable[[Any], str]) -> gr.Blocks:
    """Return the child's page.

    Args:
        page: what happens on it.
        visit_of: names the browser of a request.
    """
    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    first = page.begin()
    with gr.Blocks(title=texts.NAME, analytics_enabled=False, fill_width=True) as blocks:
        talk: gr.State = gr.State(None, time_to_live=3 * 3600)
        gr.HTML(_HEADER, elem_id="top")
        chat = gr.Chatbot(
            first.bubbles(),
            elem_id="talk",
            label="Our talk",
            show_label=False,
            container=False,
            height="100%",
            buttons=[],
            feedback_options=None,
            render_markdown=False,
            latex_delimiters=[],
            allow_file_downloads=False,
            group_consecutive_messages=False,
            layout="bubble",
        )
        with gr.Row(elem_id="starters", equal_height=True) as starters:
            ideas = [gr.Button(idea, elem_classes="idea") for idea in texts.STARTERS[page.band]]
        with gr.Column(elem_id="tell-area", visible=False) as tell_area:
            panel = gr.HTML()
            close = gr.Button("Back to our talk", elem_id="tell-close")
        with gr.Row(elem_id="write", equal_height=True):
            box = gr.Textbox(
                elem_id="box",
                label="Your question",
                placeholder="Write here …",
                show_label=True,
                lines=1,
                max_lines=4,
                max_length=LONGEST_MESSAGE,
                autofocus=True,
                scale=5,
                html_attributes=gr.InputHTMLAttributes(
                    autocomplete="off", autocorrect="off", spellcheck=True, enterkeyhint="send"
                ),
            )
            send = gr.Button("Send", elem_id="send", variant="primary", scale=1, min_width=110)
        with gr.Row(elem_id="under", equal_height=True):
            tell = gr.Button("Tell a grown-up", elem_id="tell", scale=2, min_width=150)
            anew = gr.Button("Start again", elem_id="anew", scale=1, min_width=150)
        live = gr.HTML(elem_id="live")

        def open_page() -> tuple[Any, ...]:
            fresh = page.begin()
            labels = [gr.Button(idea) for idea in texts.STARTERS[page.band]]
            plain_tell = gr.Button(elem_classes=[])
            return (fresh, fresh.bubbles(), gr.Row(visible=True), "", plain_tell, *labels)

        async def say(
            text: str, before: Talk | None, request: gr.Request
        ) -> AsyncIterator[tuple[Any, ...]]:
            if not (text or "").strip():
                yield (gr.skip(),) * 6
                return
            async for turn in page.answer(text, before or page.begin(), visit=visit_of(request)):
                yield (
                    "",
                    turn.talk.bubbles(turn.unfinished),
                    turn.talk,
                    gr.Row(visible=False),
                    html.escape(turn.announce) if turn.announce else gr.skip(),
                    gr.Button(elem_classes="now") if turn.crisis else gr.skip(),
                )

        def tell_now() -> tuple[Any, Any]:
            page.tell()
            return gr.Column(visible=True), people_panel(page.people())

        start = [talk, chat, starters, live, tell, *ideas]
        shown = [box, chat, talk, starters, live, tell]
        blocks.load(open_page, None, start, js=None, **hidden)
        asked = gr.on(
            [box.submit, send.click],
            say,
            [box, talk],
            shown,
            trigger_mode="once",
            concurrency_limit=16,
            **hidden,
        )
        for idea in ideas:
            idea.click(say, [idea, talk], shown, trigger_mode="once", **hidden).then(
                None, js=_TO_BOX, **hidden
            )
        send.click(None, js=_TO_BOX, **hidden)
        tell.click(tell_now, None, [tell_area, panel], **hidden).then(
            None, js="() => { kidrails.toTell(); }", **hidden
        )
        close.click(lambda: gr.Column(visible=False), None, tell_area, js=_TO_BOX, **hidden)
        anew.click(open_page, None, start, cancels=[asked], **hidden).then(
            lambda: gr.Column(visible=False), None, tell_area, js=_TO_BOX, **hidden
        )
    return blocks
