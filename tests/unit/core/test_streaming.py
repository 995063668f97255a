"""A reply leaves unit by unit, each after its check; what is found stops the rest."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import Planted, planted_guard

from kidrails_guard.conveyor import Conveyor, guard_stream
from kidrails_guard.guard import Guard
from kidrails_guard.policy import Limits, Streaming
from kidrails_guard.streaming import ReleaseWindow, judge_reply
from kidrails_guard.types import NO_TURNS, Action, AgeBand, Finding, Hazard, Severity, Stage
from kidrails_guard.units import _BORDER as BORDER
from kidrails_guard.units import CutRule, Cutter, clean_surrogates

BAND = AgeBand.MIDDLE
CALM = (
    "Wolves howl to talk with their pack. They do it at dusk and in the night, when the air is "
    "still, because sound goes far over the hills then. "
)


def units(text: str, longest: int = 240) -> list[str]:
    cutter = Cutter(CutRule.for_longest(longest))
    return [unit.text for unit in cutter.feed(text) + cutter.finish()]


async def pieces(*texts: str, pause: float = 0.0):
    for text in texts:
        await asyncio.sleep(pause)
        yield text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("no end", ["no end"]),
        ("The moon is round. It glows.", ["The moon is round. ", "It glows."]),
        # A first sentence that is very short waits for the next one.
        ("Hi! The moon is round. It glows.", ["Hi! The moon is round. ", "It glows."]),
        # Neither a shortened word nor a number ends a sentence.
        ("I asked Dr. Miller about it. Fine.", ["I asked Dr. Miller about it. ", "Fine."]),
        ("The line is 555 123.\n4567 is the rest", ["The line is 555 123.\n4567 is the rest"]),
        ("He said so e.g. today and there. Ok", ["He said so e.g. today and there. ", "Ok"]),
        # Scripts that put no blank after a mark.
        (
            "月は丸いです。狼は遠吠えします。夜に歌う。それは",
            ["月は丸いです。狼は遠吠えします。", "夜に歌う。それは"],
        ),
    ],
)
def test_units_end_where_sentences_do(text: str, expected: list[str]) -> None:
    assert units(text) == expected


def test_a_long_sentence_is_cut_at_a_comma_or_at_a_blank() -> None:
    clause = "and the wolf went over the hill and through the wood and along the river"
    assert units(f"{clause}, {clause}, {clause}.")[0] == f"{clause}, {clause}, "
    assert all(len(unit) <= 240 for unit in units("word " * 500))
    assert all(unit.endswith(" ") for unit in units("word " * 500)[:-1])
    assert all(len(unit) <= 240 for unit in units("x" * 2_000))


def test_after_the_first_sentence_a_unit_is_full_at_a_hundred_characters() -> None:
    first, short = "The moon is round. ", "Its light comes from the sun, as a mirror's does. "
    assert units(first + short * 4) == [first, short * 2, short * 2]


@given(st.text('abA .,:!?)"\n\t\x1c', max_size=120))
def test_text_in_ascii_is_cut_where_the_same_with_accents_is(text: str) -> None:
    accented = text.translate(str.maketrans("abA", "áäÁ"))
    assert [len(u) for u in units(text, 40)] == [len(u) for u in units(accented, 40)]


def test_cutting_is_linear_in_the_text(monkeypatch) -> None:
    class Counting:
        """Adds up the characters that the search for borders walks over."""

        walked = 0

        def search(self, text: str, start: int) -> re.Match[str] | None:
            match = BORDER.search(text, start)
            self.walked += (match.end() if match else len(text)) - start
            return match

    def walked(count: int, step: int) -> int:
        counting = Counting()
        monkeypatch.setattr("kidrails_guard.units._BORDER", counting)
        text = "a word, and another. " * count
        cutter = Cutter(CutRule.for_longest(240))
        for at in range(0, len(text), step):
            cutter.feed(text[at : at + step])
        return counting.walked

    for step in (1, 7, 10**6):
        small, large = walked(500, step), walked(4_000, step)
        assert large <= small * 8 * 1.1


def test_halves_of_a_character_are_joined_and_lone_ones_replaced() -> None:
    cutter = Cutter(CutRule.for_longest(240))
    out = cutter.feed("a\ud83d") + cutter.feed("\ude00b\udc00") + cutter.finish()
    assert "".join(unit.text for unit in out) == "a😀b\ufffd"
    assert clean_surrogates("\ud83d\ude00\ud83d") == "😀\ufffd"


async def test_what_passes_leaves_unchanged_and_in_order() -> None:
    window = ReleaseWindow(planted_guard(), band=BAND)
    out = [text async for text in guard_stream(window, pieces(*CALM))]
    assert "".join(out) == CALM
    assert len(out) == 2
    assert window.verdict.action is Action.ALLOW
    assert window.withheld == 0


async def test_a_hit_stops_before_its_unit_and_keeps_the_rest_back() -> None:
    window = ReleaseWindow(planted_guard(), band=BAND)
    text = CALM + "Now mix the kaboomium. And then this."
    out = [text async for text in guard_stream(window, pieces(*text))]
    assert "".join(out) == CALM
    assert (window.verdict.action, window.verdict.hazard) == (Action.REFUSE, Hazard.VIOLENCE_HOWTO)
    assert window.stopped
    assert window.withheld == window.received - len(CALM)
    finding = window.verdict.findings[0]
    assert finding.span is not None
    assert text[slice(*finding.span)] == "kaboomium"


async def test_reading_stops_at_once_after_a_hit() -> None:
    closed = asyncio.Event()
    said = 0

    async def endless():
        nonlocal said
        try:
            while True:
                said += 1
                yield "Some zorblat words that go on and on without end. "
                await asyncio.sleep(0)
        finally:
            closed.set()

    window = ReleaseWindow(planted_guard(), band=BAND)
    assert [text async for text in guard_stream(window, endless())] == []
    assert closed.is_set()
    assert said < 100


async def test_a_hazard_across_two_sentences_stops_the_second() -> None:
    first = "This is a long and quiet sentence that ends with obey\n"
    window = ReleaseWindow(planted_guard(), band=BAND)
    out = [t async for t in guard_stream(window, pieces(first, "the parrot is my friend."))]
    assert "".join(out) == first
    assert window.verdict.hazard is Hazard.JAILBREAK


async def test_a_hazard_that_only_the_whole_shows_keeps_the_last_unit_back() -> None:
    class CountsWolves:
        name = "planted"
        stages = frozenset(Stage)

        async def __call__(self, conversation, text, band, stage):
            if text.count("wolf") >= 20:
                return [Finding("planted", Hazard.HATE, Severity.SEVERE)]
            return []

    text = "A wolf and a wolf. " * 60
    guard = planted_guard(CountsWolves(), streaming=Streaming(context_characters=64))
    window = ReleaseWindow(guard, band=BAND)
    out = [t async for t in guard_stream(window, pieces(*text))]
    assert "".join(out) == text[: len("".join(out))]
    assert window.verdict.hazard is Hazard.HATE
    assert 0 < window.withheld < len(text)
    assert (await judge_reply(guard, text, band=BAND)).verdict.hazard is Hazard.HATE


async def test_a_check_that_looks_in_parts_is_left_out_of_the_look_at_the_whole() -> None:
    class Notes:
        stages = frozenset(Stage)

        def __init__(self, name: str, **traits: bool) -> None:
            self.name, self.seen = name, []
            self.__dict__.update(traits)

        async def __call__(self, conversation, text, band, stage):
            self.seen.append(text)
            return []

    text = "A wolf and a wolf. " * 60
    checks = [
        Notes("a"),
        Notes("b", inline=True),
        Notes("c", in_parts=True),
        Notes("d", in_parts=True, inline=True),
    ]
    guard = Guard(checks=checks)
    assert (await judge_reply(guard, text, band=BAND)).verdict.action is Action.ALLOW
    whole, whole_inline, parts, parts_inline = (check.seen for check in checks)
    assert whole == whole_inline == [*parts, text]
    assert parts_inline == parts
    assert set(text.split()) == {word for part in parts for word in part.split()}
    # Asked about a whole reply that nobody has looked at in parts, every check looks.
    await guard.check_output("A wolf.", band=BAND)
    assert [check.seen[-1] for check in checks] == ["A wolf."] * 4


async def test_masks_work_across_pieces() -> None:
    window = ReleaseWindow(planted_guard(), band=BAND)
    text = "You can call them on 555 123 4567, or later. Or write to anna@home.test!"
    out = "".join([t async for t in guard_stream(window, pieces(*text))])
    assert out == "You can call them on [phone number], or later. Or write to [e-mail]!"
    assert window.verdict.action is Action.REDACT


async def test_words_across_a_forced_cut_are_seen_before_the_first_half_leaves() -> None:
    guard = planted_guard(streaming=Streaming(max_held_characters=64))
    for lead in range(20, 70):
        text = "la " * (lead // 3) + "i want to vanish " + "la " * 40
        judged = ReleaseWindow(guard, band=BAND)
        out = "".join([t async for t in guard_stream(judged, pieces(*text))])
        assert "want" not in out
        assert judged.stopped


async def test_reading_goes_on_while_a_unit_is_checked() -> None:
    came_meanwhile = []

    class Slow(Planted):
        async def __call__(self, conversation, text, band, stage):
            before = window.received
            for _ in range(20):
                await asyncio.sleep(0)
            came_meanwhile.append(window.received - before)
            return []

    window = ReleaseWindow(planted_guard(Slow()), band=BAND)
    sentence = (
        "Wolves howl at the moon and at each other in the night, until the sun comes up and all of "
        "them sleep. "
    )
    out = [t async for t in guard_stream(window, pieces(*(sentence * 12)))]
    assert "".join(out) == sentence * 12
    assert sum(came_meanwhile) >= 200  # 20 turns of the loop in each of a dozen checks


async def test_a_reader_waits_when_too_many_units_wait() -> None:
    most = 0

    async def fast():
        nonlocal most
        for _ in range(300):
            yield CALM
            most = max(most, window.waiting)
        window.finish()

    guard = planted_guard(Planted(lambda: 0), limits=Limits(max_reply_characters=100_000))
    window = ReleaseWindow(guard, band=BAND)
    async with Conveyor(fast(), window.feed, windows=lambda: (window,), most_waiting=8) as belt:
        async for _ in belt:
            pass
    assert not window.stopped
    assert most <= 8 + 4


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_model_that_writes_slowly_is_no_wait_for_the_guard() -> None:
    clock = Clock()

    class Slow(Planted):
        async def __call__(self, conversation, text, band, stage):
            clock.now += 0.25
            return []

    window = ReleaseWindow(planted_guard(Slow()), band=BAND, clock=clock)
    for character in CALM * 2:
        clock.now += 1
        window.feed(character)
        if window.ready:
            break
    assert clock.now > 30
    clock.now += 0.5  # while another reply is checked
    release = await window.advance()
    assert release is not None
    assert release.held_s == pytest.approx(0.75)
    window.feed("once upon a time there was a very small wolf who could not howl at all because ")
    wait = window.early_in()
    assert wait is not None
    clock.now += wait
    early = await window.advance_early()
    assert early is not None
    assert early.held_s == pytest.approx(0.25)


async def test_what_waits_too_long_leaves_between_words_after_its_own_check() -> None:
    clock, check = Clock(), Planted()
    window = ReleaseWindow(planted_guard(check), band=BAND, clock=clock)
    text = "once upon a time there was a very small wolf who could not howl at all because"
    window.feed(text)
    assert window.early_in() == pytest.approx(2.0)
    clock.now = 2.5
    assert window.early_in() == 0
    release = await window.advance_early()
    assert release is not None
    assert text.startswith(release.text)
    assert release.text.endswith(" ")
    # As much as a phrase needs stays back.
    assert 30 < len(text) - len(release.text) < 60
    assert check.windows == [text]
    assert window.early_in() is None  # nothing new to say
    window.feed(" it was shy. And then")
    window.finish()
    rest = [await window.advance() for _ in range(2)]
    assert release.text + "".join(r.text for r in rest if r) == text + " it was shy. And then"


async def test_what_an_early_look_finds_waits_and_decides_nothing() -> None:
    class EndsWithMoon(Planted):
        async def __call__(self, conversation, text, band, stage):
            return [Finding("x", Hazard.HATE, Severity.SEVERE)] if text.endswith("moon") else []

    clock = Clock()
    window = ReleaseWindow(planted_guard(EndsWithMoon()), band=BAND, clock=clock)
    text = "the wolf walked all through the night, and over the hills, and under the moon"
    window.feed(text)
    clock.now = 5
    assert await window.advance_early() is None
    window.feed(" light.")
    window.finish()
    release = await window.advance()
    assert release is not None
    assert release.text == text + " light."
    assert window.verdict.action is Action.ALLOW


async def test_early_masks_never_show_a_part() -> None:
    clock = Clock()
    window = ReleaseWindow(planted_guard(), band=BAND, clock=clock)
    shown = ""
    text = (
        "please call the nice people on 555 123 4567 or on 555 765 4321 and tell them all of it ok"
    )
    for letter in text:
        window.feed(letter)
        clock.now += 3
        early = window.early_in()
        if early == 0:
            release = await window.advance_early()
            shown += release.text if release else ""
    window.finish()
    while window.ready:
        release = await window.advance()
        shown += release.text if release else ""
    assert not any(c.isdigit() for c in shown)
    assert shown.count("[phone number]") == 2


async def test_a_reply_that_is_too_long_stops_there() -> None:
    guard = planted_guard(limits=Limits(max_reply_characters=200))
    for cut in (pieces(CALM * 5), pieces(*(CALM * 5))):
        window = ReleaseWindow(guard, band=BAND)
        out = "".join([t async for t in guard_stream(window, cut)])
        assert len(out) <= 200
        assert window.verdict.failed == ("limits",)


async def test_a_check_that_fails_keeps_its_unit_back() -> None:
    class Breaks(Planted):
        async def __call__(self, conversation, text, band, stage):
            if "night" in text:
                raise RuntimeError(text)
            return []

    window = ReleaseWindow(planted_guard(Breaks()), band=BAND)
    out = [t async for t in guard_stream(window, pieces(*CALM))]
    assert "".join(out) == "Wolves howl to talk with their pack. "
    assert window.verdict.failed == ("planted",)
    assert window.verdict.action is Action.REFUSE


async def test_a_source_that_breaks_off_raises_after_what_has_passed() -> None:
    async def breaks():
        yield CALM
        yield "and then kaboo"
        raise ConnectionError("gone")

    window = ReleaseWindow(planted_guard(), band=BAND)
    out = []
    stream = guard_stream(window, breaks())
    with pytest.raises(ConnectionError):
        _ = [out.append(text) async for text in stream]
    assert CALM.startswith("".join(out))
    assert "kaboo" not in "".join(out)


async def test_findings_about_the_whole_count_once_and_only_on_the_whole() -> None:
    class Wordy(Planted):
        async def __call__(self, conversation, text, band, stage):
            return [
                Finding(
                    "x",
                    Hazard.BENIGN,
                    Severity.MILD,
                    case="length",
                    note=str(len(text)),
                    whole=True,
                )
            ]

    judged = await judge_reply(planted_guard(Wordy()), CALM * 4, band=BAND)
    assert [f.note for f in judged.verdict.findings] == [str(len(CALM * 4))]
    assert judged.text == CALM * 4


async def test_several_windows_share_one_conveyor() -> None:
    guard = planted_guard()
    windows = [ReleaseWindow(guard, band=BAND) for _ in range(3)]

    async def source():
        for part in ("Calm words of no importance. ", "Now zorblat. ", "Calm again, and so on. "):
            for i in range(3):
                yield i, part
                await asyncio.sleep(0)
        for window in windows:
            window.finish()

    shown = {id(w): "" for w in windows}

    def take(item):
        number, text = item
        windows[number].feed(text.replace("zorblat", "bread") if number != 1 else text)

    async with Conveyor(source(), take, windows=lambda: windows) as belt:
        async for step in belt:
            assert step is not None
            if step[1]:
                shown[id(step[0])] += step[1].text
    assert [w.stopped for w in windows] == [False, True, False]
    assert shown[id(windows[1])] == "Calm words of no importance. "
    assert shown[id(windows[0])].endswith("and so on. ")


async def test_silence_gives_ticks_and_an_end_from_outside_ends_it() -> None:
    window = ReleaseWindow(planted_guard(), NO_TURNS, band=BAND)

    async def silent():
        await asyncio.sleep(60)
        yield ""

    ticks = 0
    async with Conveyor(silent(), window.feed, windows=lambda: (window,), tick_s=0.01) as belt:
        async for step in belt:
            assert step is None
            ticks += 1
            if ticks == 3:
                belt.stop(RuntimeError("enough"))
    assert ticks == 3
    assert str(belt.error) == "enough"
