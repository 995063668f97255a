"""Asks a model teacher: within a budget, with retries, and never twice for the same thing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import KidRailsError
from kidrails_guard.files import write_atomic
from kidrails_guard.golden.teachers import Answer, Chat, ModelTeacher, TeacherUnavailable


class Budget:
    """What may still be spent; a request is reserved before it is sent, so nothing overshoots.

    Args:
        tokens: most tokens; None for no bound.
        usd: most US dollars; None for no bound.
    """

    def __init__(self, *, tokens: int | None = None, usd: float | None = None) -> None:
        self.tokens, self.usd = tokens, usd
        self.spent_tokens, self.spent_usd = 0, 0.0
        self._held = 0

    def reserve(self, tokens: int) -> bool:
        """Hold tokens for a request; False when they are no longer there."""
        if self.tokens is not None and self.spent_tokens + self._held + tokens > self.tokens:
            return False
        if self.usd is not None and self.spent_usd >= self.usd:
            return False
        self._held += tokens
        return True

    def settle(self, reserved: int, answer: Answer | None) -> None:
        """Give back what was held and count what was spent."""
        self._held -= reserved
        if answer is not None:
            self.spent_tokens += answer.tokens
            self.spent_usd += answer.usd


class BudgetSpent(KidRailsError):
    """Nothing more may be asked in this run."""


class Cache:
    """Answers on disk, one file each, so that nothing is paid for twice.

    Args:
        folder: made when the first answer comes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hits = 0

    @staticmethod
    def key(teacher: str, chat: Chat, max_tokens: int, attempt: int) -> str:
        """Return the name of one question; a second attempt is another question."""
        value = [teacher, [dict(message) for message in chat], max_tokens, attempt]
        return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()

    def get(self, key: str) -> Answer | None:
        """Return a stored answer; one that cannot be read counts as absent."""
        try:
            value = json.loads((self.folder / key[:2] / f"{key}.json").read_text(encoding="utf-8"))
            answer = Answer(value["text"], nonsense=value["nonsense"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self.hits += 1
        return answer

    def put(self, key: str, answer: Answer) -> None:
        """Store an answer."""
        text = json.dumps({"text": answer.text, "nonsense": answer.nonsense}, ensure_ascii=False)
        write_atomic(self.folder / key[:2] / f"{key}.json", text + "\n")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on asking.

    Attributes:
        attempts: requests for one answer before the teacher counts as unavailable.
        base_s: first wait; it doubles each time, with up to as much again by chance.
        longest_s: no wait is longer, whatever the server asks for.
        usable: answers that are nonsense before the job is dropped.
    """

    attempts: int = 6
    base_s: float = 1.0
    longest_s: float = 60.0
    usable: int = 2


class Asker:
    """Asks a teacher with retries, cache and budget.

    Args:
        teacher: the model.
        cache: where answers are kept, or None.
        budget: what may be spent.
        patience: how long to go on.
        max_tokens: longest answer.
        sleep: for tests.
    """

    def __init__(
        self,
        teacher: ModelTeacher,
        *,
        cache: Cache | None,
        budget: Budget,
        patience: Patience,
        max_tokens: int = 700,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.teacher, self.cache, self.budget = teacher, cache, budget
        self.patience, self.max_tokens, self._sleep = patience, max_tokens, sleep
        self._rng = random.Random(0)
        self.requests = 0

    async def ask(self, chat: Chat, *, attempt: int = 0) -> Answer:
        """Return one answer, from the cache where it is there.

        Raises:
            BudgetSpent: no request may be sent any more.
            TeacherUnavailable: the teacher did not answer in the end.
            TeacherRejects: it never will.
        """
        key = Cache.key(self.teacher.name, chat, self.max_tokens, attempt)
        if self.cache is not None and (stored := self.cache.get(key)) is not None:
            return stored
        # Three characters a token is on the safe side for English.
        estimate = sum(len(m["content"]) for m in chat) // 3 + self.max_tokens
        if not self.budget.reserve(estimate):
            raise BudgetSpent("the budget is spent")
        answer: Answer | None = None
        try:
            answer = await self._persist(chat)
        finally:
            self.budget.settle(estimate, answer)
        # What is no answer at all, such as a gateway's error page, is asked for again next time.
        if self.cache is not None and not answer.nonsense:
            self.cache.put(key, answer)
        return answer

    async def _persist(self, chat: Chat) -> Answer:
        last: TeacherUnavailable | None = None
        for number in range(self.patience.attempts):
            if last is not None:
                wait = self.patience.base_s * 2 ** (number - 1) * (1 + self._rng.random())
                asked = getattr(last, "wait_s", None)
                await self._sleep(min(max(wait, asked or 0.0), self.patience.longest_s))
            self.requests += 1
            try:
                return await self.teacher.complete(chat, max_tokens=self.max_tokens)
            except TeacherUnavailable as error:
                last = error
        raise TeacherUnavailable(
            f"{self.teacher.name}: {last} after {self.patience.attempts} tries"
        )


_FENCE: Final = re.compile(r"\A\s*```(?:json)?\s*(.*?)\s*```\s*\Z", re.DOTALL)
_REFUSES: Final = re.compile(
    r"(?i)\A\W*(?:i'?m sorry|sorry|i (?:can't|cannot|can not|won't|am unable)|as an ai)\b"
)


def read_object(text: str) -> dict[str, Any] | str:
    """Return the JSON object in a teacher's answer, or why there is none."""
    fenced = _FENCE.match(text)
    body = fenced.group(1) if fenced else text.strip()
    if body[:1] == "<":
        return "HTML"
    if _REFUSES.match(body):
        return "refusal"
    try:
        value = json.loads(body)
    except ValueError:
        return "not JSON"
    return value if isinstance(value, dict) else "not a JSON object"
