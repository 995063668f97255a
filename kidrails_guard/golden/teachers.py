"""Teachers that are models: any OpenAI-compatible server, and whatever LiteLLM reaches."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from kidrails_guard.errors import KidRailsError, MissingDependency, UsageError

Chat = Sequence[Mapping[str, str]]


class TeacherUnavailable(KidRailsError):
    """The teacher could not be asked now; the job is left for the next run."""


class TeacherRejects(KidRailsError):
    """The teacher will never take this request: a wrong key, model or address."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a teacher said, and what it cost.

    Attributes:
        text: its words.
        tokens: prompt and completion together.
        usd: US dollars; 0 where no price is known.
        nonsense: why this is no answer at all (HTML, empty, …); empty for a usable one.
    """

    text: str = field(repr=False)
    tokens: int = 0
    usd: float = 0.0
    nonsense: str = ""


class ModelTeacher(Protocol):
    """A model that answers a chat."""

    name: str

    async def complete(self, chat: Chat, *, max_tokens: int) -> Answer:
        """Return the model's answer.

        Raises:
            TeacherUnavailable: it cannot be asked now (connection, timeout, 429, 5xx).
            TeacherRejects: it refuses the request itself (401, 403, 404, 400).
        """
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a million tokens."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, prompt: int, completion: int) -> float:
        """Return the price of so many tokens in US dollars."""
        return (prompt * self.prompt + completion * self.completion) / 1e6


class HttpTeacher:
    """Any server that speaks OpenAI's chat completions.

    Args:
        base_url: with its ``/v1``.
        model: the model's name there.
        api_key: sent as a bearer token when given.
        temperature: how freely it words.
        price: for the budget in dollars.
        timeout_s: of one request.
        transport: for tests.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        temperature: float = 0.9,
        price: Price | None = None,
        timeout_s: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if not re.match(r"https?://", base_url):
            raise UsageError(f"--base-url {base_url!r}: needs http:// or https:// in front")
        url = httpx.URL(base_url)
        # With port and path: two servers of one machine are two teachers.
        place = url.netloc.decode() + url.path.rstrip("/").removesuffix("/v1")
        self.name = f"{model} at {place} t={temperature:g}"
        self.model, self.temperature, self.price = model, temperature, price or Price()
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers=headers,
            timeout=timeout_s,
            transport=transport,
        )

    async def complete(self, chat: Chat, *, max_tokens: int) -> Answer:
        """Ask the server once; see `ModelTeacher`."""
        body = {
            "model": self.model,
            "messages": [dict(message) for message in chat],
            "max_tokens": max_tokens,
            "temperature": self.temperature,
        }
        try:
            response = await self._client.post("chat/completions", json=body)
        except httpx.HTTPError as error:
            raise TeacherUnavailable(f"{type(error).__name__}") from None
        if response.status_code in {408, 409, 425, 429} or response.status_code >= 500:
            wait = response.headers.get("retry-after", "")
            raise _Later(f"HTTP {response.status_code}", float(wait) if wait.isdecimal() else None)
        if response.status_code >= 300:
            raise TeacherRejects(
                f"{self._client.base_url}chat/completions answers HTTP {response.status_code}; "
                "check --base-url, --model and the key in the variable that --api-key-env names"
            )
        return self._read(response, sum(len(message["content"]) for message in chat))

    def _read(self, response: httpx.Response, asked: int) -> Answer:
        try:
            value = response.json()
            message = value["choices"][0]["message"]
            said, refused = message.get("content"), message.get("refusal")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            kind = response.headers.get("content-type", "").split(";")[0] or "no content type"
            html = "html" in kind or response.text.lstrip()[:1] == "<"
            return Answer("", nonsense="HTML" if html else f"not a chat completion ({kind})")
        text = said if isinstance(said, str) else ""
        usage = value.get("usage")
        given = usage if isinstance(usage, dict) else {}
        # A server that does not count costs as well: a budget holds by three characters a token.
        prompt, completion = (
            count if isinstance(count, int) and count >= 0 else -(-length // 3)
            for count, length in (
                (given.get("prompt_tokens"), asked),
                (given.get("completion_tokens"), len(text)),
            )
        )
        usd = self.price.of(prompt, completion)
        if refused and not text:
            return Answer("", prompt + completion, usd, nonsense="refusal")
        return Answer(text, prompt + completion, usd, nonsense="" if text.strip() else "empty")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class _Later(TeacherUnavailable):
    """The server said when to come back."""

    def __init__(self, reason: str, wait_s: float | None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class LiteLLMTeacher:
    """Any model that LiteLLM reaches, by its name there (``anthropic/…``, ``ollama/…``).

    Raises:
        MissingDependency: LiteLLM is not installed.
    """

    def __init__(
        self, model: str, *, temperature: float = 0.9, options: Mapping[str, Any] | None = None
    ) -> None:
        # LiteLLM looks its prices up on the network when it is imported; it carries a copy.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        try:
            import litellm
        except ImportError:
            raise MissingDependency(
                "litellm",
                command="pip install 'kidrails-guard[litellm]'",
                purpose="kidrails data generate --litellm",
            ) from None
        self.name = f"litellm {model} t={temperature:g}"
        self.model, self.temperature = model, temperature
        self.options = dict(options or {})
        litellm.suppress_debug_info = True  # it prints to standard output, which is ours
        self._litellm = litellm

    @property
    def priced(self) -> bool:
        """Whether LiteLLM knows what the model costs."""
        try:
            self._litellm.cost_per_token(self.model, prompt_tokens=1, completion_tokens=1)
        except Exception:
            return False
        return True

    async def complete(self, chat: Chat, *, max_tokens: int) -> Answer:
        """Ask the model once; see `ModelTeacher`."""
        lite = self._litellm
        try:
            result = await lite.acompletion(
                model=self.model,
                messages=[dict(message) for message in chat],
                max_tokens=max_tokens,
                temperature=self.temperature,
                num_retries=0,
                **self.options,
            )
        except (
            lite.AuthenticationError,
            lite.NotFoundError,
            lite.BadRequestError,
            lite.PermissionDeniedError,
        ) as error:
            raise TeacherRejects(
                f"litellm: {type(error).__name__} for model {self.model!r}; check its name and the "
                "provider's key in the environment"
            ) from None
        except Exception as error:
            raise TeacherUnavailable(type(error).__name__) from None
        usage = getattr(result, "usage", None)
        tokens = int(getattr(usage, "total_tokens", 0) or 0)
        try:
            usd = float(lite.completion_cost(completion_response=result))
        except Exception:
            usd = 0.0  # a model that LiteLLM has no price for; the budget in tokens still holds
        text = result.choices[0].message.content or ""
        return Answer(text, tokens, usd, nonsense="" if text.strip() else "empty")

    async def aclose(self) -> None:
        """Close nothing: LiteLLM keeps its own clients."""
