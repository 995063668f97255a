"""The shipped model as it is run: onnxruntime on one thread, no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kidrails_guard.classifier.calibrate import Calibration
from kidrails_guard.classifier.encode import Turn, Window, encode
from kidrails_guard.classifier.labels import RISK_AT, SLICES, WIDTH, combine, names
from kidrails_guard.errors import DataError, MissingDependency
from kidrails_guard.files import sha256_file
from kidrails_guard.types import Stage

SHIPPED: Final = Path(__file__).resolve().parent.parent / "models" / "hazard"
FILES: Final = ("model.onnx", "tokenizer.json")

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model says of one text.

    Attributes:
        hazard: calibrated probability of each of `labels.HAZARDS`, shape (hazards,).
        risk: calibrated probability that the guard has to answer itself.
        case: probability of each of `labels.CASE_NAMES`, given its hazard.
        severity: of each of `labels.SEVERITIES`, summing to 1.
        about: of each of `labels.ABOUTS`, summing to 1.
    """

    hazard: Array
    risk: float
    case: Array
    severity: Array
    about: Array


def _sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -40, 40))), np.float32)


def _softmax(logits: Array) -> Array:
    exp = np.exp(logits - logits.max())
    return np.asarray(exp / exp.sum(), np.float32)


def to_scores(logits: Array, calibration: Calibration) -> Scores:
    """Return calibrated scores.

    Args:
        logits: shape (windows, WIDTH), of one text.
        calibration: the model's own.
    """
    row = combine(logits)
    scores = calibration.apply(row)
    return Scores(
        hazard=scores[SLICES["hazard"]],
        risk=float(scores[RISK_AT]),
        case=_sigmoid(row[SLICES["case"]]),
        severity=_softmax(row[SLICES["severity"]]),
        about=_softmax(row[SLICES["about"]]),
    )


class HazardModel:
    """A trained classifier in a folder, ready to score texts. Safe to share between threads.

    Args:
        folder: with `model.onnx`, `tokenizer.json` and `manifest.json`.

    Raises:
        DataError: a file is absent or is not the one that the manifest names.
        MissingDependency: onnxruntime or tokenizers is not installed.
    """

    def __init__(self, folder: Path = SHIPPED) -> None:
        self.manifest = read_manifest(folder)
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingDependency(
                str(error.name), command="pip install kidrails-guard", purpose="the classifier"
            ) from None
        onnxruntime.disable_telemetry_events()  # also where it was imported before us
        options = onnxruntime.SessionOptions()
        # One thread: the guard runs many texts at once, and a pool that spins would starve them.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.enable_cpu_mem_arena = True
        options.enable_mem_pattern = False  # shapes differ from text to text
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.calibration = Calibration.parse(self.manifest["calibration"])

    def logits(self, text: str, turns: Sequence[Turn] = (), *, stage: Stage) -> Array:
        """Return raw outputs for a normalised text, shape (windows, WIDTH)."""
        # One window at a time: together they run no faster and hold 40 MB, and int8 scales are
        # chosen by the batch, so that a window's scores would depend on its neighbours.
        windows = encode(self._tokenizer, text, turns, stage=stage)
        return np.concatenate([run_window(self._session, window) for window in windows])

    def score(self, text: str, turns: Sequence[Turn] = (), *, stage: Stage) -> Scores:
        """Return calibrated scores for a normalised text, given the turns before it."""
        return to_scores(self.logits(text, turns, stage=stage), self.calibration)


def run_window(session: Any, window: Window) -> Array:
    """Return what an onnxruntime session says of one window, shape (1, WIDTH)."""
    ids = np.array([window.ids], np.int64)
    feeds = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.array([window.types], np.int64),
    }
    (out,) = session.run(["logits"], feeds)
    return np.asarray(out, np.float32)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a model folder's manifest after checking its files against it.

    Raises:
        DataError: a file is absent, changed, or made for other outputs than this version knows.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise DataError(
            f"{folder}: no manifest.json there, so no trained classifier; run: kidrails guard "
            f"train --out {folder}"
        )
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name in FILES:
        found = sha256_file(folder / name) if (folder / name).is_file() else "absent"
        wanted = manifest["files"][name]["sha256"]
        if found != wanted:
            raise DataError(
                f"{folder / name}: sha256 {found}, the manifest says {wanted}; install again or "
                f"run: kidrails guard train --out {folder}"
            )
    if tuple(manifest["outputs"]) != names() or len(manifest["outputs"]) != WIDTH:
        raise DataError(
            f"{path}: outputs: made for other labels than this version has; run: kidrails guard "
            f"train --out {folder}"
        )
    return manifest


@lru_cache(maxsize=2)
def load_model(folder: Path = SHIPPED) -> HazardModel:
    """Return the model of a folder, loaded once a process."""
    return HazardModel(folder)
