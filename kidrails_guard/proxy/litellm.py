"""KidRails as a guardrail inside LiteLLM's proxy (tested with litellm 1.106.2).

In LiteLLM's ``config.yaml``::

    guardrails:
      - guardrail_name: kidrails
        litellm_params:
          guardrail: kidrails_guard.proxy.litellm.KidRailsGuardrail
          mode: [pre_call, post_call]
          default_on: true
          band: "7-9"            # optional; the policy's youngest band without it
          policy: policy.yaml    # optional

It is an adapter: `Guard` decides, with the same way in (`intake`) and the same way out (`reply`) as
our own proxy. A caller of LiteLLM cannot switch it off for a request.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from fastapi import HTTPException
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.utils import Delta, ModelResponse, ModelResponseStream, StreamingChoices

from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy
from kidrails_guard.proxy.call import chat_call
from kidrails_guard.proxy.choice import Context
from kidrails_guard.proxy.events import End, Event, Tools, Words
from kidrails_guard.proxy.intake import Intake, VerdictMemory
from kidrails_guard.proxy.problems import Problem
from kidrails_guard.proxy.reply import StreamedReply, WholeReply
from kidrails_guard.proxy.seams import NoMeter, Tenant
from kidrails_guard.types import AgeBand

_FIELDS: Final = (
    "model", "messages", "n", "stream", "stream_options", "tools", "tool_choice",
    "response_format", "logprobs", "temperature", "top_p", "max_tokens", "max_completion_tokens",
    "stop", "seed", "presence_penalty", "frequency_penalty",
)  # fmt: skip
_CHAT: Final = frozenset({"completion", "acompletion"})
_MOST_OPEN: Final = 4_096


class KidRailsGuardrail(CustomGuardrail):  # type: ignore[misc]
    """Guards LiteLLM's chat completions: what the child writes and every word that comes back.

    Args:
        guardrail_name: from LiteLLM's configuration.
        event_hook: its ``mode``.
        default_on: ignored; the guardrail always runs.
        band: age band of the children behind this LiteLLM.
        policy: path of a policy.
        more: LiteLLM's further settings; none switches anything off.

    Raises:
        PolicyError: the policy is wrong, or does not serve the band.
    """

    def __init__(
        self,
        guardrail_name: str = "kidrails",
        event_hook: Any = None,
        default_on: bool = True,
        band: str | None = None,
        policy: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(
            guardrail_name=guardrail_name,
            event_hook=event_hook,
            default_on=True,
            supported_event_hooks=[GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call],
        )
        guard = Guard(load_policy(policy))
        self._band = AgeBand(band) if band is not None else guard.policy.fallback_band
        self._tenant = Tenant(guardrail_name, guard, self._band, guard.policy.digest())
        self._memory = VerdictMemory(20_000, secret=secrets.token_bytes(32))
        self._open: OrderedDict[str, Context] = OrderedDict()

    def should_run_guardrail(self, data: Any, event_type: GuardrailEventHooks) -> bool:
        """Run always: LiteLLM lets a request's body opt out of guardrails, a child's must not."""
        return True

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Check the request and rewrite what the model is asked; answer kindly where it must not.

        Raises:
            ModifyResponseException: the guard answers; LiteLLM sends it as an ordinary reply.
            HTTPException: the request is not one that can be checked.
        """
        if call_type not in _CHAT:
            raise HTTPException(
                400, {"error": f"KidRails checks chat completions only, not {call_type!r}; call "
                               "the KidRails proxy for other routes"}
            )  # fmt: skip
        context = await self._context(data)
        if context.prepared.verdict.action.answers:
            self.raise_passthrough_exception(
                violation_message=context.kind_words(context.prepared.verdict), request_data=data
            )
        for name in ("messages", "tools", "response_format"):
            if name in context.prepared.body:
                data[name] = context.prepared.body[name]
        self._remember(data, context)
        return data

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any
    ) -> Any:
        """Check a whole reply; put kind words in the place of one that does not pass.

        Raises:
            HTTPException: the reply is not one that can be checked.
        """
        if not isinstance(response, ModelResponse):
            raise HTTPException(502, {"error": "KidRails: this kind of reply cannot be checked"})
        context = await self._recall(data)
        whole = WholeReply(context, response.model_dump())
        events = await whole.events(NoMeter())
        for choice in response.choices:
            words, tools, reason = _of_choice(events, choice.index)
            choice.message.content = words
            choice.message.tool_calls = tools or None
            for hidden in ("reasoning_content", "thinking_blocks", "provider_specific_fields"):
                if hasattr(choice.message, hidden):
                    setattr(choice.message, hidden, None)
            choice.finish_reason = reason
        return response

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[ModelResponseStream, None]:
        """Let a stream through part by part, each after its check."""
        context = await self._recall(request_data)
        seen: dict[str, Any] = {"id": "chatcmpl-" + secrets.token_hex(12), "created": time.time()}

        async def chunks() -> AsyncGenerator[dict[str, Any], None]:
            async for chunk in response:
                value = chunk.model_dump() if hasattr(chunk, "model_dump") else {}
                seen.update({k: value[k] for k in ("id", "created", "model") if value.get(k)})
                yield value

        reply = StreamedReply(context, chunks(), meter=NoMeter(), heartbeat_s=3_600)
        first = set(range(context.call.count))
        async for event in reply:
            delta, reason = _delta(event)
            if delta is None:
                continue
            index = event.choice  # type: ignore[union-attr]
            if index in first:
                first.discard(index)
                delta["role"] = "assistant"
            yield ModelResponseStream(
                id=seen["id"],
                created=int(seen["created"]),
                model=seen.get("model") or str(request_data.get("model", "")),
                choices=[StreamingChoices(index=index, delta=Delta(**delta), finish_reason=reason)],
            )

    async def _context(self, data: Mapping[str, Any]) -> Context:
        body = {name: data[name] for name in _FIELDS if data.get(name) is not None}
        try:
            call = chat_call(body, allow_images=self._tenant.guard.policy.allow_images)
        except Problem as problem:
            raise HTTPException(problem.status, problem.body()) from None
        intake = Intake(self._tenant, self._band, self._memory)
        prepared = await intake.prepare(call, model=call.model)
        return Context(call, prepared, self._tenant, self._band, _call_id(data))

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


def _of_choice(events: list[Event], index: int) -> tuple[str, list[dict[str, Any]], str]:
    words, tools, reason = "", [], "content_filter"
    for event in events:
        if isinstance(event, Words) and event.choice == index:
            words += event.text
        elif isinstance(event, Tools) and event.choice == index:
            tools += [call.wire() for call in event.calls]
        elif isinstance(event, End) and event.choice == index:
            reason = event.reason
    return words, tools, reason


def _delta(event: Event) -> tuple[dict[str, Any] | None, str | None]:
    if isinstance(event, Words):
        return {"content": event.text}, None
    if isinstance(event, Tools):
        calls = [{"index": i} | call.wire() for i, call in enumerate(event.calls)]
        return {"tool_calls": calls}, None
    if isinstance(event, End):
        return {}, event.reason
    return None, None
