"""Orders scored modules within their type, and chooses among them.

**Order.** Descending by score. Infinite scores come first, as in Spectrum's code; among them the
one with the larger ``Σ S>eps / S₀`` (what Spectrum's newer code computes in this case), where the
scan knows it. What is still tied is ordered by layer number, lowest first: that is what a stable
sort of the published files gives. Infinite and tied rows are marked, since their place among each
other says nothing about the model.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kidrails_guard.errors import ScanError
from kidrails_guard.spectrum.checkpoint import layer_number, name_order


@dataclass(frozen=True, slots=True)
class ScanRow:
    """One module of a scan.

    Attributes:
        module: such as ``model.layers.1.mlp.down_proj``.
        type: such as ``mlp.down_proj``.
        snr: the score, may be infinite.
        degenerate: what the scan says is wrong with the score, or empty.
        tie_break: orders rows of equal score, larger first; 0 where unknown.
    """

    module: str
    type: str
    snr: float
    degenerate: str = ""
    tie_break: float = 0.0

    @property
    def parameter(self) -> str:
        """The parameter's full name."""
        return f"{self.module}.weight"

    @property
    def layer(self) -> int:
        """The layer's number, -1 outside the layers."""
        return layer_number(self.module)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A row at its place.

    Attributes:
        row: the row.
        place: 0 for the best of its type.
        degenerate: ``infinite``, ``tied`` or empty.
    """

    row: ScanRow
    place: int
    degenerate: str


def is_norm(kind: str) -> bool:
    """Whether a module type is a norm (``input_layernorm``, ``self_attn.q_norm``, ``model.norm``).

    Norms are vectors: they have one singular value, and so an infinite score.
    """
    return kind.rpartition(".")[2].lower().replace("_", "").endswith(("norm", "layernorm"))


def rank(rows: Iterable[ScanRow]) -> dict[str, tuple[Ranked, ...]]:
    """Order rows within their types.

    Returns:
        by type, in the order in which the types first appear, best row first.
    """
    groups: dict[str, list[ScanRow]] = {}
    for row in rows:
        groups.setdefault(row.type, []).append(row)
    ranked = {}
    for kind, group in groups.items():
        ordered = sorted(group, key=lambda r: (-r.snr, -r.tie_break, name_order(r.module)))
        copies = Counter(row.snr for row in group)
        ranked[kind] = tuple(
            Ranked(row, place, _degenerate(row, copies[row.snr]))
            for place, row in enumerate(ordered)
        )
    return ranked


def _degenerate(row: ScanRow, copies: int) -> str:
    if math.isinf(row.snr):
        return "infinite"
    return "tied" if copies > 1 else ""


def check_fraction(fraction: float) -> None:
    """Check that a fraction is one.

    Raises:
        ScanError: it is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        hint = f"; for {fraction:g} % write {fraction / 100:g}" if 1 < fraction <= 100 else ""
        raise ScanError(f"fraction {fraction:g} is not above 0 and at most 1{hint}")


def choose_top(
    ranked: Mapping[str, Sequence[Ranked]], fraction: float, *, bottom: bool = False
) -> list[Ranked]:
    """Return the first (or last) ``int(n·p)`` rows of each type: Spectrum's own rounding."""
    check_fraction(fraction)
    chosen: list[Ranked] = []
    for group in ranked.values():
        count = int(len(group) * fraction)
        chosen += group[len(group) - count :] if bottom else group[:count]
    return chosen


def choose_random(
    ranked: Mapping[str, Sequence[Ranked]], fraction: float, *, seed: int
) -> list[Ranked]:
    """Draw ``int(n·p)`` rows of each type; the same seed draws the same rows."""
    check_fraction(fraction)
    chosen: list[Ranked] = []
    for kind in sorted(ranked):
        # From the layers' order, not the rank's: the draw must not depend on the scores.
        group = sorted(ranked[kind], key=lambda one: name_order(one.row.module))
        # A generator of its own for each type, so that leaving a type out keeps the others' draw.
        generator = random.Random(f"{seed}:{kind}")
        chosen += generator.sample(group, int(len(group) * fraction))
    return chosen


def fractions(ranked: Mapping[str, Sequence[Ranked]]) -> tuple[float, ...]:
    """Return every fraction at which one more row is chosen, ascending."""
    steps = set()
    for count in {len(group) for group in ranked.values()}:
        for taken in range(1, count + 1):
            # The smallest double at which int(n·p) has reached `taken`.
            step = taken / count
            steps.add(step if int(count * step) >= taken else math.nextafter(step, 2.0))
    return tuple(sorted(step for step in steps if step <= 1))
