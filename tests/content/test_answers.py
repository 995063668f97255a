"""The fixed answers fit the band, keep the guard's own rules, and exist in every language."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from itertools import combinations

import pytest

from kidrails_guard.answers import Answers, compose_answer, load_answers, load_helplines, locales
from kidrails_guard.checks import conduct, lexicon, personal_data
from kidrails_guard.checks.readability import measure
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action, AgeBand, Hazard, Severity, Stage, Verdict

POLICY = load_policy()
GUARD = Guard(POLICY, checks=[m.build(POLICY) for m in (lexicon, personal_data, conduct)])
GROWN_UPS = {
    "en": r"grown-up|big person|mum|dad|mom|parent|teacher|nurse|grand|aunt|adult",
    "de": r"Groß|Erwachsen|Mama|Papa|Eltern|Lehrer|Erzieher|Oma|Ärzt|Tante",
    "es": r"mayor|adult|mamá|papá|padres|profe|abuel|tía|enfermer",
}
TRUSTED = {
    "en": r"trust|safe|kind to you",
    "de": r"vertrau|sicher",
    "es": r"confianza|a salvo",
}
OTHERS_PROMISED = (
    r"bekommst keinen Ärger|nadie te va a|won't be in trouble|will not be (?:cross|mad)"
)
LONGEST_SENTENCE = {AgeBand.EARLY: 14.0, AgeBand.MIDDLE: 17.0, AgeBand.UPPER: 20.0}
"""Words a sentence, on average; for languages that the English formula does not fit."""


def texts(answers: Answers) -> list[tuple[str, AgeBand, str]]:
    tables = {f"answers.{key}": table for key, table in answers.answers.items()}
    tables |= {f"notices.{key}": table for key, table in answers.notices.items()}
    tables["withheld"] = answers.withheld
    return [
        (key, band, text)
        for key, table in tables.items()
        for band, variants in table.items()
        for text in variants
    ]


ALL = [(locale, *entry) for locale in locales() for entry in texts(load_answers(locale))]
IDS = [f"{locale}-{key}-{band}-{n}" for n, (locale, key, band, _) in enumerate(ALL)]


def test_english_german_and_spanish_are_there() -> None:
    assert {"en", "de", "es"} <= set(locales())


@pytest.mark.parametrize("locale", locales())
def test_every_language_has_the_same_keys_and_masks(locale: str) -> None:
    english, other = load_answers("en"), load_answers(locale)
    assert set(other.answers) == set(english.answers)
    assert set(other.masks) == set(english.masks)
    assert set(other.notices) == set(english.notices)
    assert {"{name}", "{contact}"} <= set(re.findall(r"\{\w+\}", other.helpline))


@pytest.mark.parametrize(("locale", "key", "band", "text"), ALL, ids=IDS)
def test_it_fits_the_band(locale: str, key: str, band: AgeBand, text: str) -> None:
    rule = POLICY.bands[band]
    reading = measure(text)
    assert reading.words <= rule.max_words
    if locale == "en":
        assert reading.grade <= rule.max_grade
    else:
        assert reading.words_per_sentence <= LONGEST_SENTENCE[band]
    assert text.count("?") <= 1
    assert text == text.strip()
    assert not re.search(r"\d{3}|https?:|[{}]", text), "numbers belong into helplines.yaml"


@pytest.mark.parametrize(
    ("locale", "key", "band", "text"),
    [entry for entry in ALL if entry[0] == "en"],
    ids=[name for name in IDS if name.startswith("en")],
)
async def test_it_passes_the_guards_own_rules_for_replies(
    locale: str, key: str, band: AgeBand, text: str
) -> None:
    verdict = await GUARD.check_output(text, band=band, strict=True)
    assert verdict.action is Action.ALLOW, [f.note for f in verdict.findings]


@pytest.mark.parametrize("locale", locales())
@pytest.mark.parametrize("key", ["K01", "K01b", "K02", "K05", "K08", "K10", "K13"])
def test_a_trusted_grown_up_is_named_where_it_is_due(locale: str, key: str) -> None:
    for variants in load_answers(locale).answers[key].values():
        for text in variants:
            assert re.search(GROWN_UPS[locale], text), text


@pytest.mark.parametrize("locale", locales())
@pytest.mark.parametrize("key", ["K01", "K02"])
def test_in_a_crisis_the_grown_up_is_a_trusted_one_and_nobody_promises_for_others(
    locale: str, key: str
) -> None:
    """Whom a child likes, or who says that it loves the child, may be who hurts it."""
    for variants in load_answers(locale).answers[key].values():
        for text in variants:
            assert re.search(TRUSTED[locale], text), text
            assert not re.search(OTHERS_PROMISED, text), text


@pytest.mark.parametrize("locale", locales())
def test_variants_differ(locale: str) -> None:
    for key, band, _ in texts(load_answers(locale)):
        table = load_answers(locale)
        variants = {
            "withheld": table.withheld,
            **{f"answers.{k}": v for k, v in table.answers.items()},
            **{f"notices.{k}": v for k, v in table.notices.items()},
        }[key][band]
        for one, other in combinations(variants, 2):
            assert one[:25] != other[:25], key
    assert all(
        len(variants) >= 2
        for table in load_answers(locale).answers.values()
        for variants in table.values()
    )


@pytest.mark.parametrize("locale", locales())
def test_the_seed_picks_the_variant_and_every_one_is_picked(locale: str) -> None:
    answers = load_answers(locale)
    verdict = Verdict(Action.CRISIS, hazard=Hazard.SELF_HARM, severity=Severity.SEVERE)
    for band in AgeBand:
        picked = {answers.answer(verdict, band, seed=f"talk {n}") for n in range(60)}
        assert picked == set(answers.answers["K01"][band])
        assert answers.answer(verdict, band, seed="x") == answers.answer(verdict, band, seed="x")


def test_a_crisis_names_the_countrys_helpline_and_no_other() -> None:
    verdict = Verdict(
        Action.CRISIS, stage=Stage.INPUT, hazard=Hazard.SELF_HARM, severity=Severity.SEVERE
    )
    for country in ("US", "GB", "DE", "ES"):
        line = load_helplines().find(country, Hazard.SELF_HARM)
        assert line is not None
        for locale in locales():
            said = compose_answer(verdict, AgeBand.MIDDLE, locale=locale, country=country, seed="s")
            assert line.contact in said
            assert line.name in said
    for country in (None, "XX", "FR"):
        said = compose_answer(verdict, AgeBand.MIDDLE, locale="en", country=country, seed="s")
        assert not re.search(r"\d", said)
        assert "grown-up" in said


def test_helplines_were_looked_at_within_a_year() -> None:
    """Numbers change. When this fails: look each one up, and set ``checked_on`` to that day."""
    today = datetime.now(UTC).date()
    old = [
        f"{line.country} {line.name}: {line.checked_on}"
        for line in load_helplines().helplines
        if today - line.checked_on > timedelta(days=365)
    ]
    assert old == []
    assert all(line.checked_on <= today + timedelta(days=1) for line in load_helplines().helplines)


def test_every_helpline_says_where_it_comes_from_and_who_checked_it() -> None:
    seen: set[tuple[str, str]] = set()
    for line in load_helplines().helplines:
        assert line.source.startswith("https://")
        assert line.verified_by
        assert line.contact[0].isdigit(), "any language's sentence may end with it"
        assert isinstance(line.checked_on, date)
        assert (line.country, line.contact) not in seen
        seen.add((line.country, line.contact))
    assert {"US", "GB", "CA", "AU", "DE", "ES", "EU"} <= {country for country, _ in seen}


@pytest.mark.parametrize("band", AgeBand)
def test_crisis_words_put_no_wish_to_be_hurt_into_a_childs_mouth(band: AgeBand) -> None:
    words = " ".join(load_answers("en").answers["K01"][band])
    assert not re.search(r"\bwant to (?:be hurt|be gone|die)\b", words)
