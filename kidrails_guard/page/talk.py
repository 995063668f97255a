"""What happens on the child's page: the talk, its answers, the way to a grown-up."""

from __future__ import annotations

import asyncio
import contextlib
import html
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from kidrails_guard.answers import load_answers
from kidrails_guard.audit import note_inbox
from kidrails_guard.errors import UpstreamError
from kidrails_guard.page import texts
from kidrails_guard.page.chat import Ended, Piece, ProxyChat, once, plain, whole_sentences
from kidrails_guard.page.settings import SettingsError, SettingsStore
from kidrails_guard.policy import Policy
from kidrails_guard.types import AgeBand, Message

_log = logging.getLogger(__name__)

#: The child's page has a box for questions, not for essays; the proxy has its own, larger limit.
LONGEST_MESSAGE: Final = 1_000
#: In English; a little more than a model needs, so that a last sentence can end.
_TOKENS_A_WORD: Final = 1.5


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
        session: a random name for this talk; it picks the variants of fixed words.
    """

    lines: tuple[Line, ...] = ()
    session: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)

    def add(self, role: str, text: str, *, to_model: bool = True) -> Talk:
        """Return the talk with one more bubble."""
        assert role in {"user", "assistant"}
        message = Message("user" if role == "user" else "assistant", text)
        return replace(self, lines=(*self.lines, Line(message, to_model)))

    def for_model(self) -> list[Message]:
        """Return the turns that the model is given; question and answer take turns.

        A question that got no answer is left out: many chat templates accept no two in a row.
        """
        turns: list[Message] = []
        for message in (line.message for line in self.lines if line.to_model):
            if turns and turns[-1].role == message.role:
                turns.pop()
            turns.append(message)
        return turns

    def bubbles(self, unfinished: str = "") -> list[dict[str, str]]:
        """Return the bubbles for Gradio's chat, which shows HTML also where Markdown is off."""
        said = [(line.message.role, line.message.content) for line in self.lines]
        said += [("assistant", unfinished)] if unfinished else []
        return [{"role": r, "content": html.escape(text, quote=False)} for r, text in said]


class ChildPage:
    """What happens on the child's page.

    Args:
        chat: the guard proxy.
        store: what the grown-up set.
        policy: for the fixed words.
        audit: the folder with the grown-up's inbox.
    """

    def __init__(
        self,
        chat: ProxyChat,
        store: SettingsStore,
        policy: Policy,
        *,
        audit: Path,
    ) -> None:
        self.chat, self.store, self.policy, self.audit = chat, store, policy, audit
        self._answers = load_answers(policy.locale)

    @property
    def band(self) -> AgeBand:
        """The age band that the grown-up set."""
        return self.store.band(self.policy)

    def begin(self) -> Talk:
        """Return a new talk, which begins by saying what this is."""
        talk = Talk()
        hello = self._answers.notice("disclosure", self.band, seed=talk.session)
        return talk.add("assistant", hello, to_model=False)

    async def answer(
        self, text: str, talk: Talk, *, visit: str = "", stop: asyncio.Event | None = None
    ) -> AsyncGenerator[Turn, None]:
        """Yield what the page shows while the child's message is answered.

        Args:
            text: the child's message.
            talk: the talk before it.
            visit: names the browser to the guard, which suggests breaks and remembers what
                earlier turns add up to; a talk that is begun anew does not begin that anew.
            stop: set when the child does not want more; what had come stays.
        """
        stop = stop or asyncio.Event()
        band = self.band
        talk = talk.add("user", text.strip()[:LONGEST_MESSAGE])
        yield Turn(talk, texts.THINKING)
        said, ended = "", Ended("stop")
        tokens = round(self.policy.bands[band].max_words * _TOKENS_A_WORD)
        try:
            asked = self.chat.stream(
                talk.for_model(), band=band, session=visit or talk.session, max_tokens=tokens
            )
            async with aclosing(asked) as events, aclosing(_until(stop, events)) as wanted:
                async for event in wanted:
                    if isinstance(event, Ended):
                        ended = event
                        continue
                    said += event.text
                    if once(said) != said:
                        break
                    if shown := plain(said):
                        yield Turn(talk, shown)
        except Exception as error:
            # By its type alone, unless we wrote it: it could hold the child's words.
            _log.error("%s", error if isinstance(error, UpstreamError) else type(error).__name__)
            kind = self._answers.notice(
                "interrupted" if plain(said) else "unavailable", band, seed=talk.session
            )
            talk = talk.add("assistant", f"{plain(said)}\n{kind}".strip(), to_model=False)
            yield Turn(talk, announce=kind)
            return
        if stop.is_set():
            talk = self._stopped(talk, plain(said))
            yield Turn(talk, announce=texts.STOPPED)
            return
        reply = plain(whole_sentences(once(said)) if ended.reason == "length" else once(said))
        if not reply:
            reply = self._answers.notice("unavailable", band, seed=talk.session)
        talk = talk.add("assistant", reply)
        yield Turn(talk, announce=reply, crisis=ended.action == "crisis")

    def _stopped(self, talk: Talk, unfinished: str) -> Talk:
        reply = whole_sentences(unfinished)
        return talk.add("assistant", f"{reply}\n{texts.STOPPED}".strip(), to_model=False)

    def tell(self) -> bool:
        """Put a note into the grown-up's inbox; return whether it is there."""
        band = ""
        with contextlib.suppress(SettingsError):  # broken settings must not keep the note back
            band = str(self.band)
        try:
            self.audit.mkdir(parents=True, exist_ok=True)
            note_inbox(self.audit, "tell_a_grown_up", band=band, tenant="page")
        except OSError as error:
            # The child is sent to a grown-up all the same.
            _log.error("%s: the inbox cannot be written (%s)", self.audit, error.strerror)
            return False
        return True

    def people(self) -> tuple[str, ...]:
        """Return whom the child can tell."""
        try:
            settings = self.store.read()
        except SettingsError:
            settings = None
        return (settings.people if settings else ()) or texts.PEOPLE


async def _until(
    stop: asyncio.Event, events: AsyncGenerator[Piece | Ended, None]
) -> AsyncGenerator[Piece | Ended, None]:
    """Yield what comes until it ends, or until the child does not want more."""
    stopped = asyncio.ensure_future(stop.wait())
    coming: asyncio.Future[Piece | Ended | None] | None = None
    try:
        while not stop.is_set():
            coming = asyncio.ensure_future(anext(events, None))
            await asyncio.wait({coming, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done() or (event := coming.result()) is None:
                return
            yield event
    finally:
        stopped.cancel()
        if coming is not None and coming.cancel():
            # Until it has let go of the connection, the generator cannot be closed.
            await asyncio.wait({coming})


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
