"""Every shipped policy holds, says what docs/safety.md says, and its schema is up to date."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from kidrails_guard.commands.policy import compare, policy_record
from kidrails_guard.errors import PolicyError
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy, parse_policy, policy_schema
from kidrails_guard.types import CASES, Action, AgeBand, Hazard, Severity, Stage

ROOT = Path(__file__).resolve().parents[2]
POLICIES = sorted(
    path for path in (ROOT / "serve" / "policies").glob("*.yaml") if path.name != "helplines.yaml"
)


@pytest.mark.parametrize("path", POLICIES, ids=[path.name for path in POLICIES])
def test_it_loads_with_everything_that_it_names(path: Path) -> None:
    assert Guard(load_policy(path)).policy.bands


def test_the_schema_is_up_to_date() -> None:
    """When this fails: kidrails policy schema."""
    shipped = json.loads((ROOT / "serve" / "policies" / "schema.json").read_text(encoding="utf-8"))
    assert shipped == policy_schema()


def test_the_schema_accepts_what_ships_and_refuses_what_does_not_hold() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = policy_schema()
    value = yaml.safe_load((ROOT / "serve" / "policies" / "default.yaml").read_text("utf-8"))
    jsonschema.validate(value, schema)
    for change in ({"colour": "red"}, {"on_block": "shout"}, {"break_after_minutes": 999}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value | change, schema)


def test_showing_a_policy_and_reading_it_again_changes_nothing() -> None:
    policy = load_policy()
    again = parse_policy(yaml.safe_load(yaml.safe_dump(policy_record(policy))), source="shown")
    assert again == policy
    assert compare(policy, again) == []


def test_a_difference_is_named_by_its_key() -> None:
    policy = load_policy()
    record = policy_record(policy)
    record["hazards"]["K09"]["cases"]["wants"] = "care"
    record["country"] = "GB"
    other = parse_policy(record, source="other")
    assert compare(policy, other) == [
        {"key": "country", "old": None, "new": "GB"},
        {"key": "hazards.K09.cases.wants", "old": "refuse", "new": "care"},
    ]


def test_a_child_in_danger_never_meets_a_refusal() -> None:
    policy = load_policy()
    for hazard in (Hazard.SELF_HARM, Hazard.ABUSE_DISCLOSURE):
        for band in AgeBand:
            for severity in Severity:
                action = policy.action(hazard, severity, band=band, stage=Stage.INPUT)
                assert action is Action.CRISIS
    suffers = {
        policy.action(Hazard.BULLYING, s, band=b, stage=Stage.INPUT, case="suffers")
        for s in Severity
        for b in AgeBand
    }
    assert suffers == {Action.REDIRECT}


def test_bodies_and_stories_are_never_blocked() -> None:
    policy = load_policy()
    for hazard in (Hazard.BENIGN, Hazard.BODY_GROWING_UP, Hazard.VIOLENCE_IN_CONTEXT):
        for band in AgeBand:
            assert policy.action(hazard, Severity.MILD, band=band, stage=Stage.INPUT) <= Action.CARE


def test_what_is_care_has_guidance() -> None:
    policy = load_policy()
    for hazard, rule in policy.hazards.items():
        actions = {
            policy.action(hazard, severity, band=band, stage=Stage.INPUT, case=case)
            for band in policy.bands
            for severity in Severity
            for case in ("", *CASES.get(hazard, ()))
        }
        assert bool(rule.guidance) == (Action.CARE in actions), hazard


def test_the_document_and_the_policy_say_the_same() -> None:
    """docs/safety.md's table of hazards is the default policy's."""
    policy = load_policy()
    page = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (K\d\d?b?) \| (\w+) \|([^|]+)\|([^|]+)\|([^|]+)\|", page, re.MULTILINE)
    assert {Hazard(row[0]) for row in rows} == set(Hazard)
    for code, name, *cells in rows:
        hazard = Hazard(code)
        assert name == hazard.label
        for band, cell in zip(AgeBand, cells, strict=True):
            said = cell.strip().split(" (")[0]
            action = policy.action(hazard, Severity.MODERATE, band=band, stage=Stage.INPUT)
            assert said == action.label, (code, band)
            for case in CASES.get(hazard, ()):
                one = policy.action(
                    hazard, Severity.MODERATE, band=band, stage=Stage.INPUT, case=case
                )
                assert one is action or f"{case}: {one.label}" in cell, (code, band, case)


def test_the_document_names_every_kind_of_conduct() -> None:
    policy = load_policy()
    page = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
    for case, action in policy.conduct.items():
        follows = "counted" if action is Action.ALLOW else "withheld"
        assert re.search(rf"^\| `{case}` \|.*\| {follows} \|$", page, re.MULTILINE), case


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nname: y\n", "stands twice"),
        ("[1, 2]", "mapping"),
        ("name: x\n  bad: [", "not valid YAML"),
        ("nmae: x", "did you mean 'name'"),
    ],
)
def test_a_wrong_policy_says_where(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(PolicyError, match=r"mine\.yaml") as caught:
        load_policy(file)
    assert message in str(caught.value)
