"""What a scan has finished so far: one JSON line a matrix, so that a kill loses one at most."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from kidrails_guard.errors import ScanError
from kidrails_guard.files import write_atomic
from kidrails_guard.spectrum.report import SIDECAR_FORMAT, sidecar_path
from kidrails_guard.spectrum.scoring import MatrixResult


@dataclass
class Journal:
    """Finished matrices of one scan, and those of others with other options.

    The file is only ever appended to: a section begins with ``{"key": …}``, and a line of another
    key is kept for the day when that scan is started again.

    Attributes:
        path: the journal's file, beside the scan's.
        stream: open for appending, locked.
        results: by parameter name, of this checkpoint and these options only.
        others: the same of other checkpoints or options, by their key as JSON.
    """

    path: Path
    stream: IO[str]
    results: dict[str, MatrixResult] = field(default_factory=dict)
    others: dict[str, dict[str, MatrixResult]] = field(default_factory=dict)

    @classmethod
    def open(cls, scan: Path, key: Mapping[str, str]) -> Journal:
        """Open the journal of a scan file, and take what fits this scan.

        Args:
            scan: the file that the scan will write.
            key: checkpoint and options; results of another key are kept apart.

        Raises:
            ScanError: the folder is not writable, or another scan writes there.
        """
        path = scan.with_name(f".{scan.stem}.partial.jsonl")
        try:
            scan.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise ScanError(
                f"cannot write into {scan.parent}: {error.strerror}; give a writable --out"
            ) from None
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            raise ScanError(
                f"another scan is writing {scan}; wait for it, or give another --out"
            ) from None
        journal = cls(path, stream)
        try:
            journal._load(scan, key)
        except BaseException:
            journal.close()
            raise
        return journal

    def _load(self, scan: Path, key: Mapping[str, str]) -> None:
        self.stream.seek(0)
        text = self.stream.read()
        sections = _sections(text)
        # A kill or a full disk may have cut the last line short.
        lines = [""] if text and not text.endswith("\n") else []
        finished, found = _finished(scan, key)
        if finished == _name(key):
            # The last scan that was written, and on top what has been finished since.
            sections[finished] = found | sections.get(finished, {})
        elif found:
            # This scan will take that file's place, but not its hours of work.
            before = sections.setdefault(finished, {})
            new = {name: one for name, one in found.items() if name not in before}
            lines += _section(finished, new)
            before |= new
        self.results = sections.pop(_name(key), {})
        self.others = {name: results for name, results in sections.items() if results}
        self._write([*lines, json.dumps({"key": dict(key)})])

    def append(self, result: MatrixResult) -> None:
        """Keep one more finished matrix."""
        self.results[result.name] = result
        self._write([_line(result)])

    def _write(self, lines: Iterable[str]) -> None:
        try:
            self.stream.write("".join(f"{line}\n" for line in lines))
            self.stream.flush()
            os.fsync(self.stream.fileno())
        except OSError as error:
            raise ScanError(f"cannot write {self.path}: {error.strerror}") from None

    def remove(self) -> None:
        """Remove what the scan that was just written holds; the file, if nothing else is in it."""
        lines = [line for name, found in self.others.items() for line in _section(name, found)]
        # If it cannot be written, all stays as it is: then the file says more than it has to.
        with contextlib.suppress(OSError):
            if lines:
                write_atomic(self.path, "".join(f"{line}\n" for line in lines))
            else:
                self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, which lets go of the lock."""
        # What a full disk did not take was told when it was written.
        with contextlib.suppress(OSError):
            self.stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _name(key: Mapping[str, str]) -> str:
    return json.dumps(dict(key), sort_keys=True)


def _line(result: MatrixResult) -> str:
    return json.dumps(result.to_json(), allow_nan=False)


def _section(name: str, results: Mapping[str, MatrixResult]) -> list[str]:
    lines = [_line(one) for one in results.values()]
    return [json.dumps({"key": json.loads(name)}), *lines] if lines else []


def _sections(text: str) -> dict[str, dict[str, MatrixResult]]:
    """Return a journal's results by key, by parameter name; lines that are none are left out."""
    sections: dict[str, dict[str, MatrixResult]] = {}
    results: dict[str, MatrixResult] = {}
    for line in text.split("\n"):
        try:
            value = json.loads(line)
            if set(value) == {"key"}:
                results = sections.setdefault(_name(value["key"]), {})
                continue
            one = MatrixResult.from_json(value)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        results[one.name] = one
    return sections


def _finished(scan: Path, key: Mapping[str, str]) -> tuple[str, dict[str, MatrixResult]]:
    """Return the key of the scan that was written last, and its matrices.

    So that the same scan again, with the other estimator or more types, computes only what is new.
    """
    try:
        content = json.loads(sidecar_path(scan).read_text(encoding="utf-8"))
        if content["format"] != SIDECAR_FORMAT:
            return "", {}
        name = _name({part: str(content[part]) for part in key})
        results = [MatrixResult.from_json(value) for value in content["matrices"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", {}
    return name, {one.name: one for one in results if not one.reason}
