"""Which parameters to train: the `Selection` that recipes are rendered from.

A selection is a plain list of parameter names with everything that says where it comes from: the
model, the scan's hash, the estimator, the method and the fraction. It is committed beside the
recipes, so that a recipe can be rendered and checked without the scan or the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from kidrails_guard.errors import ScanError
from kidrails_guard.files import dump_json
from kidrails_guard.spectrum.checkpoint import ModelIndex

FORMAT: Final = "kidrails-selection/1"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Method(StrEnum):
    """How layers are chosen within each module type."""

    TOP = "top"
    """Those with the highest SNR: Spectrum's own rule."""
    BOTTOM = "bottom"
    """Those with the lowest: a baseline."""
    RANDOM = "random"
    """Drawn with a seed: a baseline."""
    BUDGET = "budget"
    """`TOP` with the largest fraction that fits a number of parameters or of GPU memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The parameters to train, and where the choice comes from.

    Attributes:
        model: Hub id or folder name of the model that was scanned.
        method: how the layers were chosen.
        fraction: share of the layers of each type, 0 to 1.
        types: the module types that were chosen from, such as ``mlp.down_proj``.
        parameters: full names, such as ``model.layers.1.mlp.down_proj.weight``, in layer order.
        trainable_parameters: how many numbers these hold.
        total_parameters: how many numbers the model holds.
        scan_sha256: SHA-256 of the scan file.
        scan_source: where the scan comes from: its file name, or repository, commit and path.
        estimator: ``spectrum`` or ``mp``.
        seed: of the method ``random``, else None.
        embeddings: whether the embedding is trained too.
        head: whether the output head is trained too.
        norms: whether the norms are trained too.
        budget: the bound that the method ``budget`` was given, in words.
        degenerate: modules among the ranked ones whose score is infinite or tied.
    """

    model: str
    method: Method
    fraction: float
    types: tuple[str, ...]
    parameters: tuple[str, ...]
    trainable_parameters: int
    total_parameters: int
    scan_sha256: str
    scan_source: str
    estimator: str = "spectrum"
    seed: int | None = None
    embeddings: bool = False
    head: bool = False
    norms: bool = False
    budget: str = ""
    degenerate: tuple[str, ...] = ()

    @property
    def trainable_share(self) -> float:
        """Share of the model's parameters that is trained, 0 to 1."""
        return self.trainable_parameters / self.total_parameters

    @property
    def patterns(self) -> tuple[str, ...]:
        """The list for axolotl's ``unfrozen_parameters``: each name anchored at both ends.

        axolotl escapes the dots itself and matches with `re.match`, so that ``layers.1`` without
        the anchor would match ``layers.11`` too, and an escaped dot would match nothing.
        """
        return tuple(f"^{name}$" for name in self.parameters)

    def check_against(self, index: ModelIndex) -> None:
        """Check that every parameter is in a model, and that the counts are that model's.

        Raises:
            ScanError: a parameter is missing, or a count differs.
        """
        absent = [name for name in self.parameters if name not in index]
        if absent:
            raise ScanError(
                f"the selection for {self.model} names {len(absent)} parameters that {index.model} "
                f"does not have, first {absent[0]!r}: it belongs to another model; scan this one"
            )
        counted = (index.count_parameters(self.parameters), index.total_parameters)
        if counted != (self.trainable_parameters, self.total_parameters):
            raise ScanError(
                f"the selection for {self.model} counts {self.trainable_parameters:,} trainable of "
                f"{self.total_parameters:,} parameters; in {index.model} they are {counted[0]:,} "
                f"of {counted[1]:,}: it is a selection for another model"
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file, the derived share included."""
        plain = asdict(self) | {"method": self.method.value, "types": list(self.types)}
        lists = {key: list(plain.pop(key)) for key in ("degenerate", "parameters")}
        share = round(self.trainable_share, 6)
        # The long lists last, so that a reader sees first where they come from.
        return {"format": FORMAT, **plain, "trainable_share": share, **lists}

    @classmethod
    def from_json(cls, value: Any, *, where: str = "selection") -> Selection:
        """Build a selection from parsed JSON.

        Args:
            value: what `to_json` returned.
            where: the file's name, for messages.

        Raises:
            ScanError: a key is missing or has a wrong value.
        """
        if not isinstance(value, Mapping) or value.get("format") != FORMAT:
            found = value.get("format") if isinstance(value, Mapping) else type(value).__name__
            raise ScanError(
                f"{where}: format {found!r} is not {FORMAT!r}; write the file with: "
                "kidrails spectrum select SCAN --save FILE"
            )
        known = {field.name for field in fields(cls)}
        extra = set(value) - known - {"format", "trainable_share"}
        if extra:
            raise ScanError(f"{where}: unknown keys {', '.join(sorted(map(str, extra)))}")
        try:
            plain = {key: value[key] for key in value if key in known}
            for key in ("types", "parameters", "degenerate"):
                plain[key] = tuple(str(item) for item in plain.get(key, ()))
            selection = cls(**(plain | {"method": Method(plain["method"])}))
            selection._check(where)
        except (KeyError, TypeError, ValueError) as error:
            raise ScanError(f"{where}: {error}") from None
        return selection

    def _check(self, where: str) -> None:
        if not self.parameters:
            raise ScanError(f"{where}: parameters is empty; nothing would be trained")
        if len(set(self.parameters)) != len(self.parameters):
            raise ScanError(f"{where}: parameters names one twice")
        if not 0 < self.fraction <= 1:
            raise ScanError(f"{where}: fraction {self.fraction!r} is not between 0 and 1")
        if not 0 < self.trainable_parameters <= self.total_parameters:
            raise ScanError(
                f"{where}: trainable_parameters {self.trainable_parameters!r} is not between 1 and "
                f"total_parameters {self.total_parameters!r}"
            )
        if not _SHA256.fullmatch(self.scan_sha256):
            raise ScanError(f"{where}: scan_sha256 {self.scan_sha256!r} is not 64 hex digits")

    def save(self, path: Path) -> None:
        """Write the selection as JSON, whole or not at all."""
        try:
            dump_json(path, self.to_json())
        except OSError as error:
            raise ScanError(f"cannot write {path}: {error.strerror}") from None

    @classmethod
    def load(cls, path: Path) -> Selection:
        """Read a selection.

        Raises:
            ScanError: the file cannot be read or does not hold a selection.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ScanError(f"cannot read the selection {path}: {error}") from None
        return cls.from_json(value, where=str(path))
