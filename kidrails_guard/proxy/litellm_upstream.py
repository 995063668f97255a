"""The litellm SDK as the way to the model: any provider that it knows, guarded all the same."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncGenerator
from typing import Any

from kidrails_guard.errors import MissingDependency
from kidrails_guard.proxy.problems import UpstreamProblem
from kidrails_guard.proxy.settings import LITELLM_PREFIX, Settings
from kidrails_guard.proxy.upstream_problems import too_long

Json = dict[str, Any]


class LiteLLMUpstream:
    """Asks ``provider/model`` through litellm; keys come from the provider's own variables.

    Raises:
        MissingDependency: litellm is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        if importlib.util.find_spec("litellm") is None:
            raise MissingDependency(
                "litellm",
                command="pip install 'litellm==1.106.2'",
                purpose="--upstream litellm:provider/model",
            )
        # Without it, importing litellm fetches a price list from the network.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        self._model = settings.upstream.removeprefix(LITELLM_PREFIX)
        self._options: Json = {"timeout": settings.read_timeout_s, "num_retries": 0}
        if settings.upstream_key:
            self._options["api_key"] = settings.upstream_key
        base = os.environ.get("KIDRAILS_LITELLM_API_BASE")
        if base:
            self._options["api_base"] = base

    async def _ask(self, function: str, body: Json, **more: Any) -> Any:
        import litellm

        litellm.telemetry = False
        litellm.suppress_debug_info = True
        # Options that a provider does not know are left out rather than refused.
        options = {**body, **self._options, **more, "model": self._model, "drop_params": True}
        try:
            return await getattr(litellm, function)(**options)
        except Exception as error:
            raise _problem(error) from None

    async def chat(self, body: Json) -> Json:
        """Return a ``chat.completion``."""
        answer = await self._ask("acompletion", body)
        found: Json = answer.model_dump()
        return found

    async def chat_stream(self, body: Json) -> AsyncGenerator[Json, None]:
        """Return the stream of chunks, once the provider has accepted the request."""
        stream = await self._ask("acompletion", body, stream=True)

        async def chunks() -> AsyncGenerator[Json, None]:
            try:
                async for chunk in stream:
                    yield chunk.model_dump()
            except Exception as error:
                raise _problem(error) from None
            finally:
                close = getattr(stream, "aclose", None)
                if close is not None:
                    await close()

        return chunks()

    async def embeddings(self, body: Json) -> Json:
        """Return embeddings."""
        answer = await self._ask("aembedding", body)
        found: Json = answer.model_dump()
        return found

    async def models(self) -> Json:
        """Return the one model."""
        return {"object": "list", "data": [{"id": self._model, "object": "model"}]}

    async def ready(self) -> bool:
        """Whether it can be asked; a provider is not called, since that may cost money."""
        return True

    async def close(self) -> None:
        """Release litellm's connections."""
        import litellm

        await litellm.close_litellm_async_clients()


def _problem(error: Exception) -> UpstreamProblem:
    """Return what litellm's error means; its message may hold the request, so it is not kept."""
    status = getattr(error, "status_code", None)
    name = type(error).__name__
    if name == "ContextWindowExceededError":
        return too_long()
    if status == 404:
        return UpstreamProblem(
            "upstream_status",
            "model: the provider does not know it; the operator sets --upstream",
            status=404,
            code="model_not_found",
        )
    if status in {401, 403}:
        return UpstreamProblem(
            "upstream_status",
            f"the provider refused the proxy's key (HTTP {status}); its operator sets the "
            "provider's variable, e.g. OPENAI_API_KEY",
            code="upstream_refused",
        )
    if status == 429:
        return UpstreamProblem(
            "upstream_status",
            "the provider is busy; try again later",
            status=429,
            code="rate_limit_exceeded",
        )
    if status == 402:
        return UpstreamProblem(
            "upstream_status",
            "the provider asks to be paid (HTTP 402); its operator looks after the account",
            code="upstream_refused",
        )
    if status == 408 or "Timeout" in name:
        return UpstreamProblem(
            "upstream_timeout",
            "the provider did not answer in time; try again, or ask for less",
            status=504,
            code="upstream_timeout",
        )
    if isinstance(status, int) and 400 <= status < 500:
        return UpstreamProblem(
            "upstream_status",
            f"the provider did not accept the request (HTTP {status}); leave out options that it "
            "does not know",
            status=400,
            code="upstream_rejected_request",
        )
    return UpstreamProblem(
        "upstream_unreachable",
        f"the provider failed or cannot be reached ({name}); try again in a moment",
        status=503,
        code="upstream_unreachable",
        retry_after_s=2,
    )
