"""A run's results on disk: everything that its report needs, so that it can be made again."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import DataError
from kidrails_guard.evals.cases import Case
from kidrails_guard.evals.intervals import Estimate
from kidrails_guard.evals.judging import Judged, JudgeVerdict
from kidrails_guard.evals.measures import Summary, summarise
from kidrails_guard.evals.runner import Result
from kidrails_guard.evals.scoring import Answer, Score
from kidrails_guard.files import sha256_text, write_atomic
from kidrails_guard.types import Action, AgeBand, Conversation, Hazard, Message, Severity

RESULTS: Final = "results.json.gz"
SUM: Final = "results"
"""Where the sum of a run's results stands among its versions, and so in every report of them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All results of a run.

    Attributes:
        results: target to its results.
        versions: what was measured and with what.
        targets: target to what it is: model, weights, guard.
        notes: what was left out and why, and what a reader must know.
        judged: target to aspect to figure; empty without judges.
        judge_note: who judged and how far they agree.
        verdicts: target to what its judges said, one row a reply, in the order of the note's names.
        limits: band to the highest grade of reading that its policy wants.
        altered: what was read back is not what the run wrote.
    """

    results: Mapping[str, Sequence[Result]]
    versions: Mapping[str, str]
    notes: tuple[str, ...]
    judged: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    judge_note: str = ""
    targets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    verdicts: Mapping[str, Sequence[Judged]] = field(default_factory=dict)
    altered: bool = False

    @property
    def summed(self) -> bool:
        """Whether the results hold their sum; those of earlier versions do not."""
        return SUM in self.versions

    @property
    def summaries(self) -> dict[str, Summary]:
        """The figures of every target."""
        return {name: summarise(rows, target=name) for name, rows in self.results.items()}


def save_outcome(outcome: Outcome, folder: Path) -> Path:
    """Write the results; the cases once, whatever the number of targets.

    Returns:
        The file: JSON behind gzip, the same bytes for the same results.
    """
    cases: dict[str, dict[str, Any]] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, results in outcome.results.items():
        for result in results:
            key = f"{result.case.task}|{result.case.id}"
            cases.setdefault(key, _case_row(result.case))
            rows.setdefault(name, []).append({"case": key} | _answer_row(result))
    value: dict[str, Any] = {
        "versions": dict(outcome.versions),
        "targets": {name: dict(facts) for name, facts in outcome.targets.items()},
        "notes": list(outcome.notes),
        "limits": dict(outcome.limits),
        "judge_note": outcome.judge_note,
        "judged": {t: {a: asdict(e) for a, e in v.items()} for t, v in outcome.judged.items()},
        "cases": cases,
        "results": rows,
    }
    if outcome.verdicts:
        value["verdicts"] = {
            name: [asdict(row) for row in judged] for name, judged in outcome.verdicts.items()
        }
    value["versions"][SUM] = f"sha256 {_sum(value)}"
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    path = folder / RESULTS
    write_atomic(path, gzip.compress(text.encode("utf-8"), 9, mtime=0))
    return path


def _sum(value: Mapping[str, Any]) -> str:
    """Return a SHA-256 that names exactly these results, whatever sum stands among them."""
    versions = {key: text for key, text in value["versions"].items() if key != SUM}
    # Sorted and in ASCII, so that it is the same after a way through JSON.
    whole = {**value, "versions": versions}
    return sha256_text(json.dumps(whole, sort_keys=True, ensure_ascii=True, allow_nan=False))


def _case_row(case: Case) -> dict[str, Any]:
    return {
        "id": case.id, "task": case.task, "band": str(case.band), "hazard": str(case.hazard),
        "expected": case.expected.label, "message": case.message,
        "severity": case.severity.label, "case": case.case,
        "conversation": [[m.role, m.content] for m in case.conversation.messages],
        "group": case.group, "variant": case.variant, "source": case.source,
        "labelled": case.labelled,
    }  # fmt: skip


def _answer_row(result: Result) -> dict[str, Any]:
    answer = asdict(result.answer)
    for key in ("seconds", "first_token_seconds"):
        if answer[key] is not None:
            answer[key] = round(answer[key], 4)
    answer["action"] = None if result.answer.action is None else result.answer.action.label
    score = None
    if result.score is not None:
        score = asdict(result.score) | {"action": result.score.action.label}
        for key in ("words_a_sentence", "grade"):
            if score[key] is not None:
                score[key] = round(score[key], 4)
    return {"answer": answer, "score": score}


def load_outcome(folder: Path) -> Outcome:
    """Read a run's results back.

    Args:
        folder: of the run, or its `RESULTS` file.

    Raises:
        DataError: the folder holds none, or the file is not one of ours.
    """
    path = folder if folder.is_file() else folder / RESULTS
    try:
        value = json.loads(gzip.decompress(path.read_bytes()))
        said = value["versions"].get(SUM)
        altered = said is not None and said != f"sha256 {_sum(value)}"
        cases = {key: _load_case(row) for key, row in value["cases"].items()}
        return Outcome(
            {
                name: [_load_result(cases[row["case"]], row) for row in rows]
                for name, rows in value["results"].items()
            },
            value["versions"],
            tuple(value["notes"]),
            {t: {a: Estimate(**e) for a, e in v.items()} for t, v in value["judged"].items()},
            value["judge_note"],
            value["targets"],
            value["limits"],
            {t: [_load_judged(row) for row in v] for t, v in value.get("verdicts", {}).items()},
            altered,
        )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run: kidrails eval run --out {folder}") from None
    except (
        OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError,
    ) as error:  # fmt: skip
        raise DataError(f"{path}: not the results of a run ({type(error).__name__})") from None


def _load_case(row: dict[str, Any]) -> Case:
    turns = tuple(Message(role, content) for role, content in row["conversation"])
    return Case(
        row["id"], row["task"], AgeBand(row["band"]), Hazard(row["hazard"]),
        Action.parse(row["expected"]), row["message"], Conversation(turns),
        Severity.parse(row["severity"]), row["case"], row["group"], row["variant"],
        source=row["source"], labelled=row["labelled"],
    )  # fmt: skip


def _load_result(case: Case, row: dict[str, Any]) -> Result:
    answer, score = row["answer"], row["score"]
    said = answer.pop("action")
    got = Answer(action=None if said is None else Action.parse(said), **answer)
    if score is None:
        return Result(case, got, None)
    score |= {"action": Action.parse(score["action"])}
    if score["defects"] is not None:
        score["defects"] = tuple(score["defects"])
    return Result(case, got, Score(**score))


def _load_judged(row: dict[str, Any]) -> Judged:
    said = tuple(
        None if v is None else JudgeVerdict(v["scores"], tuple(v["tags"]), v["reason"])
        for v in row["verdicts"]
    )
    return Judged(row["case_id"], said, row["cluster"])


def find_target(results: Mapping[str, Sequence[Result]], wanted: str, where: Path) -> str:
    """Return the name of the target that is meant: by its whole name, or by its start or end.

    Raises:
        DataError: there is none, or more than one.
    """
    exact = [name for name in results if name == wanted]
    near = exact or [name for name in results if name.startswith(wanted) or name.endswith(wanted)]
    if len(near) == 1:
        return near[0]
    problem = f"no target {wanted!r}" if not near else f"{wanted!r} fits {len(near)} targets"
    raise DataError(f"{where}: {problem}; there are: {', '.join(results)}")
