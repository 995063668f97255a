"""Scan files: reads both published layouts, writes one of them as strict JSON, with its provenance.

Published are a flat layout, ``{module: {"snr": …, "type": …}}``, which axolotl reads, and a
"sorted" one, ``{type: {module: snr}}``, on which axolotl's and Spectrum's readers crash. Both hold
a bare ``Infinity``, which is not JSON. Here the flat layout is written, rows in the order of their
rank, so that a reader with a stable sort ranks ties as we do; an infinite score is written as the
largest double, `INFINITE`, with the key ``degenerate`` beside it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import ScanError
from kidrails_guard.files import sha256_text
from kidrails_guard.spectrum.checkpoint import ModelIndex, TensorInfo, module_type
from kidrails_guard.spectrum.ranking import ScanRow, rank
from kidrails_guard.spectrum.scoring import MatrixResult
from kidrails_guard.spectrum.shapes import KNOWN_MODELS
from kidrails_guard.spectrum.snr import Estimator

INFINITE: Final = 1.7976931348623157e308
SIDECAR_FORMAT: Final = "kidrails-scan/1"
_FILE: Final = re.compile(r"snr_results_(?P<slug>.+?)(?:_sorted)?\.json")


@dataclass(frozen=True)
class Scan:
    """A scan as it was read.

    Attributes:
        model: Hub id or folder name; only its slug where the file does not say more.
        estimator: which score the rows hold.
        rows: in the file's order.
        sha256: of the file's bytes.
        source: the file's name.
        index: the model's tensors, where the provenance holds them.
        unscored: matrices without a score, with the reason.
        provenance: the sidecar as it was read, empty where there is none.
    """

    model: str
    estimator: Estimator
    rows: tuple[ScanRow, ...]
    sha256: str
    source: str
    index: ModelIndex | None = None
    unscored: tuple[tuple[str, str], ...] = ()
    provenance: Mapping[str, Any] | None = None

    def check_against(self, index: ModelIndex) -> None:
        """Check that the scan is of this model.

        Raises:
            ScanError: a module is missing in the model, or the checkpoint differs.
        """
        # A head that shares the embedding's weights is a module in published scans, no tensor.
        absent = [
            row.module
            for row in self.rows
            if row.parameter not in index and row.module != "lm_head"
        ]
        if absent:
            raise ScanError(
                f"{self.source} is a scan of {self.model}: {len(absent)} of its {len(self.rows)} "
                f"modules are not in {index.model}, first {absent[0]!r}; scan this model"
            )
        layers = {row.type for row in self.rows if row.layer >= 0}
        scanned = {row.parameter for row in self.rows} | {name for name, _ in self.unscored}
        beyond = [
            tensor.name
            for tensor in index.tensors
            if tensor.type in layers and tensor.name.endswith(".weight")
            and tensor.name not in scanned
        ]  # fmt: skip
        if beyond:
            raise ScanError(
                f"{self.source} is a scan of {self.model}, a smaller model: {index.model} also has "
                f"{beyond[0]!r}; scan this model"
            )
        if self.index is not None:
            self._check_tensors(self.index, index)

    def _check_tensors(self, mine: ModelIndex, other: ModelIndex) -> None:
        for tensor in mine.tensors:
            if tensor.name in other and other[tensor.name].shape != tensor.shape:
                raise ScanError(
                    f"{self.source} is a scan of {self.model}, where {tensor.name!r} is "
                    f"{tensor.shape}; in {other.model} it is {other[tensor.name].shape}: scan this "
                    "model"
                )
        if mine.fingerprint and other.fingerprint and mine.fingerprint != other.fingerprint:
            raise ScanError(
                f"{self.source} was made from another checkpoint than {other.folder}: the shards' "
                "headers or sizes differ; scan this one"
            )


def model_slug(model: str) -> str:
    """Return the model's name as scan files carry it: ``/`` and ``_`` become ``-``.

    >>> model_slug("meta-llama/Meta-Llama-3.1-8B")
    'meta-llama-Meta-Llama-3.1-8B'
    """
    return model.replace("/", "-").replace("_", "-")


def scan_path(folder: Path, model: str) -> Path:
    """Return the file that axolotl's plugin looks for in its ``model_snr_results``."""
    return folder / f"snr_results_{model_slug(model)}.json"


def sidecar_path(scan: Path) -> Path:
    """Return where a scan's provenance lies."""
    return scan.with_name(f"{scan.stem}.provenance.json")


def read_scan(path: Path, *, estimator: Estimator | None = None) -> Scan:
    """Read a scan in either layout, with its provenance where there is one.

    Args:
        path: the file.
        estimator: which score to take; the file's own where None. A file that we wrote has both in
            its provenance.

    Raises:
        ScanError: the file cannot be read, holds no scan, or not this score.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        content = json.loads(text)
    except OSError as error:
        raise ScanError(f"cannot read the scan {path}: {error.strerror}") from None
    except ValueError as error:
        raise ScanError(f"{path} is not JSON: {error}") from None
    rows, unscored = _rows(content, path)
    scan = Scan(
        model=_model_name(path),
        estimator=Estimator.SPECTRUM,
        rows=tuple(rows),
        sha256=sha256_text(text),
        source=path.name,
        unscored=tuple(unscored),
    )
    sidecar = sidecar_path(path)
    if sidecar.is_file():
        return _with_provenance(scan, sidecar, estimator)
    if estimator not in (None, Estimator.SPECTRUM):
        raise ScanError(
            f"{path} has no {sidecar.name} beside it, so it holds one score only; for the "
            f"estimator {estimator} scan the model: kidrails spectrum scan MODEL --estimator "
            f"{estimator}"
        )
    return scan


def _rows(content: Any, path: Path) -> tuple[list[ScanRow], list[tuple[str, str]]]:
    if not isinstance(content, dict) or not content:
        raise ScanError(f"{path} holds no scan: expected an object with a module or type per key")
    values = list(content.values())
    flat: Iterable[tuple[str, str, Any, str]]
    if all(isinstance(value, dict) and "snr" in value for value in values):
        flat = (
            (module, str(one.get("type") or module_type(module)), one["snr"],
             str(one.get("degenerate", "")))
            for module, one in content.items()
        )  # fmt: skip
    elif all(
        isinstance(value, dict) and all(isinstance(one, int | float) for one in value.values())
        for value in values
    ):
        flat = ((m, t, snr, "") for t, group in content.items() for m, snr in group.items())
    else:
        raise ScanError(
            f'{path} is in neither scan layout: {{module: {{"snr", "type"}}}} or '
            "{type: {module: snr}}"
        )
    rows: list[ScanRow] = []
    unscored: list[tuple[str, str]] = []
    for module, kind, snr, degenerate in flat:
        if not isinstance(snr, int | float) or isinstance(snr, bool) or snr < 0:
            raise ScanError(f"{path}: the snr of {module!r} is {snr!r}; expected a number, 0 or up")
        if math.isnan(snr):
            unscored.append((f"{module}.weight", "its score in the file is NaN"))
            continue
        score = math.inf if snr >= INFINITE else float(snr)
        rows.append(ScanRow(module, kind, score, degenerate))
    return rows, unscored


def _model_name(path: Path) -> str:
    match = _FILE.fullmatch(path.name)
    slug = match["slug"] if match else path.stem
    return next((model for model in KNOWN_MODELS if model_slug(model) == slug), slug)


def _with_provenance(scan: Scan, sidecar: Path, estimator: Estimator | None) -> Scan:
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
        if content["format"] != SIDECAR_FORMAT:
            raise ValueError(f"format {content['format']!r} is not {SIDECAR_FORMAT!r}")
        if content["scan_sha256"] != scan.sha256:
            raise ScanError(
                f"{sidecar} belongs to another scan than {scan.source} (its SHA-256 differs); one "
                "of the two was changed: scan again"
            )
        model, own = str(content["model"]), Estimator(content["estimator"])
        index = ModelIndex(
            model,
            tuple(
                TensorInfo(name, dtype, tuple(shape))
                for name, (dtype, shape) in content["tensors"].items()
            ),
            fingerprint=str(content["fingerprint"]),
        )
        results = [MatrixResult.from_json(value) for value in content["matrices"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScanError(f"{sidecar} cannot be read ({type(error).__name__}: {error})") from None
    wanted = estimator or own
    return replace(
        scan,
        model=model,
        estimator=wanted,
        rows=tuple(rows_of(results, wanted)),
        index=index,
        unscored=tuple((one.name, one.reason) for one in results if one.reason),
        provenance=content,
    )


def rows_of(results: Iterable[MatrixResult], estimator: Estimator) -> list[ScanRow]:
    """Return the rows of a scan in the order of their rank, type by type."""
    rows = []
    for one in results:
        if one.reason:
            continue
        found, module = one.scores[estimator], one.name.removesuffix(".weight")
        # Spectrum's newer code takes 1 for an empty noise sum: it orders infinite scores.
        tie_break = found.signal / one.largest if one.largest > 0 else 0.0
        rows.append(ScanRow(module, module_type(module), found.snr, found.degenerate, tie_break))
    return [ranked.row for group in rank(rows).values() for ranked in group]


def scan_content(results: Iterable[MatrixResult], estimator: Estimator) -> dict[str, Any]:
    """Return a scan in the flat layout, without any value that is not JSON."""
    content: dict[str, Any] = {}
    for row in rows_of(results, estimator):
        finite = row.snr if math.isfinite(row.snr) else INFINITE
        content[row.module] = {"snr": finite, "type": row.type}
        if row.degenerate:
            content[row.module]["degenerate"] = row.degenerate
    return content


def scan_text(content: Mapping[str, Any]) -> str:
    """Return a scan file's text: strict JSON, one value a line."""
    return json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False) + "\n"
