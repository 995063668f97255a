"""The child's page: a talk in large type, a way to a grown-up, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import html
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import gradio as gr
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from kidrails_guard.page import gate, texts
from kidrails_guard.page.talk import LONGEST_MESSAGE, ChildPage, Talk

SCRIPT: Final = (Path(__file__).parent / "child.js").read_text(encoding="utf-8")
_FORGET_S: Final = 3 * 3600
_TO_BOX: Final = "() => { kidrails.toBox(); }"
#: Empties the box at once, so that nothing typed after it is lost.
_TAKE: Final = "async (text, talk) => [await kidrails.take(text), talk]"
_STOP_WAIT_S: Final = 5.0

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
<p id="lost" role="status" data-words="{html.escape(texts.LOST)}"></p>
"""


def people_cards(people: tuple[str, ...]) -> str:
    """Return whom the child can tell, as items of a list."""
    return "".join(f"<li>{html.escape(person)}</li>" for person in people)


def people_panel(people: tuple[str, ...]) -> str:
    """Return the panel that says whom to tell; the script shows that a note has gone."""
    return (
        '<section class="tell-panel" aria-labelledby="tell-title">'
        '<h2 id="tell-title" tabindex="-1">Go to a grown-up you trust</h2>'
        f"<ul>{people_cards(people)}</ul>"
        "<p>You can say: <q>I need to tell you something.</q> Or show them this page.</p>"
        "<p>If one grown-up does not help, or is the one who scares you, tell another one.</p>"
        f'<p id="noted" role="status" data-left="{html.escape(texts.NOTE_LEFT)}" '
        f'data-failed="{html.escape(texts.NOTE_FAILED)}"></p></section>'
    )


def tell_route(page: ChildPage) -> Route:
    """Return where the page's script leaves the note that the child wants to talk.

    Not an event of Gradio's: those end with a lost connection, and this one must come through.
    The answer is whom the child can tell now; 503 where the note could not be written.
    """

    async def leave_note(request: Request) -> Response:
        left = await run_in_threadpool(page.tell)
        return HTMLResponse(people_cards(page.people()), 200 if left else 503)

    return Route(gate.TELL, leave_note, methods=["POST"])


@dataclass(frozen=True, slots=True)
class _Answering:
    """An answer that is under way: how to end it, and whether it has ended."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)


def build_child_page(page: ChildPage, *, visit_of: Callable[[Any], str]) -> gr.Blocks:
    """Return the child's page.

    Args:
        page: what happens on it.
        visit_of: names the browser of a request.
    """
    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    first = page.begin()
    answering: dict[str | None, _Answering] = {}
    with gr.Blocks(title=texts.NAME, analytics_enabled=False, fill_width=True) as blocks:
        # Kept on this machine, in memory, for as long as the page is open.
        talk: gr.State = gr.State(None, time_to_live=_FORGET_S)
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
        # Always there, and shown by the script: it must not need a connection.
        with gr.Column(elem_id="tell-area"):
            panel = gr.HTML(people_panel(page.people()))
            gr.Button("Back to our talk", elem_id="tell-close")
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
            send = gr.Button("Send", elem_id="send", scale=1, min_width=110)
            stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=110, visible=False)
        with gr.Row(elem_id="under", equal_height=True):
            tell = gr.Button("Tell a grown-up", elem_id="tell", scale=2, min_width=150)
            anew = gr.Button("Start again", elem_id="anew", scale=1, min_width=150)
        live = gr.HTML(elem_id="live")

        def sending(busy: bool) -> tuple[gr.Button, gr.Button]:
            return gr.Button(visible=not busy), gr.Button(visible=busy)

        def open_page() -> tuple[Any, ...]:
            fresh = page.begin()
            labels = [gr.Button(idea) for idea in texts.STARTERS[page.band]]
            usual = gr.Button(elem_classes=[])
            return (fresh, fresh.bubbles(), gr.Row(visible=True), "", usual, *sending(False),
                    people_panel(page.people()), *labels)  # fmt: skip

        async def say(
            text: str, before: Talk | None, request: gr.Request
        ) -> AsyncIterator[tuple[Any, ...]]:
            who = request.session_hash
            if who in answering or not (text or "").strip():
                yield (gr.skip(),) * len(shown)
                return
            answering[who] = this = _Answering()
            try:
                talk_before, visit = before or page.begin(), visit_of(request)
                async for turn in page.answer(text, talk_before, visit=visit, stop=this.stop):
                    yield (
                        turn.talk,
                        turn.talk.bubbles(turn.unfinished),
                        gr.Row(visible=False),
                        # Emptied meanwhile: the same words again would be no change, and unsaid.
                        html.escape(turn.announce),
                        gr.Button(elem_classes="now") if turn.crisis else gr.skip(),
                        *sending(bool(turn.unfinished)),
                    )
            finally:
                del answering[who]
                this.done.set()

        async def stop_now(request: gr.Request) -> tuple[gr.Button, gr.Button]:
            # Not Gradio's `cancels`: the answer ends itself, so that its last words come last.
            if this := answering.get(request.session_hash):
                this.stop.set()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(this.done.wait(), _STOP_WAIT_S)
            return sending(False)

        shown = [talk, chat, starters, live, tell, send, stop]
        start = [talk, chat, starters, live, tell, send, stop, panel, *ideas]
        # One event for every way to ask: while an answer comes, Gradio lets none of them through.
        gr.on(
            [box.submit, send.click], say, [box, talk], shown,
            js=_TAKE, trigger_mode="once", concurrency_limit=16, **hidden,
        )  # fmt: skip
        for idea in ideas:
            idea.click(None, idea, None, js="(text) => { kidrails.ask(text); }", **hidden)
        stopping: dict[str, Any] = {**hidden, "concurrency_limit": 16}
        stop.click(stop_now, None, [send, stop], **stopping).then(None, js=_TO_BOX, **hidden)
        anew.click(stop_now, None, [send, stop], **stopping).then(
            open_page, None, start, **hidden
        ).then(None, js=_TO_BOX, **hidden)
        blocks.load(open_page, None, start, **hidden).then(
            None, js="() => { window.kidrails?.opened(); }", **hidden
        )
    return blocks
