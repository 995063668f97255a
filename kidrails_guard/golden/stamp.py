"""`kidrails data stamp`: write what follows from a golden row into its file: id, case, split.

A person adds a row by its content; the rest is computed here, so that files can be read by anyone
without this package.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kidrails_guard.files import holds, write_atomic
from kidrails_guard.golden.read import Placed, golden_files, read_all, read_golden
from kidrails_guard.golden.rows import Row, from_golden
from kidrails_guard.golden.schema import GoldenQA
from kidrails_guard.golden.splits import split_golden
from kidrails_guard.golden.steps import check_labels
from kidrails_guard.policy import Policy, load_policy


def stamped(placed: Sequence[Placed], policy: Policy) -> list[GoldenQA]:
    """Return the rows with everything that follows from them.

    The split looks at all rows together, so give it all files at once.
    """
    rows: list[Row] = []
    for item in placed:
        result = check_labels(policy)(from_golden(item.row))
        rows.append(result if isinstance(result, Row) else from_golden(item.row))
    stamped_rows = []
    for item, row in zip(placed, split_golden(rows), strict=True):
        # Which rows are dev is decided anew by every build, evenly over what is there.
        update = {"id": item.row.content_id, "case": row.case}
        update["split"] = "eval" if row.split == "eval" else "train"
        stamped_rows.append(item.row.model_copy(update=update))
    return stamped_rows


def stamp(files: Sequence[Path] | None = None, *, check: bool = False) -> tuple[Path, ...]:
    """Stamp the files of golden rows.

    Args:
        files: those that ship when absent.
        check: change nothing.

    Returns:
        The files that changed, or would.

    Raises:
        DataError: a row is broken; names file, line and key.
    """
    paths = tuple(files or golden_files())
    placed: list[Placed] = read_all(paths, partial(read_golden, stamped=False))
    rows = stamped(placed, load_policy())
    changed = []
    for path in paths:
        lines = [
            json.dumps(row.model_dump(mode="json"), ensure_ascii=False)
            for item, row in zip(placed, rows, strict=True)
            if item.file == path
        ]
        text = "".join(f"{line}\n" for line in lines)
        if not holds(path, text):
            changed.append(path)
            if not check:
                write_atomic(path, text)
    return tuple(changed)
