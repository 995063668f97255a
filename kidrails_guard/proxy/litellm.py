"""KidRails as a guardrail inside LiteLLM's proxy (tested with litellm 1.106.2).

In LiteLLM's ``config.yaml``::

    guardrails:
      - guardrail_name: kidrails
        litellm_params:
          guardrail: kidrails_guard.proxy.litellm.KidRailsGuardrail
          mode: [pre_call, post_call]
          default_on: true
          band: "7-9"            # optional; the policy's youngest band without it
          audit: audit           # optional; `litellm_options` lists all options

It is an adapter: `Guard` decides, with the same way in (`intake`), way out (`reply`) and `records`
as our own proxy. A caller of LiteLLM cannot switch it off for a request. With LiteLLM's callback
``prometheus`` its ``/metrics`` shows our numbers too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from fastapi import HTTPException
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.types.guardrails import GuardrailEventHooks, LitellmParams
from litellm.types.utils import (
    Choices,
    Delta,
    Message,
    ModelResponse,
    ModelResponseStream,
    StreamingChoices,
)

from kidrails_guard.errors import UsageError
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy
from kidrails_guard.proxy.chat import chat_call
from kidrails_guard.proxy.choice import Context
from kidrails_guard.proxy.events import End, Event, Tools, Words
from kidrails_guard.proxy.exchange import where
from kidrails_guard.proxy.intake import Intake
from kidrails_guard.proxy.litellm_options import GuardrailOptions, refuse_discarding
from kidrails_guard.proxy.memory import VerdictMemory
from kidrails_guard.proxy.metrics import shared_meter
from kidrails_guard.proxy.problems import Problem
from kidrails_guard.proxy.records import Note, Recorder, tend
from kidrails_guard.proxy.reply import StreamedReply, WholeReply, blocked_reply
from kidrails_guard.proxy.seams import Tenant

_log: Final = logging.getLogger("kidrails.proxy")
_FIELDS: Final = (
    "model", "messages", "n", "stream", "stream_options", "tools", "tool_choice",
    "response_format", "logprobs", "temperature", "top_p", "max_tokens", "max_completion_tokens",
    "stop", "seed", "presence_penalty", "frequency_penalty",
)  # fmt: skip
_CHAT: Final = frozenset({"completion", "acompletion"})
_MOST_OPEN: Final = 4_096
_CHECKS_AT_ONCE: Final = 4
"""As in the proxy (`Settings.checks_at_once`): a rush of requests is slow and not refused."""


class KidRailsGuardrail(CustomGuardrail):  # type: ignore[misc]
    """Guards LiteLLM's chat completions: what the child writes and every word that comes back.

    Args:
        guardrail_name: from LiteLLM's configuration; the tenant's name in the audit log.
        event_hook: its ``mode``.
        default_on: ignored; the guardrail always runs.
        options: those of `GuardrailOptions`, and LiteLLM's own; none switches anything off.

    Raises:
        KidRailsError: the policy or an option is wrong, or the audit log cannot be written.
    """

    def __init__(
        self,
        guardrail_name: str = "kidrails",
        event_hook: Any = None,
        default_on: bool = True,
        **options: Any,
    ) -> None:
        refuse_discarding(options)
        try:
            super().__init__(
                guardrail_name=guardrail_name,
                event_hook=event_hook,
                default_on=True,
                supported_event_hooks=[GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call],
            )
            ours = {k: v for k, v in options.items() if k not in LitellmParams.model_fields}
            chosen = GuardrailOptions.read(ours)
            policy = load_policy(chosen.policy)
            band = chosen.band or policy.fallback_band
            if band not in policy.bands:
                raise UsageError(f"band: {band} is not served by policy {policy.name!r}; accepted: "
                                 f"{', '.join(policy.bands)}")  # fmt: skip
            self._meter = shared_meter()
            guard = Guard(policy, observer=self._meter.check)
            self._tenant = Tenant(guardrail_name, guard, band, policy.digest())
            self._meter.expect([self._tenant])
            self._audit = chosen.records().audit_sink(self._meter)
        except (TypeError, ValueError) as error:
            # These two LiteLLM takes lightly: it starts, and serves children without the guardrail.
            raise UsageError(f"guardrail {guardrail_name!r}: {error}") from None
        self._band = band
        self._memory = VerdictMemory(20_000, secret=secrets.token_bytes(32))
        self._gate = asyncio.Semaphore(_CHECKS_AT_ONCE)
        self._open: OrderedDict[str, Context] = OrderedDict()
        self._tending: asyncio.Task[None] | None = None
        with contextlib.suppress(RuntimeError):  # made outside of an event loop
            self._tend()
        print(
            f"KidRails guards chat completions in LiteLLM as {guardrail_name!r}\n"
            f"  policy {policy.name} ({self._tenant.policy_digest[:12]}), band {band}, "
            f"{chosen.told()}",
            flush=True,
        )

    def _tend(self) -> None:
        """Let the audit forget in time; LiteLLM tells nobody when it starts or ends."""
        if self._tending is None:
            self._tending = asyncio.get_running_loop().create_task(tend(self._audit))

    def should_run_guardrail(self, data: Any, event_type: GuardrailEventHooks) -> bool:
        """Run always: LiteLLM lets a request's body opt out of guardrails, a child's must not."""
        return True

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Check the request and rewrite what the model is asked; answer kindly where it must not.

        Raises:
            ModifyResponseException: the guard answers; LiteLLM sends it as an ordinary reply.
            HTTPException: the request is not one that can be checked, or not written down.
        """
        self._tend()
        if call_type not in _CHAT:
            raise HTTPException(
                400, {"error": f"KidRails checks chat completions only, not {call_type!r}; call "
                               "the KidRails proxy for other routes"}
            )  # fmt: skip
        context = await self._context(data)
        try:
            await self._recorder(context).message(context.prepared)
        except Problem as problem:
            raise self._refused(problem) from None
        if context.prepared.verdict.action.answers:
            if context.call.stream:  # LiteLLM sends our words through the way out
                self._remember(data, context)
            self.raise_passthrough_exception(
                violation_message=context.kind_words(context.prepared.verdict), request_data=data
            )
        for name in ("messages", "tools", "tool_choice", "response_format"):
            data.pop(name, None)
            if name in context.prepared.body:
                data[name] = context.prepared.body[name]
        self._remember(data, context)
        return data

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any
    ) -> Any:
        """Check a whole reply; put kind words in the place of one that does not pass.

        Raises:
            HTTPException: the reply is not one that can be checked, or not written down.
        """
        if not isinstance(response, ModelResponse):
            raise HTTPException(502, {"error": "KidRails: this kind of reply cannot be checked"})
        context = await self._recall(data)
        whole = WholeReply(context, response.model_dump())
        try:
            events = await whole.events(self._meter)
            await self._recorder(context).replies(whole.choices)
        except Problem as problem:
            raise self._refused(problem) from None
        # Made anew: tokens, citations and what else a provider adds are unchecked texts.
        passed = ModelResponse(
            id=response.id,
            created=response.created,
            model=response.model,
            choices=[_choice(events, choice.index) for choice in response.choices],
            usage=getattr(response, "usage", None),
        )
        passed._hidden_params = response._hidden_params  # LiteLLM's own: costs and its headers
        return passed

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[ModelResponseStream, None]:
        """Let a stream through part by part, each after its check."""
        context = await self._recall(request_data)
        seen: dict[str, Any] = {"id": "chatcmpl-" + secrets.token_hex(12), "created": time.time()}
        first = set(range(context.call.count))

        def written(event: Event) -> list[ModelResponseStream]:
            delta, reason = _delta(event)
            if delta is None:
                return []
            index = event.choice  # type: ignore[union-attr]
            if index in first:
                first.discard(index)
                delta["role"] = "assistant"
            return [ModelResponseStream(
                id=seen["id"],
                created=int(seen["created"]),
                model=seen.get("model") or str(request_data.get("model", "")),
                choices=[StreamingChoices(index=index, delta=Delta(**delta), finish_reason=reason)],
            )]  # fmt: skip

        if context.prepared.verdict.action.answers:
            # No model was asked: LiteLLM sends the words of the way in through here.
            for event in blocked_reply(context, context.prepared.verdict):
                for chunk in written(event):
                    yield chunk
            return

        async def chunks() -> AsyncGenerator[dict[str, Any], None]:
            async for chunk in response:
                value = chunk.model_dump() if hasattr(chunk, "model_dump") else {}
                seen.update({k: value[k] for k in ("id", "created", "model") if value.get(k)})
                yield value

        reply = StreamedReply(context, chunks(), meter=self._meter, heartbeat_s=3_600)
        note: Note = "caller_left"
        # What leaves with the next words, or once the reply is written down.
        ends: list[ModelResponseStream] = []
        try:
            async with contextlib.aclosing(reply.__aiter__()) as events:
                async for event in events:
                    ends += written(event)
                    while ends and isinstance(event, Words | Tools):
                        yield ends.pop(0)
            note = "" if reply.error is None else "upstream_failed"
        except Exception as error:
            note = "upstream_failed"
            self._meter.failure("internal")
            _log.error("%s internal: %s", context.request_id, where(error))
        finally:
            for choice in reply.choices:
                if not choice.ended:
                    ends += [chunk for event in choice.interrupt() for chunk in written(event)]
            await self._recorder(context).replies(reply.choices, note, streamed=True)
        for chunk in ends:
            yield chunk

    def _refused(self, problem: Problem) -> HTTPException:
        if problem.failure is not None:
            self._meter.failure(problem.failure)
        return HTTPException(problem.status, problem.body(), problem.headers() or None)

    def _recorder(self, context: Context) -> Recorder:
        return Recorder(
            self._audit,
            self._meter,
            context.tenant,
            context.band,
            context.request_id,
            model=context.call.model,
        )

    async def _context(self, data: Mapping[str, Any]) -> Context:
        body = {name: data[name] for name in _FIELDS if data.get(name) is not None}
        intake = Intake(self._tenant, self._band, self._memory, self._gate)
        try:
            call = chat_call(body, allow_images=self._tenant.guard.policy.allow_images)
            prepared = await intake.prepare(call, model=call.model)
        except Problem as problem:
            raise self._refused(problem) from None
        return Context(call, prepared, self._tenant, self._band, _request_id(data), gate=self._gate)

    def _remember(self, data: Mapping[str, Any], context: Context) -> None:
        identifier = _call_id(data)
        if identifier:
            self._open[identifier] = context
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)

    async def _recall(self, data: Mapping[str, Any]) -> Context:
        """Return what the way in found out, or find it out again."""
        context = self._open.pop(_call_id(data), None)
        return context if context is not None else await self._context(data)


def _call_id(data: Mapping[str, Any]) -> str:
    return str(data.get("litellm_call_id") or "")


def _request_id(data: Mapping[str, Any]) -> str:
    """Return LiteLLM's number of the call, for its log and ours to have the same.

    Callers may choose it (``x-litellm-call-id``), and nobody's words belong into the log.
    """
    with contextlib.suppress(ValueError):
        return str(uuid.UUID(_call_id(data)))
    return secrets.token_hex(12)


def _choice(events: list[Event], index: int) -> Choices:
    words, tools, reason = "", [], "content_filter"
    for event in events:
        if isinstance(event, Words) and event.choice == index:
            words += event.text
        elif isinstance(event, Tools) and event.choice == index:
            tools += [call.wire() for call in event.calls]
        elif isinstance(event, End) and event.choice == index:
            reason = event.reason
    message = Message(content=words, tool_calls=tools or None)
    return Choices(index=index, finish_reason=reason, message=message)


def _delta(event: Event) -> tuple[dict[str, Any] | None, str | None]:
    if isinstance(event, Words):
        return {"content": event.text}, None
    if isinstance(event, Tools):
        calls = [{"index": i} | call.wire() for i, call in enumerate(event.calls)]
        return {"tool_calls": calls}, None
    if isinstance(event, End):
        return {}, event.reason
    return None, None
