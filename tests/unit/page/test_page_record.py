"""What the grown-up reads about what happened."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from kidrails_guard.answers import load_answers, load_helplines
from kidrails_guard.audit import (
    AuditLog,
    AuditRecord,
    InboxEntry,
    note_inbox,
    read_events,
    read_inbox,
    read_texts,
)
from kidrails_guard.explain import HAZARDS, reasons
from kidrails_guard.page import texts, views
from kidrails_guard.page.record import happenings, local_time, notes, tally
from kidrails_guard.policy import load_policy
from kidrails_guard.proxy.seams import AuditEvent
from kidrails_guard.types import (
    CASES,
    Action,
    AgeBand,
    Finding,
    Hazard,
    Severity,
    Stage,
    Verdict,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def record(**changes: Any) -> AuditRecord:
    plain: dict[str, Any] = {
        "time": NOW.isoformat(timespec="milliseconds"),
        "request_id": "r1",
        "tenant": "page",
        "session": "",
        "band": "7-9",
        "stage": "input",
        "action": "allow",
        "hazard": "K00",
        "severity": "none",
        "case": "",
        "findings": (),
        "failed": (),
        "text_hash": "",
        "length": 10,
        "withheld_characters": 0,
        "policy": "",
        "model": "small",
        "elapsed_ms": 1.0,
        "streamed": True,
        "note": "",
        "seq": 1,
        "prev": "",
        "hash": "",
    }
    return AuditRecord(**{**plain, **changes})


def finding(**changes: Any) -> dict[str, Any]:
    plain = {
        "check": "classifier",
        "hazard": "K05",
        "severity": "moderate",
        "score": 0.914,
        "case": "",
        "note": "",
    }
    return {**plain, **changes}


def test_every_value_has_words() -> None:
    assert {case for cases in CASES.values() for case in cases} <= set(texts.CASE)
    for table in (texts.ON_INPUT, texts.ON_OUTPUT, texts.BADGE, texts.RULE, views.LEVEL):
        assert set(table) == set(Action)


def test_an_everyday_message_and_its_reply_are_one_entry() -> None:
    (one,) = happenings([record(stage="output"), record()])
    assert one.said == ("An everyday message.", "The program answered.")
    assert not one.why
    assert not one.held_back


def test_a_held_back_message_says_why() -> None:
    (one,) = happenings(
        [
            record(
                action="redirect",
                hazard="K05",
                severity="moderate",
                findings=(finding(), finding(check="lexicon", score=1.0, note="K05.fire")),
            )
        ]
    )
    assert one.held_back
    assert one.said[0] == "Seen in a message: something dangerous to do."
    assert "not asked" in one.said[1]
    assert one.why == (
        "The check 'classifier' saw something dangerous to do (91% sure). (child’s message, "
        "moderate, K05)",
        f"{reasons()['K05.fire']} (child’s message, moderate, K05)",
    )


@pytest.mark.parametrize("stage", ["input", "output"])
@pytest.mark.parametrize(
    ("changes", "masked"),
    [
        ({"masks": False}, False),
        ({}, False),
        ({"check": "my_own", "masks": True}, True),
        ({"check": "personal_data"}, True),  # as earlier logs say it
    ],
)
def test_details_count_as_masked_only_where_they_were(
    stage: str, changes: dict[str, Any], masked: bool
) -> None:
    found = finding(hazard="K10", **changes)
    (one,) = happenings([record(stage=stage, action="redact", hazard="K10", findings=(found,))])
    assert ("none could be masked" not in one.said[-1]) is masked
    assert one.badge == ("Details masked" if masked else "Details seen")


def test_a_reply_that_misbehaved_is_named_by_what_it_did() -> None:
    (one,) = happenings(
        [
            record(),
            record(
                stage="output",
                action="redirect",
                hazard="K14",
                case="secrecy",
                findings=(finding(check="conduct", hazard="K14", case="secrecy", score=1.0),),
            ),
        ]
    )
    assert one.said[2].startswith("The reply offers a secret")
    assert one.action is Action.REDIRECT
    assert one.why[0].endswith("(program’s reply, moderate, K14)")


def test_a_failed_check_is_said_plainly() -> None:
    (one,) = happenings([record(action="refuse", failed=("classifier",))])
    assert one.failed
    assert one.said[0] == "A message could not be checked: the trained classifier did not work."


def test_newest_first_and_the_graver_of_two_inputs_counts() -> None:
    later = (NOW + timedelta(seconds=5)).isoformat()
    found = happenings(
        [
            record(request_id="a"),
            record(request_id="b", time=later, action="crisis", hazard="K02"),
            record(request_id="b", time=later),
        ]
    )
    assert [h.request_id for h in found] == ["b", "a"]
    assert found[0].needs_someone


def test_an_unknown_hazard_or_check_of_a_later_version_is_shown_as_it_is() -> None:
    (one,) = happenings(
        [record(action="refuse", hazard="K99", findings=(finding(hazard="K99", check="mine"),))]
    )
    assert one.held_back
    assert "K99" in one.why[0]
    assert one.why[0].startswith("The check 'mine' saw")


def test_the_tally_counts_the_local_day() -> None:
    zone = UTC
    yesterday = (NOW - timedelta(days=1)).isoformat()
    found = happenings(
        [
            record(request_id="1"),
            record(request_id="2", action="care", hazard="K13"),
            record(request_id="3", action="refuse", hazard="K04"),
            record(request_id="4", action="crisis", hazard="K01"),
            record(request_id="5", action="crisis", hazard="K01", time=yesterday),
        ]
    )
    counts = tally(found, day=NOW, zone=zone)
    assert (counts.messages, counts.care, counts.held_back, counts.crisis) == (4, 1, 1, 1)


def entry(kind: str, seconds: int, **changes: Any) -> InboxEntry:
    time = (NOW + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    return InboxEntry(time, kind, **changes)  # type: ignore[arg-type]


def test_unseen_crises_stay_on_top() -> None:
    entries = [
        entry("tell_a_grown_up", 30),
        entry("crisis", 20, hazard="K02"),
        entry("crisis", 0, hazard="K01"),
    ]
    found = notes(entries, seen_until=entries[2].time)
    assert [(n.kind, n.new) for n in found] == [
        ("crisis", True),
        ("tell_a_grown_up", True),
        ("crisis", False),
    ]
    assert "hurting" in found[0].said
    assert all(note.advice for note in found)


def test_times_bear_their_day_of_today_too() -> None:
    assert local_time(NOW - timedelta(days=1), zone=UTC) == "Sun 22 Nov 2026, 12:00:00 UTC"
    paris = timezone(timedelta(hours=1), "CET")
    assert local_time(NOW, zone=paris) == "Mon 23 Nov 2026, 13:00:00 CET"


async def test_the_real_log_reads_as_plain_words_without_the_childs(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    secret = "my-very-own-words-1234"
    verdict = Verdict(
        Action.CRISIS,
        (Finding("classifier", Hazard.SELF_HARM, Severity.SEVERE, 0.99),),
        stage=Stage.INPUT,
        hazard=Hazard.SELF_HARM,
        severity=Severity.SEVERE,
    )
    await log.record(AuditEvent("r", "page", "s", AgeBand.EARLY, verdict, secret, "d", "small"))
    await log.close()
    note_inbox(tmp_path, "tell_a_grown_up", band="5-6")
    happened = happenings(read_events(tmp_path))
    waiting = notes(read_inbox(tmp_path), seen_until="")
    page = views.happenings_view(happened, zone=UTC)
    page += views.inbox_view(waiting, zone=UTC)
    assert "may want to die" in page
    assert "Tell a grown-up" in page
    assert secret not in page


async def test_words_that_the_operator_keeps_can_be_read_with_the_key(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, text_retention_days=2)
    verdict = Verdict(Action.REFUSE, hazard=Hazard.HATE, stage=Stage.INPUT)
    for number in range(3):
        text = f"words {number}"
        await log.record(
            AuditEvent(f"r{number}", "page", "", AgeBand.EARLY, verdict, text, "d", "m")
        )
    await log.close()
    assert read_texts(tmp_path, ["r0", "r2"]) == {"r0": "words 0", "r2": "words 2"}
    assert read_texts(tmp_path, ["r0"], stage="output") == {}
    assert "words 0" not in "".join(p.read_text() for p in tmp_path.glob("texts-*"))
    (tmp_path / "key").write_text("0" * 64)
    assert read_texts(tmp_path, ["r0"]) == {}
    assert read_texts(tmp_path / "absent", ["r0"]) == {}


def test_words_show_only_where_they_are_given_and_are_escaped() -> None:
    happened = happenings([record(action="refuse", hazard="K04")])
    words = {"r1": "<script>alert(1)</script>"}
    page = views.happenings_view(happened, zone=UTC, words=words)
    assert "<blockquote>&lt;script&gt;" in page
    assert "<blockquote>" not in views.happenings_view(happened, zone=UTC)


def test_what_the_log_says_is_escaped() -> None:
    odd = finding(note="<img src=x>", check="<b>", hazard="<i>")
    happened = happenings([record(action="refuse", band="<u>", findings=(odd,))])
    page = views.happenings_view(happened, zone=UTC)
    assert not re.search(r"<(?:img|b|i|u)[ >]", page)


def test_the_rules_name_every_hazard_and_every_case() -> None:
    policy = load_policy()
    page = views.policy_view(policy)
    for hazard in set(Hazard) - {Hazard.BENIGN}:
        assert HAZARDS[hazard] in page
    assert page.count("grown-up now") == 6
    assert "at most 60 words" in page


def test_severities_are_told_apart_in_the_rules() -> None:
    policy = load_policy()
    rule = policy.hazards[Hazard.DANGEROUS_ACTS]
    graded = {Severity.MILD: Action.CARE, Severity.SEVERE: Action.REFUSE}
    changed = rule.model_copy(update={"actions": {**rule.actions, AgeBand.UPPER: graded}})
    hazards = {**policy.hazards, Hazard.DANGEROUS_ACTS: changed}
    page = views.policy_view(policy.model_copy(update={"hazards": hazards}))
    assert "mild: answer with care<br>severe: kind no" in page


def test_help_lines_promise_no_number_for_a_country_that_has_none() -> None:
    page = views.helplines_view(load_helplines(), country="FR")
    assert "none for the policy's country, FR, so the child reads <b>no number</b>" in page
    assert "reads the number" not in page


@pytest.mark.parametrize("country", [None, "GB"])
def test_help_lines_say_that_nobody_has_checked_them(country: str | None) -> None:
    lines = load_helplines()
    page = views.helplines_view(lines, country=country)
    unchecked = sum(line.verified_by == "nobody yet" for line in lines.helplines)
    assert page.count("verified by nobody yet") == unchecked
    assert ("no number" in page) is (country is None)
    checked = lines.helplines[0].model_copy(update={"verified_by": "A. Parent"})
    other = lines.model_copy(update={"helplines": (checked,)})
    assert "verified by A. Parent" in views.helplines_view(other, country=country)


def test_the_words_in_a_crisis_can_be_read_beforehand() -> None:
    answers = load_answers("en")
    page = views.crisis_view(answers, AgeBand.EARLY)
    assert page.count("<blockquote>") == sum(
        len(answers.answers[key][AgeBand.EARLY]) for key in ("K01", "K02")
    )


def test_an_absent_log_is_an_empty_one(tmp_path: Path) -> None:
    assert happenings(read_events(tmp_path / "absent")) == []
    assert "Nothing yet" in views.happenings_view([], zone=UTC)
