"""A selection as text, a scan as plain values: what `kidrails spectrum` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kidrails_guard.spectrum.heatmap import draw_selection
from kidrails_guard.spectrum.memory import GB, MemoryEstimate
from kidrails_guard.spectrum.ranking import rank
from kidrails_guard.spectrum.report import Scan
from kidrails_guard.spectrum.targeting import Selection


def selection_text(scan: Scan, selection: Selection, memory: Mapping[str, MemoryEstimate]) -> str:
    """Return a selection for people: types × layers, the trainable share, estimated memory."""
    seed = f", seed {selection.seed}" if selection.seed is not None else ""
    extras = [name for name in ("embeddings", "head", "norms") if getattr(selection, name)]
    lines = [
        f"{selection.model}: {selection.method} {selection.fraction:g}{seed} by "
        f"{selection.estimator}" + (f"; {selection.budget}" if selection.budget else ""),
        "",
        draw_selection(scan, set(selection.parameters)),
        "",
        f"trainable: {selection.trainable_parameters:,} of {selection.total_parameters:,} "
        f"({selection.trainable_share:.1%}), {len(selection.parameters)} tensors"
        + (f", {', '.join(extras)} included" if extras else ""),
    ]
    if selection.degenerate:
        shown = ", ".join(selection.degenerate[:4])
        more = ", …" if len(selection.degenerate) > 4 else ""
        lines.append(
            f"degenerate: {len(selection.degenerate)} scores are infinite or tied, their order "
            f"says little: {shown}{more}"
        )
    if not memory:
        return "\n".join(lines)
    lines += ["", "estimated GPU memory, GB    trainable  weights  grad+opt  activ.   total"]
    for name, one in memory.items():
        numbers = (one.weights, one.gradients + one.states, one.activations, one.total)
        columns = "".join(f"{value / GB:>9.1f}" for value in numbers)
        lines.append(f"  {name:<22}{one.trainable / 1e6:>12,.1f}M{columns}")
    return "\n".join(lines)


def scan_record(scan: Scan) -> dict[str, Any]:
    """Return a scan for scripts: its modules, best first within each type, as plain values."""
    return {
        "model": scan.model,
        "estimator": scan.estimator.value,
        "scan_sha256": scan.sha256,
        "unscored": dict(scan.unscored),
        "modules": [
            {
                "module": one.row.module,
                "type": kind,
                "place": one.place,
                # JSON has no infinity: None, and `degenerate` says which kind.
                "snr": one.row.snr if math.isfinite(one.row.snr) else None,
                "degenerate": one.degenerate,
            }
            for kind, group in rank(scan.rows).items()
            for one in group
        ],
    }
