"""The dataset card: its tables are counted from the files, and checked to be what the files say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Final

from kidrails_guard.content import content_path
from kidrails_guard.errors import DataError
from kidrails_guard.files import holds, write_atomic
from kidrails_guard.golden.read import (
    MESSAGES,
    Placed,
    golden_files,
    read_all,
    read_golden,
    read_messages,
)
from kidrails_guard.golden.replies import CANNED, GROWN_UP_DUE, grade, names_grown_up
from kidrails_guard.golden.rows import Row
from kidrails_guard.golden.schema import GoldenQA, LabelledText
from kidrails_guard.golden.sources import load_catalogue
from kidrails_guard.types import Action, AgeBand, Hazard

CARD: Final = "data/README.md"
_BLOCK: Final = re.compile(
    r"(<!-- begin (?P<name>[a-z-]+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL
)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; every column but the first is aligned to the right."""
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|",
    ]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def golden_table(rows: Sequence[GoldenQA]) -> str:
    """Return rows by hazard and band, with evaluation rows and conversations."""
    out: list[list[object]] = []
    for hazard in Hazard:
        mine = [row for row in rows if row.hazard is hazard]
        counts = Counter(row.band for row in mine)
        held = sum(row.split == "eval" for row in mine)
        talks = sum(bool(row.conversation) for row in mine)
        label = f"{hazard} {hazard.label}"
        out.append([label, *(counts[band] for band in AgeBand), len(mine), held, talks])
    totals = [sum(int(str(row[i])) for row in out) for i in range(1, 7)]
    out.append(["all", *totals])
    head = ["hazard", *map(str, AgeBand), "rows", "of them eval", "with earlier turns"]
    return table(head, out)


def reply_table(rows: Sequence[GoldenQA]) -> str:
    """Return what golden replies are like, a band a row."""
    out = []
    for band in AgeBand:
        replies = [row.golden for row in rows if row.band is band]
        due = [r.golden for r in rows if r.band is band and r.action in GROWN_UP_DUE]
        questions = mean("?" in reply for reply in replies)
        out.append(
            [
                str(band),
                len(replies),
                f"{mean(len(reply.split()) for reply in replies):.0f}",
                max(len(reply.split()) for reply in replies),
                f"{mean(map(grade, replies)):.1f}",
                f"{max(map(grade, replies)):.1f}",
                f"{questions:.0%}",
                f"{sum(CANNED.match(reply) is not None for reply in replies)}",
                f"{sum(map(names_grown_up, due))} of {len(due)}",
            ]
        )
    head = [
        "band",
        "replies",
        "words, mean",
        "most",
        "Flesch-Kincaid grade, mean",
        "highest",
        "ask something",
        "canned openings",
        "name a grown-up where one is due (redirect, crisis)",
    ]
    return table(head, out)


def action_table(rows: Sequence[GoldenQA]) -> str:
    """Return rows by expected action and band."""
    out: list[list[object]] = []
    for action in Action:
        counts = Counter(row.band for row in rows if row.action is action)
        out.append([action.label, *(counts[band] for band in AgeBand), sum(counts.values())])
    return table(["expected action", *map(str, AgeBand), "rows"], out)


def message_table(texts: Sequence[LabelledText]) -> str:
    """Return labelled texts by hazard and stage."""
    out: list[list[object]] = []
    for hazard in Hazard:
        mine = [text for text in texts if hazard in text.hazards]
        stages = Counter(text.stage for text in mine)
        context = sum(bool(text.conversation) for text in mine)
        out.append([f"{hazard} {hazard.label}", stages["input"], stages["output"], context])
    return table(["hazard", "input", "output", "with earlier turns"], out)


def source_table() -> str:
    """Return the public sets, with licence and use."""
    rows = [
        [
            f"[{source.title}]({source.homepage})" if source.homepage else source.title,
            source.licence,
            source.use,
            f"{source.rows:,}" if source.rows else "–",
        ]
        for source in load_catalogue().sources
    ]
    return table(["set", "licence", "may be used to", "rows"], rows)


def blocks() -> dict[str, Callable[[], str]]:
    """Return the card's tables by name.

    Raises:
        DataError: a data file is broken.
    """
    placed: list[Placed] = read_all(golden_files(), read_golden)
    rows = [item.row for item in placed]
    paths = sorted(content_path(MESSAGES).glob("*.tsv"))
    texts = [text for _, text in read_all(paths, read_messages)]
    return {
        "golden": lambda: golden_table(rows),
        "actions": lambda: action_table(rows),
        "replies": lambda: reply_table(rows),
        "messages": lambda: message_table(texts),
        "sources": source_table,
    }


def render(text: str, tables: dict[str, Callable[[], str]]) -> str:
    """Return a card with every table between its marks made anew.

    Raises:
        DataError: a table of the card is unknown, or one has no place in it.
    """
    places = [match["name"] for match in _BLOCK.finditer(text)]
    odd = sorted(set(places) ^ set(tables))
    if odd:
        raise DataError(f"{CARD}: table {odd[0]!r} has no place there, or is unknown")
    return _BLOCK.sub(lambda m: m[1] + tables[m["name"]]() + m[3], text)


def update_card(path: Path | None = None, *, check: bool = False) -> bool:
    """Write the card's tables anew and return whether anything changed (or would).

    Args:
        path: the card that ships when absent.
        check: change nothing.
    """
    file = path or content_path(CARD)
    # Read with any line ends, compared with the bytes: a card with other ones is not what we write.
    new = render(file.read_text(encoding="utf-8"), blocks())
    same = holds(file, new)
    if not same and not check:
        write_atomic(file, new)
    return not same


HUB_CARD: Final = """\
---
license: LICENSE
language:
  - en
pretty_name: KidRails training files
task_categories:
  - text-generation
  - text-classification
tags:
  - child-safety
  - guardrails
configs:
  - config_name: sft
    default: true
    data_files:
      - {split: train, path: sft.jsonl}
      - {split: validation, path: sft.dev.jsonl}
  - config_name: preference
    data_files:
      - {split: train, path: preference.jsonl}
      - {split: validation, path: preference.dev.jsonl}
  - config_name: guard
    data_files:
      - {split: train, path: guard.jsonl}
  - config_name: eval
    data_files:
      - {split: test, path: eval.jsonl}
---

# KidRails training files

Made by `kidrails data build`, version VERSION, seed SEED; `manifest.json` says from what, and what
every step dropped and why (`rejected.jsonl`).

TABLE
`guard` holds its own `split` column (train, dev). What was made from a hand-written row stands on
that row's side of every split. Licences: LICENCES.

```python
from datasets import load_dataset

sft = load_dataset("FOLDER", "sft")
```
"""


def licences(rows: Iterable[Row]) -> list[dict[str, str]]:
    """Return every licence that holds for some row, with the source of those rows."""
    found = sorted({(row.licence, row.source) for row in rows})
    return [{"licence": licence, "source": source} for licence, source in found]


def hub_card(manifest: dict[str, object], folder: str) -> str:
    """Return the card that lies beside the built files, so that the folder loads as a data set."""
    outputs = manifest["outputs"]
    licences = manifest["licences"]
    assert isinstance(outputs, dict)
    assert isinstance(licences, list)
    rows = [[f"`{name}`", f"{out['rows']:,}"] for name, out in outputs.items()]
    # The Hub's name for several licences, or for one that it does not know, is "other".
    only = {item["licence"] for item in licences} == {"MIT"}
    said = [f"{item['licence']} ({item['source']})" for item in licences]
    text = HUB_CARD.replace("TABLE", table(["file", "rows"], rows))
    return (
        text.replace("VERSION", str(manifest["version"]))
        .replace("SEED", str(manifest["seed"]))
        .replace("LICENCES", ", ".join(said))
        .replace("LICENSE", "mit" if only else "other", 1)
        .replace("FOLDER", folder)
    )
