"""Reading level and length, counted as textstat counts them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kidrails_guard.checks.readability import build, measure
from kidrails_guard.policy import load_policy
from kidrails_guard.types import NO_TURNS, AgeBand, Stage

POLICY = load_policy()
CHECK = build(POLICY)

HARD = (
    "Photosynthesis is the extraordinarily complicated biochemical procedure through which "
    "chlorophyll-containing organisms transform electromagnetic radiation into carbohydrates, "
    "simultaneously liberating molecular oxygen as an inevitable consequence of their metabolism, "
    "which scientists have investigated intensively."
)
EASY = "Plants eat light. They sip it up with their green leaves. Then they make sugar. " * 3


@pytest.fixture(scope="module")
def textstat():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("textstat")


def test_the_numbers_are_textstats(textstat, repository: Path) -> None:
    for path in sorted((repository / "data" / "golden").glob("*.jsonl"))[:6]:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for text in (row["golden"], row["message"]):
                assert measure(text).grade == textstat.flesch_kincaid_grade(text)


@settings(max_examples=60)
@given(st.text(alphabet="abcdeiourst ,.!?'-\n", max_size=150))
def test_so_are_those_of_odd_texts(textstat, text: str) -> None:
    if text.strip():
        assert measure(text).grade == pytest.approx(textstat.flesch_kincaid_grade(text))


async def look(text: str, band: AgeBand) -> set[str]:
    return {f.case for f in await CHECK(NO_TURNS, text, band, Stage.OUTPUT)}


async def test_a_hard_reply_is_named_with_its_numbers() -> None:
    (finding,) = await CHECK(NO_TURNS, HARD, AgeBand.UPPER, Stage.OUTPUT)
    assert finding.case == "reading_level"
    assert "at most 7" in finding.note
    assert "words a sentence" in finding.note


async def test_an_easy_reply_passes_and_a_long_one_does_not() -> None:
    assert await look(EASY, AgeBand.EARLY) == set()
    assert await look(EASY * 5, AgeBand.EARLY) == {"length"}
    assert await look(EASY * 5, AgeBand.UPPER) == {"length"}


async def test_below_thirty_words_the_formula_says_nothing() -> None:
    assert (
        await look("Photosynthesis characterises chlorophyllaceous organisms.", AgeBand.EARLY)
        == set()
    )


@pytest.mark.parametrize("text", ["", " ", "\x00", "🎉" * 400, "a" * 20_000, "a " * 10_000])
async def test_odd_replies_have_a_level(text: str) -> None:
    assert isinstance(await look(text, AgeBand.EARLY), set)
    assert measure(text).words >= 0
