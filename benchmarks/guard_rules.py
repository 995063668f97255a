"""What the rules alone do: found and falsely found by hazard, in every disguise, personal data.

Usage: python benchmarks/guard_rules.py [--rows N] [--shared DIR]

Development rows (`data/messages`, `data/golden`) and public sets: the rules were written with these
at hand, so the figures say what the rules hold, not how they generalise.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "kit"))

from disguising import disguised, fuzzed  # noqa: E402

from kidrails_guard.checks import conduct, conversation, lexicon, personal_data  # noqa: E402
from kidrails_guard.files import dump_json  # noqa: E402
from kidrails_guard.normalize import normalize  # noqa: E402
from kidrails_guard.policy import load_policy  # noqa: E402
from kidrails_guard.types import (  # noqa: E402
    CASES,
    NO_TURNS,
    Action,
    AgeBand,
    Finding,
    Hazard,
    Severity,
    Stage,
)

RESULT = ROOT / "benchmarks" / "results" / "guard_rules.json"
POLICY = load_policy()
RULES = lexicon.build(POLICY)
SEED = 7


def action(findings: list[Finding], band: AgeBand = AgeBand.MIDDLE) -> Action:
    """Return what the policy makes of the rules' findings."""
    actions = (
        POLICY.action(f.hazard, f.severity, band=band, stage=Stage.INPUT, case=f.case)
        for f in findings
    )
    return max(actions, default=Action.ALLOW)


def messages() -> Iterator[dict[str, Any]]:
    """Yield the children's messages with their labels and the action that these call for."""
    for path in sorted((ROOT / "data" / "messages").glob("*.tsv")):
        with path.open(encoding="utf-8") as lines:
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                if row["stage"] == "input" and not row["context"]:
                    yield row


def wanted(row: dict[str, Any]) -> Action:
    """Return the action that a row's labels call for at ages 7 to 9."""
    severity = Severity.parse(row["severity"])
    return max(
        POLICY.action(
            Hazard(name),
            severity,
            band=AgeBand.MIDDLE,
            stage=Stage.INPUT,
            case=case if (case := row.get("case") or "") in CASES.get(Hazard(name), ()) else "",
        )
        for name in row["hazard"].split("+")
    )


def by_hazard(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return for each hazard how many rows the rules find, and where they go too far."""
    rows_of, found, above = Counter(), Counter(), 0
    for row in tqdm(rows, desc="rules", disable=None):
        findings = RULES.find(row["text"], Stage.INPUT)
        for name in row["hazard"].split("+"):
            rows_of[name] += 1
            found[name] += any(str(f.hazard) == name for f in findings)
        given, due = action(findings), wanted(row)
        above += given > due and given >= Action.REDIRECT > due
    return {
        "rows": len(rows),
        "blocked_though_care_or_less_was_due": above,
        "found": {name: [found[name], rows_of[name]] for name in sorted(rows_of)},
    }


def by_disguise(texts: list[str]) -> dict[str, dict[str, float]]:
    """Return for each disguise how often text and verdict stay the same."""
    count, same_text, same_verdict = Counter(), Counter(), Counter()
    for text in tqdm(texts, desc="disguises", disable=None):
        plain, verdict = normalize(text).text, action(RULES.find(text, Stage.INPUT))
        for name, other in [*disguised(text, SEED), *fuzzed(text)]:
            count[name] += 1
            same_text[name] += normalize(other).text == plain
            same_verdict[name] += action(RULES.find(other, Stage.INPUT)) is verdict
    return {
        name: {
            "n": n,
            "text": round(same_text[name] / n, 4),
            "verdict": round(same_verdict[name] / n, 4),
        }
        for name, n in sorted(count.items())
    }


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / "datasets" / f"{name}.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def public(folder: Path) -> dict[str, Any]:
    """Return false alarms on harmless public sets, and personal data found on presidio's."""
    result: dict[str, Any] = {}
    for name in ("fairytaleqa_half", "childsafe_half", "presidio_pii"):
        rows = read(folder, name)
        if rows:
            blocked = sum(
                action(RULES.find(row["text"], Stage.INPUT)) >= Action.REDIRECT for row in rows
            )
            private = sum(bool(personal_data.find_spans(row["text"])) for row in rows)
            result[name] = {"rows": len(rows), "blocked": blocked, "personal_data": private}
    spans: dict[str, list[int]] = {}
    for row in read(folder, "presidio_pii"):
        seen = personal_data.find_spans(row["text"])
        for start, end, kind in row["spans"]:
            counts = spans.setdefault(kind, [0, 0])
            counts[0] += any(s.start < end and start < s.end for s in seen)
            counts[1] += 1
    if spans:
        result["presidio_spans"] = dict(sorted(spans.items()))
    return result


def own_personal_data(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many rows that give something away are found, and how many others."""
    gives = [r for r in rows if "K10" in r["hazard"] and r.get("case") == "gives"]
    others = [r for r in rows if "K10" not in r["hazard"]]
    return {
        "gives": len(gives),
        "found": sum(bool(personal_data.find_spans(r["text"])) for r in gives),
        "others": len(others),
        "falsely_found": sum(bool(personal_data.find_spans(r["text"])) for r in others),
    }


def replies() -> dict[str, int]:
    """Return how many golden replies conduct's rules would withhold, and how many bad ones."""
    check = conduct.build(POLICY)
    counts = Counter()
    for path in sorted((ROOT / "data" / "golden").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for field in ("golden", "unsafe"):
                cases = {f.case for f in check.find(row[field])}
                held = any(POLICY.conduct[case] >= Action.REDIRECT for case in cases)
                counts[f"{field}_replies"] += 1
                counts[f"{field}_withheld"] += held
    return dict(counts)


def cost(texts: list[str]) -> dict[str, dict[str, float]]:
    """Return CPU microseconds a message of about 40 characters, each check warm."""
    chosen = [text for text in texts if 30 <= len(text) <= 50][:600]
    talk = conversation.build(POLICY)
    steps = {
        "normalise": lambda text: normalize.__wrapped__(text),
        "lexicon": lambda text: RULES.find(text, Stage.INPUT),
        "personal_data": personal_data.find_spans,
        "conversation, no turns": lambda text: talk.find(NO_TURNS, text, AgeBand.MIDDLE),
    }
    result = {}
    for name, run in steps.items():
        for text in chosen[:300]:
            run(text)
        spent = []
        for text in chosen[300:]:
            start = time.thread_time()
            run(text)
            spent.append((time.thread_time() - start) * 1e6)
        spent.sort()
        result[name] = {
            "p50_us": round(spent[len(spent) // 2], 1),
            "p95_us": round(spent[int(len(spent) * 0.95)], 1),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000, help="texts to disguise")
    parser.add_argument(
        "--shared",
        type=Path,
        default=Path(os.environ.get("KIDRAILS_SHARED", ROOT.parent / "shared")),
        help="folder with public sets",
    )
    args = parser.parse_args()
    rows = list(messages())
    texts = [row["text"] for row in rows if row["text"].isascii()]
    random.Random(SEED).shuffle(texts)
    record = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "by_hazard": by_hazard(rows),
        "by_disguise": by_disguise(texts[: args.rows]),
        "personal_data": own_personal_data(rows),
        "replies": replies(),
        "public": public(args.shared),
        "cpu": cost(texts),
    }
    dump_json(RESULT, record)
    show(record)


def show(record: dict[str, Any]) -> None:
    """Print the tables of ``docs/guard.md``."""
    found = record["by_hazard"]["found"]
    print(f"{record['by_hazard']['rows']} messages of data/messages, rules alone, ages 7-9")
    print("| hazard | found | rows |\n|---|---|---|")
    for name, (hit, n) in found.items():
        if name not in ("K00", "K04b"):
            print(f"| {name} | {hit} ({hit / n:.0%}) | {n} |")
    print(
        "blocked though care or less was due: "
        f"{record['by_hazard']['blocked_though_care_or_less_was_due']}\n"
    )
    print("| disguise | n | same text | same verdict |\n|---|---|---|---|")
    for name, row in record["by_disguise"].items():
        print(f"| {name} | {row['n']} | {row['text']:.1%} | {row['verdict']:.2%} |")
    print(f"\npersonal data, own rows: {record['personal_data']}")
    print(f"replies: {record['replies']}")
    for name, row in record["public"].items():
        print(f"{name}: {row}")
    print("\n| step, 40 characters | p50 µs | p95 µs |\n|---|---|---|")
    for name, row in record["cpu"].items():
        print(f"| {name} | {row['p50_us']} | {row['p95_us']} |")
    print(f"\n{RESULT.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
