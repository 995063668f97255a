"""What a scan has finished so far: one JSON line a matrix, so that a kill loses one at most."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.report import SIDECAR_FORMAT, sidecar_path
from kidrails_guard.spectrum.scoring import MatrixResult


@dataclass
class Journal:
    """Finished matrices of one scan.

    Attributes:
        path: the journal's file, beside the scan's.
        stream: open for appending, locked.
        results: by parameter name, of this checkpoint and these options only.
    """

    path: Path
    stream: IO[str]
    results: dict[str, MatrixResult] = field(default_factory=dict)

    @classmethod
    def open(cls, scan: Path, key: Mapping[str, str]) -> Journal:
        """Open the journal of a scan file, and keep what fits this scan.

        Args:
            scan: the file that the scan will write.
            key: checkpoint and options; results of another key are dropped.

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
        journal._load(key)
        # The last scan that was written, and on top what has been finished since.
        journal.results = {**_finished(scan, key), **journal.results}
        return journal

    def _load(self, key: Mapping[str, str]) -> None:
        self.stream.seek(0)
        lines = self.stream.read().split("\n")
        if _parse(lines[0]) == {"key": dict(key)}:
            for line in lines[1:]:
                # A kill may have cut the last line short: then it does not parse.
                try:
                    one = MatrixResult.from_json(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    continue
                self.results[one.name] = one
        self.stream.seek(0)
        self.stream.truncate()
        self._write({"key": dict(key)})
        for one in self.results.values():
            self._write(one.to_json())

    def append(self, result: MatrixResult) -> None:
        """Keep one more finished matrix."""
        self.results[result.name] = result
        self._write(result.to_json())

    def _write(self, value: Mapping[str, Any]) -> None:
        try:
            self.stream.write(json.dumps(value, allow_nan=False) + "\n")
            self.stream.flush()
            os.fsync(self.stream.fileno())
        except OSError as error:
            raise ScanError(f"cannot write {self.path}: {error.strerror}") from None

    def remove(self) -> None:
        """Remove the file: the scan is written, and holds all of it."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stream.close()


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _finished(scan: Path, key: Mapping[str, str]) -> dict[str, MatrixResult]:
    """Return the matrices of a finished scan of the same checkpoint with the same options.

    So that the same scan again, with the other estimator or more types, computes only what is new.
    """
    try:
        content = json.loads(sidecar_path(scan).read_text(encoding="utf-8"))
        if content["format"] != SIDECAR_FORMAT or any(content[k] != key[k] for k in key):
            return {}
        results = [MatrixResult.from_json(value) for value in content["matrices"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {one.name: one for one in results if not one.reason}
