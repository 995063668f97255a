"""What happens on the child's page, with the guard proxy played by a function."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from kidrails_guard.answers import load_answers
from kidrails_guard.audit import read_inbox
from kidrails_guard.page import texts
from kidrails_guard.page.chat import ProxyChat
from kidrails_guard.page.child import people_panel
from kidrails_guard.page.settings import SettingsStore
from kidrails_guard.page.talk import LONGEST_MESSAGE, ChildPage, Talk, Turn
from kidrails_guard.policy import load_policy
from kidrails_guard.types import AgeBand

Answer = Callable[[httpx.Request], httpx.Response]


class Stream(httpx.AsyncByteStream):
    def __init__(
        self, pieces: list[str], reason: str, *, fails: bool, closed: Callable[[], None]
    ) -> None:
        self.pieces, self.reason, self.fails = pieces, reason, fails
        self.closed = closed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for text, reason in [*((p, None) for p in self.pieces), ("", self.reason)]:
            if self.fails and reason:
                raise httpx.ReadError("cut")
            if reason == "never":
                await asyncio.Event().wait()
            choice = {"delta": {"content": text}, "finish_reason": reason}
            yield f"data: {json.dumps({'choices': [choice]})}\n\n".encode()

    async def aclose(self) -> None:
        self.closed()


class Guard:
    """The guard proxy; remembers what it was asked."""

    def __init__(
        self, *pieces: str, reason: str = "stop", action: str = "allow", fails: bool = False
    ) -> None:
        self.pieces, self.reason, self.action, self.fails = list(pieces), reason, action, fails
        self.asked: list[dict[str, object]] = []
        self.sessions: list[str] = []
        self.down = False
        self.closed = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused")
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "small"}]})
        self.asked.append(json.loads(request.content))
        self.sessions.append(request.headers["x-kidrails-session"])
        return httpx.Response(
            200,
            headers={"x-kidrails-action": self.action},
            stream=Stream(self.pieces, self.reason, fails=self.fails, closed=self._close),
        )

    def _close(self) -> None:
        self.closed += 1


def page_of(folder: Path, guard: Guard) -> ChildPage:
    store = SettingsStore(folder)
    store.set_up("8642", band=AgeBand.MIDDLE)
    return ChildPage(
        ProxyChat("http://guard.test/v1", transport=httpx.MockTransport(guard)),
        store,
        load_policy(),
        audit=folder / "audit",
    )


async def talk_to(page: ChildPage, text: str, talk: Talk | None = None) -> list[Turn]:
    return [turn async for turn in page.answer(text, talk or page.begin(), visit="v")]


def last(turn: Turn) -> str:
    return turn.talk.lines[-1].message.content


async def test_the_talk_begins_by_saying_what_this_is(tmp_path: Path) -> None:
    guard = Guard("Wolves ", "howl.")
    page = page_of(tmp_path, guard)
    talk = page.begin()
    assert "computer program" in talk.lines[0].message.content
    turns = await talk_to(page, "why?", talk)
    assert guard.asked[0]["messages"] == [{"role": "user", "content": "why?"}]
    assert [t.unfinished for t in turns] == [texts.THINKING, "Wolves", "Wolves howl.", ""]
    assert last(turns[-1]) == "Wolves howl."


async def test_a_screen_reader_hears_the_whole_answer_once(tmp_path: Path) -> None:
    turns = await talk_to(page_of(tmp_path, Guard("Wolves ", "howl.")), "why?")
    assert [t.announce for t in turns if t.announce] == ["Wolves howl."]


async def test_the_second_question_carries_the_first(tmp_path: Path) -> None:
    guard = Guard("Yes.")
    page = page_of(tmp_path, guard)
    first = (await talk_to(page, "one?"))[-1].talk
    await talk_to(page, "two?", first)
    messages = guard.asked[1]["messages"]
    assert isinstance(messages, list)
    assert [m["content"] for m in messages] == ["one?", "Yes.", "two?"]


async def test_of_a_long_talk_the_newest_turns_are_sent_beginning_with_a_question(
    tmp_path: Path,
) -> None:
    guard = Guard("They howl.")
    page = page_of(tmp_path, guard)
    talk = page.begin()
    for number in range(9):
        talk = (await talk_to(page, f"question {number}", talk))[-1].talk
    for body in guard.asked:
        messages = body["messages"]
        assert isinstance(messages, list)
        roles = [message["role"] for message in messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert len(roles) < 13


async def test_a_crisis_makes_the_way_to_a_grown_up_stand_out(tmp_path: Path) -> None:
    guard = Guard("Go to a grown-up now.", reason="content_filter", action="crisis")
    turns = await talk_to(page_of(tmp_path, guard), "…")
    assert [t.crisis for t in turns] == [False, False, True]


async def test_a_guard_that_is_down_is_told_kindly_and_the_page_goes_on(tmp_path: Path) -> None:
    guard = Guard("Yes.")
    page = page_of(tmp_path, guard)
    guard.down = True
    talk = page.begin()
    turns = await talk_to(page, "one?", talk)
    kind = load_answers("en").notice("unavailable", AgeBand.MIDDLE, seed=talk.session)
    assert last(turns[-1]) == kind == turns[-1].announce
    guard.down = False
    assert last((await talk_to(page, "two?", turns[-1].talk))[-1]) == "Yes."


async def test_what_nobody_foresaw_is_told_kindly_and_logged_by_its_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    page = page_of(tmp_path, Guard("Yes."))

    def fail(*_: object, **__: object) -> None:
        raise LookupError("the child wrote: secret")

    monkeypatch.setattr(page.chat, "stream", fail)
    turns = await talk_to(page, "secret")
    assert len(last(turns[-1])) > 20
    assert "LookupError" in caplog.text
    assert "secret" not in caplog.text


async def test_an_answer_that_breaks_off_keeps_what_came_and_says_so(tmp_path: Path) -> None:
    guard = Guard("Wolves howl", fails=True)
    page = page_of(tmp_path, guard)
    talk = page.begin()
    turns = await talk_to(page, "why?", talk)
    kind = load_answers("en").notice("interrupted", AgeBand.MIDDLE, seed=talk.session)
    assert last(turns[-1]) == f"Wolves howl\n{kind}"


async def test_an_answer_that_grew_too_long_ends_with_a_sentence(tmp_path: Path) -> None:
    guard = Guard("Bees dance. They tell where the fl", reason="length")
    turns = await talk_to(page_of(tmp_path, guard), "why?")
    assert last(turns[-1]) == "Bees dance."


async def test_an_answer_that_goes_round_in_circles_ends_where_the_circle_begins(
    tmp_path: Path,
) -> None:
    circle = "They howl to find each other. "
    guard = Guard("Wolves live in packs. ", *[circle] * 50, fails=True)
    turns = await talk_to(page_of(tmp_path, guard), "why?")
    assert last(turns[-1]) == "Wolves live in packs. They howl to find each other."
    assert len(turns) == 4


async def test_an_empty_answer_is_never_an_empty_bubble(tmp_path: Path) -> None:
    turns = await talk_to(page_of(tmp_path, Guard("", "  ")), "why?")
    assert len(last(turns[-1])) > 20


async def test_the_guard_knows_the_browser_over_talks(tmp_path: Path) -> None:
    guard = Guard("Yes.")
    page = page_of(tmp_path, guard)
    for _ in range(2):
        await talk_to(page, "one?")
    assert guard.sessions == ["v", "v"]


async def test_the_band_is_the_one_that_the_grown_up_set(tmp_path: Path) -> None:
    guard = Guard("Yes.")
    page = page_of(tmp_path, guard)
    await talk_to(page, "one?")
    page.store.change(band=AgeBand.EARLY)
    await talk_to(page, "two?")
    words = {band: rule.max_words for band, rule in page.policy.bands.items()}
    asked = [body["max_tokens"] for body in guard.asked]
    assert asked == [1.5 * words[AgeBand.MIDDLE], 1.5 * words[AgeBand.EARLY]]


def test_a_band_that_the_policy_does_not_serve_becomes_the_youngest(tmp_path: Path) -> None:
    page = page_of(tmp_path, Guard())
    bands = {b: r for b, r in page.policy.bands.items() if b is not AgeBand.MIDDLE}
    page.policy = page.policy.model_copy(update={"bands": bands})
    assert page.band is AgeBand.EARLY


async def test_an_answer_that_the_child_stops_keeps_what_came(tmp_path: Path) -> None:
    guard = Guard("Wolves howl. ", "They do it to fi", "nd", " each other.")
    page = page_of(tmp_path, guard)
    stop = asyncio.Event()
    turns = []
    async for turn in page.answer("one?", page.begin(), stop=stop):
        turns.append(turn)
        if turn.unfinished.endswith("to fi"):
            stop.set()
    assert last(turns[-1]) == f"Wolves howl.\n{texts.STOPPED}"
    assert (turns[-1].unfinished, turns[-1].announce) == ("", texts.STOPPED)
    # Two questions in a row would be refused by many chat templates.
    await talk_to(page, "two?", turns[-1].talk)
    assert guard.asked[1]["messages"] == [{"role": "user", "content": "two?"}]


async def test_an_answer_that_does_not_come_can_be_stopped(tmp_path: Path) -> None:
    guard = Guard("Wolves ", reason="never")
    page = page_of(tmp_path, guard)
    stop = asyncio.Event()
    turns = []
    async for turn in page.answer("one?", page.begin(), stop=stop):
        turns.append(turn)
        if turn.unfinished == "Wolves":
            asyncio.get_running_loop().call_later(0.05, stop.set)
    assert last(turns[-1]) == f"Wolves\n{texts.STOPPED}"
    assert guard.closed == 1  # the model is not kept busy for nobody


async def test_a_message_has_a_bound(tmp_path: Path) -> None:
    guard = Guard("Yes.")
    await talk_to(page_of(tmp_path, guard), "x" * 5_000)
    messages = guard.asked[0]["messages"]
    assert isinstance(messages, list)
    assert len(messages[-1]["content"]) == LONGEST_MESSAGE


def test_telling_a_grown_up_leaves_a_note_without_words(tmp_path: Path) -> None:
    page = page_of(tmp_path, Guard())
    assert page.tell()
    (entry,) = read_inbox(page.audit)
    assert (entry.kind, entry.band) == ("tell_a_grown_up", "7-9")


def test_a_note_that_cannot_be_written_does_not_keep_the_child_from_going(tmp_path: Path) -> None:
    page = page_of(tmp_path, Guard())
    page.audit = tmp_path / "page.json"  # a file where a folder should be
    assert not page.tell()
    assert page.people() == texts.PEOPLE


def test_the_panel_names_the_people_that_the_grown_up_chose(tmp_path: Path) -> None:
    page = page_of(tmp_path, Guard())
    page.store.change(people=("Papa", "<b>Aunt</b>"))
    panel = people_panel(page.people())
    assert "<li>Papa</li><li>&lt;b&gt;Aunt&lt;/b&gt;</li>" in panel
    assert texts.NOTE_LEFT not in re.sub("<[^>]*>", "", panel)  # said only when it is there
    assert "another" in panel  # the one who is named may be the one who hurts


@pytest.mark.parametrize("value", [Talk().add("user", "secret words")])
def test_repr_shows_no_words(value: Talk) -> None:
    assert "secret" not in repr(value)
    assert "secret" not in repr(Turn(value, "secret", "secret"))


def test_bubbles_hold_no_html_whatever_was_said() -> None:
    talk = Talk().add("user", "is 5 < 6 & <b>7</b>?")
    shown = [bubble["content"] for bubble in talk.bubbles("<a href='http://x.example'>here</a>")]
    assert shown == [
        "is 5 &lt; 6 &amp; &lt;b&gt;7&lt;/b&gt;?",
        "&lt;a href='http://x.example'&gt;here&lt;/a&gt;",
    ]
    assert talk.for_model()[0].content == "is 5 < 6 & <b>7</b>?"
