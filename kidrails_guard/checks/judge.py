"""A guard model behind any OpenAI-compatible URL, asked beside the other checks.

Only when the policy names it: no text leaves the machine by default. A reply that cannot be read,
an error or a missed deadline counts as a failed check, and so as unsafe.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal
from weakref import WeakKeyDictionary

from kidrails_guard.checks.judge_formats import FORMATS, Judged, Request, requests_for
from kidrails_guard.errors import MissingDependency, PolicyError, UpstreamError
from kidrails_guard.policy import Policy
from kidrails_guard.types import AgeBand, Conversation, Finding, Stage

if TYPE_CHECKING:
    import httpx

_LONGEST_REPLY: Final = 20_000


class JudgeCheck:
    """Asks a guard model.

    Args:
        base_url: such as ``http://localhost:8001/v1``.
        model: its name there.
        form: one of `FORMATS`.
        api_key: sent as a bearer token, where there is one.
        stages: whose words it judges.
        turns: how many earlier turns it sees.
        timeout_s: seconds for one question.
        unsure: another check; the guard model is asked only where that one is unsure.
        sure_at: a finding of that check with at least this score leaves no doubt.
        transport: instead of the network, for tests.
    """

    name = "judge"

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        form: str,
        api_key: str | None = None,
        stages: frozenset[Stage] = frozenset(Stage),
        turns: int = 6,
        timeout_s: float = 5.0,
        unsure: Any = None,
        sure_at: float = 0.9,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.stages = stages
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model, self._form, self._turns = model, form, turns
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_s, self._transport = timeout_s, transport
        self._unsure, self._sure_at = unsure, sure_at
        # A client belongs to the event loop that opened its connections.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            WeakKeyDictionary()
        )

    async def __call__(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> Sequence[Finding]:
        """Return what the guard model sees in ``text``.

        Raises:
            UnreadableReply: the reply is not what the model's format says.
            UpstreamError: the server does not answer as OpenAI's API does.
        """
        if not text.strip():
            return ()
        if self._unsure is not None and not await self._doubt(conversation, text, band, stage):
            return ()
        asked = requests_for(
            self._form, conversation, text, band=band, stage=stage, turns=self._turns
        )
        seen: list[Judged] = []
        for found in await asyncio.gather(*map(self._ask, asked)):
            seen += found
        return [
            Finding(
                check=self.name,
                hazard=one.hazard,
                severity=one.severity,
                note=one.note,
                about=one.about,
                case=one.case if stage is Stage.INPUT else "",
                weak=one.weak,
            )
            for one in seen
        ]

    async def _doubt(
        self, conversation: Conversation, text: str, band: AgeBand, stage: Stage
    ) -> bool:
        found = await self._unsure(conversation, text, band, stage)
        return any(f.weak or f.score < self._sure_at for f in found)

    async def _ask(self, request: Request) -> list[Judged]:
        import httpx

        body = {
            "model": self._model,
            "messages": list(request.messages),
            "temperature": 0,
            "max_tokens": request.max_tokens,
            **request.extra,
        }
        try:
            response = await self._client().post(self._url, json=body)
            response.raise_for_status()
            reply = response.json()["choices"][0]["message"]["content"]
        except httpx.HTTPStatusError as error:
            raise UpstreamError(f"the judge answered {error.response.status_code}") from None
        except httpx.HTTPError as error:
            raise UpstreamError(f"the judge cannot be reached ({type(error).__name__})") from None
        except (ValueError, KeyError, IndexError, TypeError):
            raise UpstreamError("the judge's answer is not OpenAI's format") from None
        if not isinstance(reply, str) or len(reply) > _LONGEST_REPLY:
            raise UpstreamError("the judge's answer holds no text")
        return request.read(reply)

    def _client(self) -> httpx.AsyncClient:
        import httpx

        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = httpx.AsyncClient(
                headers=self._headers,
                timeout=self._timeout_s,
                transport=self._transport,
                trust_env=False,
            )
            self._clients[loop] = client
        return client

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


def build(
    policy: Policy,
    *,
    base_url: str,
    model: str,
    format: Literal["llama_guard", "qwen3guard", "granite_guardian", "shieldgemma", "kidrails"],
    api_key_env: str | None = None,
    stages: Sequence[str] = ("input", "output"),
    turns: int = 6,
    timeout_ms: int = 5_000,
    when: Literal["always", "unsure"] = "always",
    sure_at: float = 0.9,
    transport: httpx.AsyncBaseTransport | None = None,
) -> JudgeCheck:
    """Return the check for a policy.

    Args:
        policy: the policy.
        base_url: where the guard model is served, with ``/v1``.
        model: its name there.
        format: how it is asked and read: one of `FORMATS`.
        api_key_env: name of the environment variable that holds the key, where it needs one.
        stages: whose words it judges.
        turns: how many earlier turns it sees.
        timeout_ms: milliseconds for one question; the check's own deadline holds as well.
        when: ``unsure`` asks only where the classifier is unsure, ``always`` every time.
        sure_at: for ``unsure``: a finding with at least this score leaves no doubt.
        transport: instead of the network, for tests.

    Raises:
        PolicyError: an option is wrong, or the key is not there.
        MissingDependency: httpx is not installed.
    """

    def fail(option: str, problem: str) -> PolicyError:
        return PolicyError(f"checks.judge.options.{option}: {problem}")

    if format not in FORMATS:
        raise fail("format", f"{format!r} is not one of {', '.join(FORMATS)}")
    if when not in ("always", "unsure"):
        raise fail("when", f"{when!r} is not one of always, unsure")
    if not str(base_url).startswith(("http://", "https://")):
        raise fail("base_url", f"{base_url!r} is no http(s) URL, such as http://localhost:8001/v1")
    try:
        at = frozenset(map(Stage, stages))
    except ValueError as error:
        raise fail("stages", f"{error}; accepted: {', '.join(Stage)}") from None
    key = None
    if api_key_env is not None:
        key = os.environ.get(api_key_env)
        if not key:
            raise fail("api_key_env", f"the environment variable {api_key_env} is not set")
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise MissingDependency(
            "httpx", command="pip install 'kidrails-guard[proxy]'", purpose="the check judge"
        ) from None
    unsure = None
    if when == "unsure":
        from kidrails_guard.checks.classifier import build as build_classifier

        unsure = build_classifier(policy)
    return JudgeCheck(
        base_url,
        model,
        form=format,
        api_key=key,
        stages=at,
        turns=turns,
        timeout_s=timeout_ms / 1000,
        unsure=unsure,
        sure_at=sure_at,
        transport=transport,
    )
