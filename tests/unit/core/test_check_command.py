"""`kidrails check` and `kidrails policy`: what is printed, and the exit status."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kidrails_guard.batch import check_rows, parse_context, parse_row, verdict_record
from kidrails_guard.cli import main
from kidrails_guard.errors import DataError
from kidrails_guard.explain import explain
from kidrails_guard.guard import Guard
from kidrails_guard.policy import load_policy
from kidrails_guard.types import Action, AgeBand, Finding, Hazard, Severity, Stage, Verdict


def rows(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize(
    ("text", "status", "word"),
    [
        ("why do wolves howl?", 0, "allow"),
        ("i dont want to be alive anymore", 1, "crisis"),
        ("my name is Lena Hofer and i go to Sonnenberg school", 1, "redact"),
    ],
)
def test_one_text(capsys, text: str, status: int, word: str) -> None:
    assert main(["check", text]) == status
    assert capsys.readouterr().out.startswith(word)


def test_json_holds_no_text(capsys) -> None:
    assert main(["check", "how do i k1ll my teacher", "--band", "10-12", "--json"]) == 1
    out = capsys.readouterr().out
    record = json.loads(out)
    assert record["action"] == "refuse"
    assert record["hazards"][0]["hazard"] == "K04"
    assert set(record) == {"id", "action", "hazards", "spans", "elapsed_ms"}
    assert "teacher" not in out


def test_an_explanation_is_for_a_grown_up(capsys) -> None:
    assert main(["check", "my dad hits me", "--explain"]) == 1
    out = capsys.readouterr().out
    assert "A grown-up hits" in out
    assert 'Seen in: "my dad hits me"' in out
    assert "The child reads: " in out
    main(["check", "call 07700 900123, thats my number", "--explain"])
    assert "[phone number]" in capsys.readouterr().out


def test_text_from_stdin(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("i want to die"))
    assert main(["check", "-"]) == 1
    assert capsys.readouterr().out.startswith("crisis")


def test_a_batch_is_in_order_and_loses_no_row(capsys, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [
        '{"id": "a", "text": "hello", "band": "5-6"}',
        '{"id": "b", "text": "my dad hits me", "context": [{"role": "user", "content": "hi"}]}',
        "this is not json",
        '{"id": "d"}',
        '{"id": "e", "text": 5}',
        '{"id": "f", "text": "x", "band": "13-15"}',
        '{"id": "g", "text": "x", "stage": "sideways"}',
        '{"id": "h", "text": "x", "context": 7}',
        '{"id": "i", "text": "x", "context": [{"role": "child", "content": "y"}]}',
        "[1, 2]",
        "",
        '{"id": "k", "text": "Tell me your address.", "stage": "output"}',
        '{"id": "l", "text": "\\ud800 \\u0000 \\u202e"}',
        "[" * 100_000,
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert main(["check", "--batch", str(file), "--json"]) == 1
    captured = capsys.readouterr()
    found = rows(captured.out)
    assert [row["id"] for row in found] == [
        "a", "b", None, "d", "e", "f", "g", "h", "i", None, "k", "l", None,
    ]  # fmt: skip
    assert [row["line"] for row in found if "error" in row] == [3, 4, 5, 6, 7, 8, 9, 10, 14]
    assert found[1]["action"] == "crisis"
    assert (found[10]["action"], found[10]["conduct"]) == ("redirect", ["asks_personal_data"])
    assert set(found[10]) == {"id", "action", "hazards", "spans", "elapsed_ms", "conduct"}
    assert "13-15" in found[5]["error"]
    assert "4 rows checked, 9 could not be read" in captured.err


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_an_id_that_json_does_not_have_is_not_given_back(capsys, monkeypatch, number: str) -> None:
    line = f'{{"id": {number}, "text": "hello"}}\n{{"id": 1.5, "text": "hello"}}\n'
    monkeypatch.setattr(sys, "stdin", io.StringIO(line))
    assert main(["check", "--batch", "-"]) == 1
    out = capsys.readouterr().out
    bad, good = rows(out)
    assert (bad["id"], bad["line"], good["id"]) == (None, 1, 1.5)
    assert "no number that JSON has" in bad["error"]


def test_a_reply_is_judged_part_by_part_as_the_proxy_does() -> None:
    class FirstSentence:
        """Minds a text that ends after its first sentence: a part that the whole hides."""

        name = "first"
        stages = frozenset(Stage)

        async def __call__(self, conversation, text, band, stage):  # type: ignore[no-untyped-def]
            alone = text.strip() == "Foxes bite everyone."
            return [Finding(self.name, Hazard.HATE, Severity.SEVERE)] if alone else []

    guard = Guard(checks=[FirstSentence()])
    lines = [
        json.dumps({"id": stage, "stage": stage, "text": "Foxes bite everyone. They are shy."})
        for stage in ("input", "output")
    ]

    async def found() -> list[dict]:
        return [r async for r in check_rows(guard, lines, band=AgeBand.MIDDLE, stage=Stage.INPUT)]

    assert [r["action"] for r in asyncio.run(found())] == ["allow", "refuse"]


def test_a_batch_of_good_rows_ends_with_0_whatever_they_say(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"id":1,"text":"i want to die"}\n'))
    assert main(["check", "--batch", "-"]) == 0
    assert rows(capsys.readouterr().out)[0]["action"] == "crisis"


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "x", "--band", "13-15"],
        ["check", "x", "--policy", "no-such-file.yaml"],
        ["check", "--batch", "no-such-file.jsonl"],
        ["check", "--batch", "-", "--explain"],
    ],
)
def test_wrong_use_is_2_with_a_reason(capsys, arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("kidrails check: ")


@pytest.mark.parametrize("arguments", [["check"], ["check", "x", "--stage", "up"]])
def test_arguments_that_are_missing_or_unknown_are_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_context_takes_turns() -> None:
    before = parse_context(["a", "b"], Stage.INPUT).messages
    assert [m.role for m in before] == ["user", "assistant"]
    assert [m.role for m in parse_context(["a"], Stage.INPUT).messages] == ["user"]
    assert [m.role for m in parse_context(["b", "a"], Stage.OUTPUT).messages] == [
        "assistant",
        "user",
    ]
    assert [m.role for m in parse_context("a", Stage.OUTPUT).messages] == ["user"]
    named = parse_context(["U: hi", "A: hello"], Stage.INPUT).messages
    assert [(m.role, m.content) for m in named] == [("user", "hi"), ("assistant", "hello")]
    assert parse_context(None, Stage.INPUT).messages == ()


def test_errors_never_hold_the_text() -> None:
    line = '{"id": 1, "text": ["my secret words"]}'
    with pytest.raises(DataError) as caught:
        parse_row(line, band=AgeBand.EARLY, stage=Stage.INPUT)
    assert "secret" not in str(caught.value)


def test_a_hazard_is_named_once_with_its_gravest_finding() -> None:
    guard = Guard(load_policy())
    verdict = guard.check_input_sync("i want to die and kill myself", band=AgeBand.EARLY)
    record = verdict_record(1, verdict)
    hazards = [row["hazard"] for row in record["hazards"]]
    assert len(hazards) == len(set(hazards))
    lines = explain(verdict)
    assert lines[0].startswith("crisis")
    assert all(
        "die" not in line or "may want to die" in line or "wants to die" in line for line in lines
    )


def test_a_text_above_the_limit_is_not_passed(capsys) -> None:
    assert main(["check", "a " * 20_000, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == ["limits"]


def test_policy_verbs(capsys, tmp_path: Path) -> None:
    assert main(["policy", "validate"]) == 0
    assert "valid" in capsys.readouterr().out
    assert main(["policy", "show"]) == 0
    mine = tmp_path / "mine.yaml"
    mine.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["policy", "diff", str(mine)]) == 0
    assert "0 differences" in capsys.readouterr().out
    mine.write_text(mine.read_text("utf-8").replace("country: null", "country: XX"), "utf-8")
    assert main(["policy", "diff", str(mine), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == [{"key": "country", "old": None, "new": "XX"}]
    other = tmp_path / "other.yaml"
    other.write_text(mine.read_text("utf-8").replace("locale: en", "locale: xx"), "utf-8")
    assert main(["policy", "validate", str(mine), str(other)]) == 1
    assert f"{other}: locale: 'xx' has no answers" in capsys.readouterr().err
    assert main(["policy", "validate", str(mine), "--json"]) == 0
    assert "no helpline" in json.loads(capsys.readouterr().out)[0]["warning"]
    mine.write_text("name: broken\n", "utf-8")
    assert main(["policy", "validate", str(mine)]) == 1
    assert "system_prompt" in capsys.readouterr().err


def test_the_schema_is_written_and_checked(capsys, tmp_path: Path) -> None:
    out = tmp_path / "schema.json"
    assert main(["policy", "schema", "--out", str(out), "--check"]) == 1
    assert "stale" in capsys.readouterr().out
    assert main(["policy", "schema", "--out", str(out)]) == 0
    assert main(["policy", "schema", "--out", str(out), "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["state"] == "up to date"


def unmasked(stage: Stage) -> Verdict:
    """What the classifier alone sees of personal data: no place in the text."""
    seen = Finding("classifier", Hazard.PERSONAL_DATA, Severity.MILD, 0.8, case="gives")
    return Verdict(Action.REDACT, (seen,), stage=stage, hazard=seen.hazard, severity=seen.severity)


@pytest.mark.parametrize("stage", list(Stage))
def test_nothing_is_called_masked_that_is_not(stage: Stage) -> None:
    verdict = unmasked(stage)
    assert "none could be masked" in explain(verdict, "made up")[0]
    assert verdict_record(1, verdict)["masked"] is False
    found = Finding("personal_data", Hazard.PERSONAL_DATA, Severity.MILD, span=(0, 4), redact=True)
    both = replace(verdict, findings=(*verdict.findings, found))
    assert explain(both, "made up")[0] == "redact: passed on with personal details masked."
    assert verdict_record(1, both)["masked"] is True


def test_a_reply_that_the_classifier_alone_finds_asking_is_explained() -> None:
    asks = Finding(
        "classifier", Hazard.PERSONAL_DATA, Severity.MILD, 0.97, case="asks_personal_data"
    )
    lines = explain(Verdict(Action.REDIRECT, (asks,), stage=Stage.OUTPUT))
    assert lines[-1] == "- The reply asks for personal details (97% sure)."
