"""A scan as a picture: module types down, layers across, for the terminal and as PNG or SVG.

Scores of different types do not compare, so each row has its own colours: by the place within its
type.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection
from pathlib import Path
from typing import Final

from kidrails_guard.errors import MissingDependency, ScanError
from kidrails_guard.files import write_atomic
from kidrails_guard.spectrum.ranking import Ranked, is_norm, rank
from kidrails_guard.spectrum.report import Scan

_SHADES: Final = " ░▒▓█"
_FORMATS: Final = (".png", ".svg")


def grid(scan: Scan) -> dict[str, dict[int, Ranked]]:
    """Return the ranked rows of the layers by type and layer number, norms left out."""
    rows = [row for row in scan.rows if row.layer >= 0 and not is_norm(row.type)]
    return {
        kind: {one.row.layer: one for one in group} for kind, group in sorted(rank(rows).items())
    }


def _warmth(one: Ranked, count: int) -> float:
    """Return 1 for the best of a type and 0 for the last."""
    return 1.0 if count < 2 else 1 - one.place / (count - 1)


def draw_terminal(scan: Scan) -> str:
    """Return the map as text: darker is higher within its type, ``∞`` is an infinite score."""
    cells = grid(scan)
    if not cells:
        raise ScanError(f"{scan.source} has no scored layers to draw")
    layers = range(max(max(group) for group in cells.values()) + 1)
    width = max(map(len, cells))
    lines = [_ruler(len(layers), width)]
    for kind, group in cells.items():
        marks = "".join(_mark(group.get(layer), len(group)) for layer in layers)
        scores = [one.row.snr for one in group.values() if math.isfinite(one.row.snr)]
        span = f"{min(scores):.3g} … {max(scores):.3g}" if scores else "all infinite"
        lines.append(f"{kind:<{width}} │{marks}│ {span}")
    lines.append(f"{'':<{width}}  dark = high SNR within its type, ∞ = infinite, · = not scored")
    return "\n".join(lines)


def _ruler(count: int, width: int) -> str:
    marks = "".join(str(layer).ljust(5) for layer in range(0, count, 5))
    return f"{'layer':<{width}}  {marks}".rstrip()


def _mark(one: Ranked | None, count: int) -> str:
    if one is None:
        return "·"
    if math.isinf(one.row.snr):
        return "∞"
    return _SHADES[round(_warmth(one, count) * (len(_SHADES) - 1))]


def draw_selection(scan: Scan, chosen: Collection[str]) -> str:
    """Return types × layers as text: ``█`` is trained, ``·`` is frozen."""
    cells = grid(scan)
    layers = range(max((max(group) for group in cells.values()), default=-1) + 1)
    width = max(map(len, cells), default=5)
    lines = [_ruler(len(layers), width)]
    for kind, group in cells.items():
        picked = {layer for layer, one in group.items() if one.row.parameter in chosen}
        marks = "".join(
            "█" if layer in picked else "·" if layer in group else " " for layer in layers
        )
        lines.append(f"{kind:<{width}} │{marks}│ {len(picked)} of {len(group)}")
    return "\n".join(lines)


def draw_file(scan: Scan, path: Path) -> None:
    """Write the map as PNG or SVG, whole or not at all.

    Args:
        scan: what to draw.
        path: the picture; its ending chooses the format.

    Raises:
        ScanError: another ending, nothing to draw, or the folder is not writable.
        MissingDependency: matplotlib is not installed.
    """
    if path.suffix not in _FORMATS:
        raise ScanError(f"{path}: the ending {path.suffix!r} is not one of {', '.join(_FORMATS)}")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency(
            "matplotlib",
            command='pip install "kidrails-guard[spectrum]"',
            purpose="drawing the map into a file",
        ) from None
    import numpy as np

    cells = grid(scan)
    if not cells:
        raise ScanError(f"{scan.source} has no scored layers to draw")
    count = max(max(group) for group in cells.values()) + 1
    warmth = np.full((len(cells), count), np.nan)
    for line, group in enumerate(cells.values()):
        for layer, one in group.items():
            warmth[line, layer] = _warmth(one, len(group))
    figure = Figure(figsize=(max(6.0, 1.8 + count * 0.28), 1.5 + len(cells) * 0.38))
    axes = figure.add_subplot()
    picture = axes.imshow(warmth, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for line, group in enumerate(cells.values()):
        for layer, one in group.items():
            if one.degenerate:
                sign = "∞" if one.degenerate == "infinite" else "="
                axes.text(layer, line, sign, ha="center", va="center", color="white")
    axes.set_yticks(range(len(cells)), list(cells))
    axes.set_xticks(range(0, count, 5 if count > 12 else 1))
    axes.set_xlabel("layer")
    axes.set_title(f"{scan.model}: SNR ({scan.estimator.value})", fontsize=10)
    bar = figure.colorbar(picture, ax=axes, ticks=(0, 1), pad=0.02)
    bar.ax.set_yticklabels(["lowest of\nits type", "highest of\nits type"], fontsize=7)
    stream = io.BytesIO()
    # No date and fixed ids: the same scan gives the same bytes.
    with mpl.rc_context({"svg.hashsalt": "kidrails"}):
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(
            stream, format=path.suffix[1:], dpi=150, bbox_inches="tight", metadata=metadata
        )
    try:
        write_atomic(path, stream.getvalue())
    except OSError as error:
        raise ScanError(f"cannot write {path}: {error.strerror}") from None
