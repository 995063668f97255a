"""One request from the caller's words to the reply's last byte."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive

from kidrails_guard.proxy.body import CallerLeft
from kidrails_guard.proxy.call import Call
from kidrails_guard.proxy.choice import Choice, Context
from kidrails_guard.proxy.event_stream import EventStream
from kidrails_guard.proxy.events import End, Event, Usage
from kidrails_guard.proxy.intake import Intake, Prepared
from kidrails_guard.proxy.problems import Problem
from kidrails_guard.proxy.records import Note, Recorder
from kidrails_guard.proxy.reply import StreamedReply, WholeReply, blocked_reply
from kidrails_guard.proxy.seams import Tenant
from kidrails_guard.proxy.service import Service, ShuttingDown
from kidrails_guard.proxy.wire import Writer
from kidrails_guard.types import Action, AgeBand, Stage, Verdict

_log: Final = logging.getLogger("kidrails.proxy")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and under which identifiers."""

    tenant: Tenant
    band: AgeBand
    request_id: str
    session: str = field(default="", repr=False)


class Exchange:
    """Answers one request.

    Args:
        service: what all requests share.
        caller: who asks.
        call: what is wanted.
        writer: the form of the answer.
    """

    def __init__(self, service: Service, caller: Caller, call: Call, writer: Writer) -> None:
        self._service, self._caller = service, caller
        self._call, self._writer = call, writer
        self._recorder = Recorder(
            service.audit,
            service.meter,
            caller.tenant,
            caller.band,
            caller.request_id,
            model=call.model,
            session=caller.session,
        )

    async def answer(self, finished: Callable[[int], None], receive: Receive) -> Response:
        """Return the response.

        Args:
            finished: told the status at the response's end.
            receive: tells whether the caller is still there.

        Raises:
            Problem: there is no answer; nothing has been sent.
            CallerLeft: nobody waits for one.
        """
        service, caller, call = self._service, self._caller, self._call
        intake = Intake(caller.tenant, caller.band, service.memory, service.gate)
        prepared = await intake.prepare(call, model=service.settings.model or call.model)
        verdict = prepared.verdict
        await self._recorder.message(prepared)
        sitting = await service.sittings.turn(
            caller.tenant.name,
            caller.session,
            verdict,
            break_after_minutes=caller.tenant.guard.policy.break_after_minutes,
        )
        if not service.settings.disclosure:
            sitting = replace(sitting, disclosure_due=False)
        context = Context(
            call, prepared, caller.tenant, caller.band, caller.request_id, sitting, service.gate
        )
        if verdict.action.answers:
            events = blocked_reply(context, verdict)
            if caller.tenant.guard.policy.on_block == "error":
                raise _held_back(context.kind_words(verdict), param=call.said_in)
            headers = self._headers(prepared, verdict, answered=Stage.INPUT)
            if not call.stream:
                return self._whole(events, headers, finished)
            return EventStream(self._written(events), headers, finished)
        if call.stream:
            return await self._streamed(context, prepared, finished, receive)
        async with service.waiting(receive):
            answer = await service.upstream.chat(prepared.body)
        reply = WholeReply(context, answer)
        events = await reply.events(service.meter)
        await self._recorder.replies(reply.choices)
        said = _merged(reply.choices)
        if said.action.answers and caller.tenant.guard.policy.on_block == "error":
            raise _held_back(context.kind_words(said))
        await self._shown(reply.choices)
        merged = max((verdict, said), key=lambda v: v.action)
        answered = Stage.OUTPUT if said.action.answers else None
        return self._whole(events, self._headers(prepared, merged, answered=answered), finished)

    async def _streamed(
        self,
        context: Context,
        prepared: Prepared,
        finished: Callable[[int], None],
        receive: Receive,
    ) -> Response:
        service = self._service
        async with service.waiting(receive):  # some servers read long before they say anything
            chunks = await service.upstream.chat_stream(self._stream_body(prepared.body))
        reply = StreamedReply(
            context, chunks, meter=service.meter, heartbeat_s=service.settings.heartbeat_s
        )
        headers = self._headers(prepared, prepared.verdict, answered=None)
        return EventStream(
            self._passed(reply, context),
            headers,
            finished,
            caller_left=lambda: reply.stop(CallerLeft()),
        )

    def _stream_body(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._call.usage_wanted or self._call.route == "responses":
            return {**body, "stream_options": {"include_usage": True}}
        return body

    async def _written(self, events: list[Event]) -> AsyncGenerator[bytes, None]:
        parts = [self._writer.begin(), *map(self._writer.write, events), self._writer.end()]
        yield b"".join(parts)

    async def _passed(self, reply: StreamedReply, context: Context) -> AsyncGenerator[bytes, None]:
        """Write a reply as it passes; whatever happens, it ends as a stream should."""
        service, writer = self._service, self._writer
        service.opened(reply)
        service.meter.streams(1)
        note: Note = ""
        data = b""  # what leaves with the next words, or with the end
        open_choices = {choice.index: choice for choice in reply.choices}
        try:
            yield writer.begin()
            async for event in reply:
                data += writer.write(event)
                if isinstance(event, End):
                    open_choices.pop(event.choice, None)
                if data and not isinstance(event, End | Usage):
                    yield data
                    data = b""
            note = self._why(reply.error)
        except Exception as error:
            note = self._why(error)
            for choice in open_choices.values():
                data += b"".join(map(writer.write, choice.interrupt()))
        except GeneratorExit:
            # Cut off at the server's end, with a caller that does not read.
            for choice in open_choices.values():
                choice.interrupt()
            note = self._why(reply.error or CallerLeft())
            await self._recorder.replies(reply.choices, note, streamed=True)
            raise
        finally:
            service.open_streams.discard(reply)
            service.meter.streams(-1)
        # What has left cannot be called back; the next request meets a full disk first.
        await self._recorder.replies(reply.choices, note, streamed=True)
        if note != "caller_left":
            await self._shown(reply.choices)
        yield data + writer.end()

    async def _shown(self, choices: list[Choice]) -> None:
        """Let the session know what the child has been told."""
        await self._service.sittings.shown(
            self._caller.tenant.name,
            self._caller.session,
            disclosure=any(choice.disclosed for choice in choices),
            break_offer=any(choice.break_offered for choice in choices),
        )

    def _why(self, error: Exception | None) -> Note:
        """Count what ended a stream too early, and name it for the audit."""
        if error is None:
            return ""
        if isinstance(error, CallerLeft):
            return "caller_left"
        if isinstance(error, ShuttingDown):
            return "shutdown"
        if isinstance(error, Problem):
            self._service.count_failure(error)
            _log.warning("%s upstream: %s", self._caller.request_id, error.code)
        else:
            self._service.meter.failure("internal")
            _log.error("%s internal: %s", self._caller.request_id, where(error))
        return "upstream_failed"

    def _headers(
        self, prepared: Prepared, verdict: Verdict, *, answered: Stage | None
    ) -> dict[str, str]:
        caller = self._caller
        headers = {
            "x-kidrails-action": verdict.action.label,
            "x-kidrails-policy": caller.tenant.policy_digest[:12],
        }
        if answered is not None:
            headers["x-kidrails-answered"] = str(answered)
        if prepared.left_out:
            headers["x-kidrails-left-out"] = ", ".join(prepared.left_out)
        if self._call.ignored:
            headers["x-kidrails-ignored"] = ", ".join(self._call.ignored)
        if self._service.settings.operator_headers:
            headers["x-kidrails-hazards"] = ", ".join(verdict.hazards)
            if verdict.failed:
                headers["x-kidrails-failed"] = ", ".join(verdict.failed)
        return headers

    def _whole(
        self, events: list[Event], headers: dict[str, str], finished: Callable[[int], None]
    ) -> Response:
        finished(200)
        return json_response(self._writer.whole(events), headers=headers)


def _held_back(words: str, *, param: str | None = None) -> Problem:
    return Problem(400, "content_filter", words, param=param, failure=None)


def _merged(choices: list[Choice]) -> Verdict:
    verdict = Verdict(Action.ALLOW, stage=Stage.OUTPUT)
    for choice in choices:
        verdict = verdict.merge(choice.verdict)
    return verdict


def where(error: BaseException) -> str:
    """Return an error's type and place; its message could hold a child's words."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{os.path.basename(code.co_filename)}:{trace.tb_lineno}"  # noqa: PTH119
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}"


def json_response(
    value: Any, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return a JSON response."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(data, status, headers, "application/json")


def milliseconds_since(start: float) -> float:
    """Return milliseconds since a reading of ``time.perf_counter``."""
    return round((time.perf_counter() - start) * 1000, 1)
