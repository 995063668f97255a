"""Each row of the threat model names tests, and each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs/threat-model.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| \d+ \|", line)
]


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_the_rows_are_numbered_and_whole() -> None:
    assert [int(row[0].lstrip("| ")) for row in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) > 30
    assert all(len(row) == 4 and all(row) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].lstrip("| "))
def test_each_threat_has_tests_that_exist(row: list[str]) -> None:
    named = re.findall(r"`([^`]+)`", row[3])
    assert named
    for name in named:
        file, _, function = name.partition("::")
        path = ROOT / file
        assert path.is_file(), name
        found = functions(path)
        assert any(one.startswith("test_") for one in found), name
        assert not function or function in found, name
