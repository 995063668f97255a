"""Which rows train, which are dev, and which are held out; what belongs together stays together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from kidrails_guard.golden.near import NearIndex, clusters
from kidrails_guard.golden.rows import Row
from kidrails_guard.golden.schema import Split
from kidrails_guard.golden.textform import fold

EVAL_DIGITS: Final = frozenset("0123")


def rule_split(message: str) -> Split:
    """Return where a golden row stands by itself: ``eval`` for a quarter, by its message's hash."""
    digest = hashlib.sha256(message.encode("utf-8", "surrogatepass")).hexdigest()
    return "eval" if digest[0] in EVAL_DIGITS else "train"


def _siblings(rows: Sequence[Row]) -> list[list[Row]]:
    """Return golden rows in groups: near-copies, and rows that share turns of a conversation."""
    by_id = {row.id: row for row in rows}
    groups = [list(map(str, group)) for group in clusters((r.id, r.said) for r in rows)]
    parent = {member: group[0] for group in groups for member in group}
    first_turn: dict[str, str] = {}
    for row in rows:
        for turn in row.conversation[:1]:
            opening = fold(turn.content)
            older = first_turn.setdefault(opening, parent[row.id])
            mine = parent[row.id]
            if older != mine:
                parent = {k: older if v == mine else v for k, v in parent.items()}
    merged: dict[str, list[Row]] = {}
    for row in rows:
        merged.setdefault(parent[row.id], []).append(by_id[row.id])
    return list(merged.values())


def _every_tenth(groups: Iterable[tuple[str, str]]) -> set[str]:
    """Return a tenth of the groups, spread evenly over their strata.

    Args:
        groups: stratum and group.
    """
    ordered = sorted(groups, key=lambda g: (g[0], hashlib.sha256(g[1].encode()).hexdigest()))
    return {group for _, group in ordered[4::10]}


def split_golden(rows: Sequence[Row]) -> list[Row]:
    """Return golden rows with group and split.

    A row is ``eval`` when the SHA-256 of its message starts with 0, 1, 2 or 3. Near-copies and rows
    of one conversation are a group, which stands where its first member does. A tenth of the other
    groups, evenly over hazards and bands, is ``dev``.
    """
    groups = _siblings(rows)
    held = {group[0].id for group in groups if rule_split(group[0].text) == "eval"}
    strata = [
        (f"{group[0].hazards[0]} {group[0].band}", group[0].id)
        for group in groups
        if group[0].id not in held
    ]
    dev = _every_tenth(strata)
    placed: dict[str, tuple[str, Split]] = {}
    for group in groups:
        name = group[0].id
        side: Split = "eval" if name in held else "dev" if name in dev else "train"
        placed |= {row.id: (name, side) for row in group}
    return [replace(row, group=placed[row.id][0], split=placed[row.id][1]) for row in rows]


def split_texts(rows: Sequence[Row], golden: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return labelled texts with group and split, and those too near an evaluation row.

    Args:
        rows: labelled texts; they are ``train`` or ``dev``, never ``eval``.
        golden: golden rows with group and split; a text that nearly copies one joins its group.

    Returns:
        The placed texts, and the texts that nearly copy an evaluation row.
    """
    index = NearIndex()
    sides: Mapping[str, Row] = {row.id: row for row in golden}
    for row in golden:
        index.add(row.id, row.text)
    joined: dict[str, Row] = {}
    for row in rows:
        near = [sides[str(key)] for key in index.find(row.text)]
        if near:
            joined[row.id] = min(near, key=lambda r: (r.split != "eval", r.id))
    leaking = [row for row in rows if row.id in joined and joined[row.id].split == "eval"]
    free = [row for row in rows if row.id not in joined]
    groups = clusters(((row.id, row.in_context) for row in free), threshold=0.7)
    names = {str(member): str(group[0]) for group in groups for member in group}
    by_id = {row.id: row for row in free}
    dev = _every_tenth(
        (f"{by_id[name].stage} {by_id[name].hazards[0]}", name)
        for name in sorted(set(names.values()))
    )
    out: list[Row] = []
    for row in rows:
        if row.id in names:
            name = names[row.id]
            out.append(replace(row, group=name, split="dev" if name in dev else "train"))
        elif joined[row.id].split != "eval":
            out.append(replace(row, group=joined[row.id].group, split=joined[row.id].split))
    return out, leaking
