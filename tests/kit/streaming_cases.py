"""Random replies with planted hazards, cut and delayed at random: one seed is one case.

Run by the property test (10,000 cases) and by `make property-long` (100,000).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import dataclass

from planted import MAIL, PATTERNS, PLANTS, Planted, planted_guard

from kidrails_guard.conveyor import Conveyor
from kidrails_guard.policy import Streaming
from kidrails_guard.proxy.sse import EventReader
from kidrails_guard.streaming import ReleaseWindow, judge_reply
from kidrails_guard.types import AgeBand, Hazard
from kidrails_guard.units import clean_surrogates

TALK = (
    "the moon is round and wolves howl because they talk to each other über große Wälder 😀 "
    "naïve 👩\u200d🚀 月は丸いです。狼は遠吠えします、夜に。 e.g. Dr. Smith said... well; "
    "maybe: yes - no! why? ok.\n\n * item \t tab \u200b zero <b>bold</b> {json} \"quote\" 'tick' … "
    "–dash–"
)
WORDS = TALK.split(" ")
STOPS = {plant for plant, (hazard, _) in PLANTS.items() if hazard is not Hazard.DISTRESS}


@dataclass(frozen=True)
class Case:
    text: str
    pieces: tuple[str, ...]
    cuts: tuple[bytes, ...]
    longest: int
    seed: int


def make_text(r: random.Random) -> str:
    parts = []
    for _ in range(r.choice((0, 1, 3, 10, 40, 120))):
        roll = r.random()
        if roll < 0.02:
            plant = r.choice(list(PLANTS))
            blank = r.choice((" ", " ", "  ", "\n"))
            plant = plant.replace(" ", blank)
            parts.append(r.choice((plant, plant.upper(), plant + ".", f'"{plant}",')))
        elif roll < 0.05:
            sep = r.choice("- \n")
            number = f"555{sep}{r.randint(100, 999)}{r.choice('- ')}{r.randint(1000, 9999)}"
            parts.append(r.choice((number, number + ".", f"call {number}, now")))
        elif roll < 0.06:
            parts.append(f"mail anna@{r.choice(('home', 'school'))}.test")
        elif roll < 0.065:
            parts.append("x" * r.choice((90, 300)))
        else:
            parts.append(r.choice(WORDS))
    blanks = r.choice((" ", " ", "  ", "\n"))
    return blanks.join(parts)


def cut_at_random(r: random.Random, value, most: int):
    places = sorted({r.randint(0, len(value)) for _ in range(r.randint(0, most))})
    return [value[a:b] for a, b in zip([0, *places], [*places, len(value)], strict=True)]


def make_case(seed: int) -> Case:
    r = random.Random(seed)
    text = make_text(r)
    pieces = cut_at_random(r, text, r.choice((0, 3, 30, len(text))))
    # Some servers escape; then the two halves of a character may come in two events.
    ascii_only = r.random() < 0.5
    if ascii_only and r.random() < 0.5:
        halves = text.encode("utf-16-le", "surrogatepass")
        units = [
            halves[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(halves), 2)
        ]
        pieces = ["".join(part) for part in cut_at_random(r, units, 40)]
    end = r.choice(("\n\n", "\r\n\r\n", "\r\r"))
    wire = "".join(
        r.choice(("", "", ": ping" + end))
        + "data:"
        + r.choice(("", " "))
        + json.dumps({"text": piece}, ensure_ascii=ascii_only)
        + end
        for piece in pieces
    ).encode()
    cuts = cut_at_random(r, wire, r.choice((0, 5, 50)))
    return Case(text, tuple(pieces), tuple(cuts), r.choice((64, 64, 100, 240)), seed)


class Clock:
    """Runs by itself, in jumps: a wait that takes no time in the test."""

    def __init__(self, r: random.Random, jump_s: float) -> None:
        self.now, self.r, self.jump_s = 0.0, r, jump_s

    def __call__(self) -> float:
        self.now += self.r.random() * self.jump_s
        return self.now


async def run_case(case: Case) -> tuple[int, int]:
    """Check one case; return characters sent and characters released.

    Raises:
        AssertionError: something left that should not, or the verdict depends on the cuts.
    """
    r = random.Random(case.seed + 1)
    text = clean_surrogates(case.text)
    check = Planted(lambda: r.choice((None, None, 0, 0.0002)) if r.random() < 0.3 else None)
    rule = Streaming(max_held_characters=case.longest, context_characters=r.choice((64, 400)))
    guard = planted_guard(check, streaming=rule)
    band = r.choice(list(AgeBand))
    clock = Clock(r, r.choice((0.0, 0.0, 1.0, 6.0)))
    window = ReleaseWindow(guard, band=band, clock=clock)
    reader, pauses = EventReader(), r.choice((0.2, 1.0))

    async def source():
        for cut in case.cuts:
            if r.random() < pauses:
                await asyncio.sleep(0)
            for data in reader.feed(cut):
                yield json.loads(data)["text"]
        for data in reader.finish():
            yield json.loads(data)["text"]
        window.finish()

    out = []
    async with Conveyor(source(), window.feed, windows=lambda: (window,), most_waiting=4) as belt:
        async for step in belt:
            assert step is not None
            _, release = step
            if release is not None:
                # What leaves unmasked was part of the window that was looked at last.
                assert release.masked or release.text in check.windows[-1]
                out.append(release.text)
    assert belt.error is None, belt.error
    shown = "".join(out)

    # The same as for the whole text at once.
    whole = await judge_reply(guard, text, band=band)
    assert _said(window.verdict) == _said(whole.verdict)
    assert window.stopped or shown == whole.text

    # What the plants say, without the code under test.
    hits = [m for plant in STOPS for m in PATTERNS[plant].finditer(text)]
    assert window.stopped == bool(hits)
    for match in hits:
        inside_line = "\n" not in match.group()
        assert window.released <= (match.start() if inside_line else match.end() - 1)
    assert not any(PATTERNS[plant].search(shown) for plant in STOPS)
    assert not re.search(r"\d", shown), "a part of a number left"
    assert not MAIL.search(shown)
    if not window.stopped:
        assert window.released == len(text)
    return len(text), window.released


def _said(verdict):
    return verdict.action, verdict.hazard, verdict.case, verdict.findings, verdict.failed


async def run_cases(seeds) -> dict[str, int]:
    """Run many cases; return counts."""
    counts = {"cases": 0, "stopped": 0, "characters": 0, "released": 0}
    for seed in seeds:
        sent, left = await run_case(make_case(seed))
        counts["cases"] += 1
        counts["characters"] += sent
        counts["released"] += left
        counts["stopped"] += sent != left
    return counts
