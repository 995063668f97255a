"""Talks to the guard proxy as any OpenAI client would, and hands its answer on piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from kidrails_guard.errors import UpstreamError
from kidrails_guard.types import AgeBand, Message

#: Turns that are sent along; small models have small windows. Odd, because a talk that ends with a
#: question then begins with one: many chat templates accept nothing else.
_TURNS_SENT: Final = 11
_CONNECT_S: Final = 5.0
#: Longest silence: the guard holds text back until it has passed, and a busy machine is slow.
_SILENCE_S: Final = 120.0
_SHORTEST_CIRCLE: Final = 20
_SENTENCE_END: Final = re.compile(r"[.!?…][\"'”’)\]]*(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Piece:
    """More of the answer; ``repr`` never shows it."""

    text: str

    def __repr__(self) -> str:
        return f"Piece({len(self.text)} characters)"


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is over.

    Attributes:
        reason: OpenAI's ``finish_reason``: ``stop``, ``length`` or ``content_filter``.
        action: what the guard did about the child's message, where the proxy says so.
    """

    reason: str
    action: str = ""


class ProxyChat:
    """A client of the guard proxy.

    Args:
        base_url: the proxy's, with ``/v1``.
        keys: API key by age band; the proxy takes the band from the key. Empty for a proxy
            without keys, whose band is fixed.
        sampling: further fields of every request, such as ``temperature``; only those that the
            model server knows.
        transport: instead of the network (for tests).
    """

    def __init__(
        self,
        base_url: str,
        *,
        keys: Mapping[AgeBand, str] | None = None,
        sampling: Mapping[str, float] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._keys = dict(keys or {})
        self._sampling = dict(sampling or {})
        # Not the machine's own proxy settings: a child's words go to the guard and nowhere else.
        self._client = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            # Reading the machine's certificates takes half a second; plain HTTP needs none.
            verify=self.base_url.startswith("https:"),
            timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S),
        )
        self._model: str | None = None

    def _headers(self, band: AgeBand, session: str) -> dict[str, str]:
        headers = {"x-kidrails-session": session} if session else {}
        if key := self._keys.get(band):
            headers["authorization"] = f"Bearer {key}"
        return headers

    async def model(self, band: AgeBand) -> str:
        """Return the name of the first model that the proxy offers.

        Raises:
            UpstreamError: it offers none or does not answer.
        """
        if self._model is None:
            try:
                reply = await self._client.get(
                    f"{self.base_url}/models", headers=self._headers(band, "")
                )
                self._model = str(reply.raise_for_status().json()["data"][0]["id"])
            except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
                raise UpstreamError(_unanswered(self.base_url, error)) from None
        return self._model

    async def ready(self) -> bool:
        """Return whether the proxy and the model behind it answer now."""
        try:
            url = f"{self.base_url.removesuffix('/v1')}/ready"
            return (await self._client.get(url, timeout=_CONNECT_S)).status_code == 200
        except httpx.HTTPError:
            return False

    async def stream(
        self, turns: Sequence[Message], *, band: AgeBand, session: str, max_tokens: int
    ) -> AsyncGenerator[Piece | Ended, None]:
        """Yield the answer to the last turn in pieces, then how it ended.

        Args:
            turns: the talk so far, the child's message last.
            band: the age band.
            session: says which talk this is; the proxy keeps a hash of it.
            max_tokens: bound on the answer.

        Raises:
            UpstreamError: the proxy does not answer, or not as OpenAI's API does.
        """
        body = {
            "model": await self.model(band),
            "messages": [{"role": m.role, "content": m.content} for m in turns[-_TURNS_SENT:]],
            "max_tokens": max_tokens,
            "stream": True,
            **self._sampling,
        }
        try:
            async with self._client.stream(
                "POST",
                f"{self.base_url}/chat/completions",
                json=body,
                headers=self._headers(band, session),
            ) as reply:
                reply.raise_for_status()
                action, reason = reply.headers.get("x-kidrails-action", ""), ""
                async for line in reply.aiter_lines():
                    if not line.startswith("data:") or line[5:].strip() == "[DONE]":
                        continue
                    choice = _choice(json.loads(line[5:]))
                    if text := (choice.get("delta") or {}).get("content"):
                        yield Piece(str(text))
                    reason = choice.get("finish_reason") or reason
        except (httpx.HTTPError, ValueError, KeyError, AttributeError, TypeError) as error:
            self._model = None  # another one may be served when it is back
            raise UpstreamError(_unanswered(self.base_url, error)) from None
        yield Ended(reason or "stop", action)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _choice(event: Any) -> dict[str, Any]:
    """Return an event's first choice; the last event (usage) has none."""
    if "error" in event:
        raise ValueError("the stream reported an error")
    choices = event.get("choices") or [{}]
    return dict(choices[0])


def _unanswered(url: str, error: Exception) -> str:
    """Say which server failed and how, without quoting what was said."""
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
    how = f"HTTP status {status}" if status else type(error).__name__
    return f"the guard at {url} does not answer as it should ({how})"


def plain(text: str) -> str:
    r"""Return a model's Markdown as plain words: the child's page shows no links, pictures or HTML.

    >>> plain("**Wolves** howl:\n* to find [friends](http://x.example)\n* `loudly`")
    'Wolves howl:\n• to find friends\n• loudly'
    """
    text = re.sub(r"!?\[([^\]\n]*)\]\([^)\n]*\)", r"\1", text)
    text = re.sub(r"(?m)^\s{0,3}#{1,6}\s+", "", text)
    text = re.sub(r"(?m)^(\s*)[*+-]\s+", r"\1• ", text)
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", text)
    text = re.sub(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])", r"\1", text)
    return re.sub(r"`+([^`\n]*)`+", r"\1", text).strip()


def whole_sentences(text: str) -> str:
    """Return the text up to its last whole sentence, or all of it where there is none.

    For an answer that was cut because it grew too long.

    >>> whole_sentences("Bees dance. They tell where the flo")
    'Bees dance.'
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else text


def once(text: str) -> str:
    """Return the text up to the first sentence that it has said before.

    A small model sometimes goes round in circles; the second time round is no answer.

    >>> once("Bees dance in the hive. They do it to talk. Bees dance in the hive. They do")
    'Bees dance in the hive. They do it to talk.'
    """
    seen: set[str] = set()
    start = 0
    for match in _SENTENCE_END.finditer(text):
        sentence = " ".join(text[start : match.end()].casefold().split())
        # Short ones come twice in good answers too: "Yes!", "It is red."
        if len(sentence) >= _SHORTEST_CIRCLE and sentence in seen:
            return text[:start].rstrip()
        seen.add(sentence)
        start = match.end()
    return text
