"""However a reply is cut and however long checks take, nothing leaves that should not.

`make property-long` runs ten times as many cases and keeps the result in ``benchmarks/results``.
"""

from __future__ import annotations

import itertools

import pytest
import streaming_cases
from chunk_invariance import assert_chunk_invariant_async
from chunk_invariance.strategies import splits_of
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import planted_guard

from kidrails_guard.conveyor import guard_stream
from kidrails_guard.guard import run_sync
from kidrails_guard.streaming import ReleaseWindow, judge_reply
from kidrails_guard.types import AgeBand
from kidrails_guard.units import CutRule, Cutter, clean_surrogates


async def test_ten_thousand_replies_cut_and_delayed_at_random() -> None:
    counts = await streaming_cases.run_cases(range(10_000))
    assert counts["cases"] == 10_000
    assert counts["stopped"] > 1_000  # the plants are really there
    assert counts["released"] > 500_000


TEXTS = st.lists(
    st.sampled_from(
        [
            *"ab.,!? \n\t",
            "word ",
            "Dr. ",
            "。",
            "月",
            "\ud83d",
            "\ude00",
            "1",
            "@",
            "x" * 70,
            "e\u0301",
            "...\n\n",
        ]
    ),
    max_size=60,
).map("".join)


@given(TEXTS, st.data(), st.sampled_from([16, 64, 240]))
@settings(max_examples=1_000, deadline=None)
def test_units_depend_on_the_text_alone(text: str, data: st.DataObject, longest: int) -> None:
    def cut(chunks):
        cutter = Cutter(CutRule.for_longest(longest))
        return [u for chunk in chunks for u in cutter.feed(chunk)] + cutter.finish()

    whole = cut([text])
    assert cut(data.draw(splits_of(text)) if text else []) == whole
    assert cut(text) == whole
    assert "".join(unit.text for unit in whole) == clean_surrogates(text)
    assert all(len(unit.text) + len(unit.beyond) <= longest for unit in whole)
    assert [unit.final for unit in whole] == [False] * (len(whole) - 1) + [True] * bool(whole)


SAMPLES = (
    "Call me on 555-123-4567 or write to anna@home.test. Wolves howl at night.",
    "A long and calm sentence about the moon, which is round, and far. Call 555 123\n4567 now!",
    "Short. Mail anna@home.test",
)


@pytest.mark.parametrize("sample", SAMPLES)
async def test_the_package_chunk_invariance_agrees_about_masking(sample: str) -> None:
    guard = planted_guard()
    expected = (await judge_reply(guard, sample, band=AgeBand.EARLY)).text
    assert expected != sample  # a sample that nothing masks tests nothing

    async def streamed(chunks):
        async for text in guard_stream(ReleaseWindow(guard, band=AgeBand.EARLY), chunks):
            yield text

    def whole(text: str) -> str:
        return expected

    checked = await assert_chunk_invariant_async(streamed, whole, sample)
    assert checked == len(sample)


def test_the_package_chunk_invariance_agrees_about_stopping() -> None:
    guard = planted_guard()
    text = "The moon is round and bright tonight. Now mix kaboomium with it. Good night."

    async def stream(chunks):
        async def source():
            for chunk in chunks:
                yield chunk

        window = ReleaseWindow(guard, band=AgeBand.EARLY)
        return "".join([t async for t in guard_stream(window, source())]), window.verdict

    results = {
        (shown, verdict.action, verdict.findings)
        for cut in itertools.chain([[text]], ([text[:i], text[i:]] for i in range(1, len(text))))
        for shown, verdict in [run_sync(stream(cut))]
    }
    assert len(results) == 1
    assert next(iter(results))[0] == "The moon is round and bright tonight. "
