"""The report's plots, as PNG bytes: readable in grey, with the numbers written in."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from kidrails_guard.evals.intervals import Estimate
from kidrails_guard.types import AgeBand, Hazard


def data_uri(png: bytes) -> str:
    """Return a PNG as a ``data:`` URI, so that one HTML file holds everything."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    # No date and version in the file: the same figures give the same bytes.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def heat_map(cells: Mapping[str, Mapping[str, Estimate]], title: str) -> bytes:
    """Draw hazard by band: the share of acceptable actions, with n."""
    hazards = [h for h in Hazard if str(h) in cells]
    bands = list(AgeBand)
    height = max(2.5, 0.34 * len(hazards) + 1.2)
    figure, axes = plt.subplots(figsize=(5.6, height), layout="constrained")
    grid = [
        [_value(cells[str(h)].get(str(b))) if str(b) in cells[str(h)] else float("nan")
         for b in bands]
        for h in hazards
    ]  # fmt: skip
    image = axes.imshow(grid, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for y, hazard in enumerate(hazards):
        for x, band in enumerate(bands):
            cell = cells[str(hazard)].get(str(band))
            if cell is not None and cell.value is not None:
                colour = "white" if cell.value < 0.6 else "black"
                axes.text(x, y, f"{cell.value:.0%}\nn={cell.n}", ha="center", va="center",
                          fontsize=6.5, color=colour)  # fmt: skip
    axes.set_xticks(range(len(bands)), [f"age {b}" for b in bands])
    axes.set_yticks(range(len(hazards)), [f"{h} {h.label.replace('_', ' ')}" for h in hazards],
                    fontsize=8)  # fmt: skip
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, label="acceptable actions")
    return _png(figure)


def _value(cell: Estimate | None) -> float:
    return cell.value if cell is not None and cell.value is not None else float("nan")


def reading_plot(grades: Mapping[str, Sequence[float]], limits: Mapping[str, float]) -> bytes:
    """Draw the grades of the replies, a column a band and target, with the band's limit."""
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    names = [name for name, values in grades.items() if values]
    if names:
        axes.boxplot([list(grades[n]) for n in names], tick_labels=names, showfliers=True)
        for x, name in enumerate(names, start=1):
            limit = limits.get(name)
            if limit is not None:
                axes.plot([x - 0.4, x + 0.4], [limit, limit], "r--", lw=1.5)
    else:
        axes.text(0.5, 0.5, "no reply of 30 words or more", ha="center")
    axes.set_ylabel("Flesch-Kincaid grade")
    axes.set_title("Reading level of replies (dashed: the band's target)", fontsize=10)
    axes.tick_params(axis="x", labelsize=7)
    return _png(figure)


def latency_plot(seconds: Mapping[str, Sequence[float]]) -> bytes:
    """Draw how long whole replies took, as a cumulative share, a line a target."""
    figure, axes = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
    for style, (name, values) in zip(("-", "--", "-.", ":"), seconds.items(), strict=False):
        ordered = sorted(values)
        if ordered:
            axes.step(ordered, [(i + 1) / len(ordered) for i in range(len(ordered))],
                      linestyle=style, label=name)  # fmt: skip
    axes.set_xlabel("seconds until the end of the reply")
    axes.set_ylabel("share of replies")
    axes.set_ylim(0, 1.02)
    if any(seconds.values()):
        axes.legend(fontsize=8)
    axes.set_title("How long a child waits", fontsize=10)
    return _png(figure)


def roc_plot(points: Sequence[tuple[float, float, float]]) -> bytes:
    """Draw recall against false alarms of holding back by score."""
    figure, axes = plt.subplots(figsize=(4.4, 4.0), layout="constrained")
    axes.plot([x for _, x, _ in points], [y for _, _, y in points], "-", color="#3b6ea5")
    axes.set_xlim(-0.01, 1)
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("harmless texts held back")
    axes.set_ylabel("risky texts held back")
    axes.set_title("Holding back by score", fontsize=10)
    return _png(figure)
