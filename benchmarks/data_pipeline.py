"""Rows a second of the data pipeline's steps, and whether their cost grows with the rows.

    .venv/bin/python benchmarks/data_pipeline.py [--sizes 1000,10000,100000] [--repeat 1]

The rows are made from the shipped messages: two halves of two messages each, so that lengths and
words are real, plus a tenth exact copies and a tenth near-copies. They go through filter
(normalise, size, form), exact copies, near-copies and decontamination against 20,000 evaluation
texts. Processor seconds are counted, which other work on the machine changes least; `growth` is the
exponent between two sizes: 1.0 is linear.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kidrails_guard.content import content_path
from kidrails_guard.files import dump_json
from kidrails_guard.golden.read import MESSAGES, read_all, read_messages
from kidrails_guard.golden.replies import form_problems
from kidrails_guard.golden.rows import Drop, Row, Step, from_labelled
from kidrails_guard.golden.steps import (
    Overlap,
    check_size,
    decontaminate,
    drop_copies,
    drop_near_copies,
    normalise_row,
)

RESULT = Path(__file__).resolve().parent / "results" / "data_pipeline.json"
EVALUATION_TEXTS = 20_000


def shipped_texts() -> list[str]:
    paths = sorted(content_path(MESSAGES).glob("*.tsv"))
    rows = read_all(paths, read_messages)
    return [row.text for _, row in rows if row.stage == "input" and len(row.text.split()) > 3]


def mixed(texts: list[str], rng: random.Random) -> str:
    """Return the first half of one message and the second half of another."""
    one, two = rng.choice(texts).split(), rng.choice(texts).split()
    return " ".join([*one[: len(one) // 2 + 1], *two[len(two) // 2 :]])


def make_rows(count: int, texts: list[str], template: Row) -> list[Row]:
    rng = random.Random(count)
    said: list[str] = []
    for number in range(count):
        kind = rng.random()
        if said and kind < 0.1:
            said.append(rng.choice(said))
        elif said and kind < 0.2:
            said.append(f"{rng.choice(said)} pls")
        else:
            said.append(f"{mixed(texts, rng)} {number}")
    return [replace(template, id=f"b{n}", seed=f"b{n}", text=text) for n, text in enumerate(said)]


def form(row: Row) -> Row | Drop:
    for problem in form_problems(row.text):
        return Drop(problem)
    return row


def steps(overlap: Overlap) -> list[tuple[str, list[Step]]]:
    return [
        ("filter", [normalise_row, check_size, form]),
        ("exact copies", [drop_copies()]),
        ("near-copies", [drop_near_copies()]),
        ("decontaminate", [decontaminate(overlap)]),
    ]


def run(rows: list[Row], parts: list[tuple[str, list[Step]]]) -> list[dict[str, Any]]:
    """Send the rows through every part; return processor seconds and counts of each."""
    found = []
    for name, functions in parts:
        start, before = time.process_time(), len(rows)
        for function in functions:
            results = [function(row) for row in rows]
            rows = [result for result in results if isinstance(result, Row)]
        seconds = time.process_time() - start
        found.append({"step": name, "rows_in": before, "rows_out": len(rows), "cpu_s": seconds})
    return found


def measured(size: int, repeat: int, build: Callable[[int], list[Row]]) -> dict[str, Any]:
    """Return the best of several runs at one size."""
    overlap = Overlap()
    for row in build(EVALUATION_TEXTS + 1)[:EVALUATION_TEXTS]:
        overlap.add("evaluation", f"unseen {row.text}")
    rows = build(size)
    best = min(
        (run(rows, steps(overlap)) for _ in range(repeat)),
        key=lambda parts: sum(part["cpu_s"] for part in parts),
    )
    total = sum(part["cpu_s"] for part in best)
    return {"rows": size, "cpu_s": total, "rows_per_s": size / total, "steps": best}


def processor() -> str:
    """Return the processor's kind in general words, without the machine's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    paths = sorted(content_path(MESSAGES).glob("*.tsv"))
    first = from_labelled(read_all(paths[:1], read_messages)[0][1], name="b")
    texts = shipped_texts()
    results = [
        measured(int(size), arguments.repeat, lambda count: make_rows(count, texts, first))
        for size in arguments.sizes.split(",")
    ]
    names = [part["step"] for part in results[0]["steps"]]
    head = ["rows", *(f"{name}, CPU s" for name in names), "rows a second", "growth"]
    print(f"| {' | '.join(head)} |")
    print("|---:" * len(head) + "|")
    for number, result in enumerate(results):
        growth = "–"
        if number:
            older = results[number - 1]
            ratio = math.log(result["rows"] / older["rows"])
            result["growth"] = math.log(result["cpu_s"] / older["cpu_s"]) / ratio
            growth = f"{result['growth']:.2f}"
        cells = [f"{part['cpu_s']:.2f}" for part in result["steps"]]
        print(
            f"| {result['rows']:,} | {' | '.join(cells)} | {result['rows_per_s']:,.0f} | {growth} |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nmost memory: {peak:.0f} MiB, one process, one thread; {processor()}")
    dump_json(
        RESULT,
        {
            "processor": processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "evaluation_texts": EVALUATION_TEXTS,
            "peak_mib": round(peak),
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
