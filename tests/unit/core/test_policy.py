"""The policy says what SAFETY's table says, and every mistake in a file is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kidrails_guard.content import content_path
from kidrails_guard.errors import PolicyError
from kidrails_guard.policy import DEFAULT_POLICY, load_policy, parse_policy
from kidrails_guard.types import Action, AgeBand, Hazard, Severity, Stage


@pytest.fixture
def raw() -> dict:
    return yaml.safe_load(content_path(DEFAULT_POLICY).read_text(encoding="utf-8"))


# The table of docs/safety.md for actions that do not depend on a case.
TABLE = {
    "K00": "allow allow allow",
    "K01": "crisis crisis crisis",
    "K01b": "redirect care care",
    "K02": "crisis crisis crisis",
    "K03": "refuse refuse refuse",
    "K03b": "care care care",
    "K04": "refuse refuse refuse",
    "K04b": "allow allow allow",
    "K05": "redirect redirect care",
    "K06": "redirect care care",
    "K11": "refuse refuse refuse",
    "K12": "care care care",
    "K13": "care care care",
    "K14": "care care care",
    "K15": "redirect redirect care",
    "K16": "refuse refuse refuse",
}


@pytest.mark.parametrize(("hazard", "row"), TABLE.items())
def test_default_policy_follows_the_table(hazard: str, row: str) -> None:
    policy = load_policy()
    got = [
        policy.action(Hazard(hazard), Severity.MODERATE, band=band, stage=Stage.INPUT).label
        for band in AgeBand
    ]
    assert got == row.split()


@pytest.mark.parametrize(
    ("hazard", "case", "row"),
    [
        ("K06", "howto", "redirect refuse refuse"),
        ("K07", "asks", "care care care"),
        ("K07", "produces", "refuse refuse refuse"),
        ("K08", "plans", "refuse refuse refuse"),
        ("K08", "suffers", "redirect redirect redirect"),
        ("K09", "wants", "refuse refuse refuse"),
        ("K09", "asks", "care care care"),
        ("K10", "gives", "redact redact redact"),
        ("K10", "meets", "redirect redirect care"),
    ],
)
def test_cases_decide_where_it_matters_what_the_child_does(
    hazard: str, case: str, row: str
) -> None:
    policy = load_policy()
    got = [
        policy.action(
            Hazard(hazard), Severity.MODERATE, band=band, stage=Stage.INPUT, case=case
        ).label
        for band in AgeBand
    ]
    assert got == row.split()


def test_severity_tables_take_the_next_graver_entry(raw: dict) -> None:
    raw["hazards"]["K05"]["actions"]["10-12"] = {"mild": "care", "severe": "refuse"}
    policy = parse_policy(raw, source="p.yaml")
    got = {
        severity: policy.action(
            Hazard.DANGEROUS_ACTS, severity, band=AgeBand.UPPER, stage=Stage.INPUT
        )
        for severity in (Severity.MILD, Severity.MODERATE, Severity.SEVERE)
    }
    assert got == {
        Severity.MILD: Action.CARE,
        Severity.MODERATE: Action.REFUSE,
        Severity.SEVERE: Action.REFUSE,
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.update(on_blok="answer"), ["on_blok", "did you mean 'on_block'"]),
        (lambda p: p["hazards"]["K05"].update(guidence="x"), ["hazards.K05.guidence", "guidance"]),
        (lambda p: p["hazards"].pop("K07"), ["hazards.K07", "missing"]),
        (lambda p: p["hazards"]["K01"]["actions"].pop("7-9"), ["hazards.K01.actions", "7-9"]),
        (
            lambda p: p["hazards"]["K04"]["actions"].update({"5-6": "deny"}),
            ["hazards.K04.actions.5-6", "deny", "refuse"],
        ),
        (lambda p: p.update(checks=[]), ["checks", "at least 1"]),
        (lambda p: p.update(on_check_failure="allow"), ["on_check_failure", "redirect"]),
        (lambda p: p["conduct"].pop("secrecy"), ["conduct", "secrecy"]),
        (lambda p: p.update(default_band="3-4"), ["default_band", "5-6"]),
        (lambda p: p["hazards"]["K04"].update(cases={"plans": "allow"}), ["K04.cases.plans"]),
        (lambda p: p.update(country="gb"), ["country", "[A-Z]{2}", "gb"]),
        (lambda p: p.update(break_after_minutes=600), ["break_after_minutes", "180"]),
    ],
)
def test_a_wrong_policy_names_file_key_and_what_is_accepted(raw, change, said) -> None:
    change(raw)
    with pytest.raises(PolicyError) as caught:
        parse_policy(raw, source="my.yaml")
    for part in ["my.yaml", *said]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nname: {{ NAME }}\n", r"odd\.yaml:2: .*a key is a dict.*needs quotes"),
        ("version: 1\n? [a, b]\n: c\n", r"odd\.yaml:2: .*a key is a list"),
        ("[" * 5_000 + "]" * 5_000, r"odd\.yaml: not valid YAML: brackets nested too deep"),
    ],
    ids=["template", "list", "deep"],
)
def test_yaml_that_no_policy_holds_is_an_error_with_its_file(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PolicyError, match=said):
        load_policy(file)


def test_a_repeated_key_is_an_error_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("name: a\nversion: 1\nname: b\n", encoding="utf-8")
    with pytest.raises(PolicyError, match=r"twice\.yaml:3.*'name' stands twice"):
        load_policy(file)


def test_absent_and_binary_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no such file"):
        load_policy(tmp_path / "none.yaml")
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="UTF-8"):
        load_policy(binary)


def test_digest_ignores_layout_but_not_content(raw: dict) -> None:
    first = parse_policy(raw, source="a").digest()
    shuffled = dict(reversed(list(raw.items())))
    assert parse_policy(shuffled, source="b").digest() == first
    raw["hazards"]["K05"]["actions"]["10-12"] = "refuse"
    assert parse_policy(raw, source="c").digest() != first
