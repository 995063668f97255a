"""The child's page: a talk in large type, a way to a grown-up, and nothing else."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import gradio as gr

from kidrails_guard.page import texts
from kidrails_guard.page.talk import LONGEST_MESSAGE, ChildPage, Talk

SCRIPT: Final = (Path(__file__).parent / "child.js").read_text(encoding="utf-8")
_FORGET_S: Final = 3 * 3600
_TO_BOX: Final = "() => { kidrails.toBox(); }"

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


def build_child_page(page: ChildPage, *, visit_of: Callable[[Any], str]) -> gr.Blocks:
    """Return the child's page.

    Args:
        page: what happens on it.
        visit_of: names the browser of a request.
    """
    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    first = page.begin()
    with gr.Blocks(title=texts.NAME, analytics_enabled=False, fill_width=True) as blocks:
        # Kept on this machine, in memory, for as long as the page is open.
        talk: gr.State = gr.State(None, time_to_live=_FORGET_S)
        coming: gr.State = gr.State("", time_to_live=_FORGET_S)
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
            return (fresh, "", fresh.bubbles(), gr.Row(visible=True), "", usual, *sending(False),
                    *labels)  # fmt: skip

        async def say(
            text: str, before: Talk | None, request: gr.Request
        ) -> AsyncIterator[tuple[Any, ...]]:
            if not (text or "").strip():
                yield (gr.skip(),) * len(shown)
                return
            async for turn in page.answer(text, before or page.begin(), visit=visit_of(request)):
                yield (
                    turn.talk,
                    turn.unfinished,
                    turn.talk.bubbles(turn.unfinished),
                    gr.Row(visible=False),
                    html.escape(turn.announce) if turn.announce else gr.skip(),
                    gr.Button(elem_classes="now") if turn.crisis else gr.skip(),
                    *sending(bool(turn.unfinished)),
                    "",
                )

        def stop_now(talk: Talk, unfinished: str) -> tuple[Any, ...]:
            ended = page.stopped(talk, unfinished)
            return (ended, "", ended.bubbles(), texts.STOPPED, *sending(False))

        def tell_now() -> tuple[Any, Any]:
            page.tell()
            return gr.Column(visible=True), people_panel(page.people())

        shown = [talk, coming, chat, starters, live, tell, send, stop, box]
        start = [talk, coming, chat, starters, live, tell, send, stop, *ideas]
        # One answer at a time, whichever way it was asked for.
        ask: dict[str, Any] = {**hidden, "trigger_mode": "once", "concurrency_limit": 16}
        asked = [gr.on([box.submit, send.click], say, [box, talk], shown, **ask)]
        asked += [idea.click(say, [idea, talk], shown, **ask) for idea in ideas]
        for event in asked[1:]:
            event.then(None, js=_TO_BOX, **hidden)
        send.click(None, js=_TO_BOX, **hidden)
        stop.click(
            stop_now,
            [talk, coming],
            [talk, coming, chat, live, send, stop],
            cancels=asked,
            **hidden,
        ).then(None, js=_TO_BOX, **hidden)
        tell.click(tell_now, None, [tell_area, panel], **hidden).then(
            None, js="() => { kidrails.toTell(); }", **hidden
        )
        close.click(lambda: gr.Column(visible=False), None, tell_area, js=_TO_BOX, **hidden)
        anew.click(open_page, None, start, cancels=asked, **hidden).then(None, js=_TO_BOX, **hidden)
        blocks.load(open_page, None, start, **hidden)
    return blocks
