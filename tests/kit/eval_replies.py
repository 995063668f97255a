"""Endpoints without a model, for the tests of the evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from kidrails_guard.evals.cases import Case
from kidrails_guard.evals.endpoint import Endpoint
from kidrails_guard.evals.runner import Result, run_cases
from kidrails_guard.guard import Guard
from kidrails_guard.types import AgeBand, Stage


class Nothing:
    """A check that finds nothing: what is scored is then the reply alone."""

    name = "nothing"
    stages = frozenset(Stage)

    async def __call__(self, conversation: Any, text: str, band: AgeBand, stage: Stage) -> Any:
        return ()


BARE_GUARD = Guard(checks=[Nothing()])


def reply(
    text: str, *, stream: bool, action: str | None = None, finish: str = "stop"
) -> httpx.Response:
    """A chat completion, whole or streamed, as a guard or a bare model gives it."""
    headers = {"x-kidrails-action": action} if action else {}
    if not stream:
        choice = {"index": 0, "message": {"content": text}, "finish_reason": finish}
        return httpx.Response(200, json={"choices": [choice]}, headers=headers)
    parts = [
        {"choices": [{"delta": {"content": w + " "}, "finish_reason": None}]} for w in text.split()
    ]
    parts.append({"choices": [{"delta": {}, "finish_reason": finish}]})
    parts.append({"choices": [], "usage": {"total_tokens": 3}})
    body = "".join(f"data: {json.dumps(p)}\n\n" for p in parts) + "data: [DONE]\n\n"
    return httpx.Response(
        200, content=body.encode(), headers=headers | {"content-type": "text/event-stream"}
    )


async def run(
    handler: Any,
    out: Path,
    *,
    cases: Sequence[Case],
    digest: str = "",
    **endpoint: Any,
) -> list[Result]:
    """Put cases to a handler of requests."""
    return await run_cases(
        cases,
        Endpoint("http://x/v1", **endpoint),
        work=out,
        guard=BARE_GUARD,
        digest=digest,
        retry_seconds=(0.0,),
        transport=httpx.MockTransport(handler),
    )


def guarded_by(guard: Guard, cases: Sequence[Case]) -> Any:
    """An endpoint behind a guard, whose model always says the same harmless thing."""
    by_words = {(c.message, len(c.conversation.messages), str(c.band)): c for c in cases}

    async def handler(request: httpx.Request) -> httpx.Response:
        messages = json.loads(request.content)["messages"]
        band = request.headers["x-kidrails-band"]
        case = by_words[messages[-1]["content"], len(messages) - 1, band]
        verdict = await guard.check_input(case.message, case.conversation, band=case.band)
        if verdict.action.answers:
            text = guard.answer(verdict, case.band, seed="s")
            return reply(text, stream=True, action=verdict.action.label, finish="content_filter")
        return reply("Bees dance in the hive.", stream=True, action=verdict.action.label)

    return handler
