"""The report's plots as SVG: no picture file, no network, text that scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from markupsafe import Markup, escape

from kidrails_guard.evals.guard_eval import GuardFigures, Threshold

WIDTH: Final = 420
"""Of every plot, in its own units: near a phone's width, so that the text stays legible there."""
INK: Final = "#1c2733"
QUIET: Final = "#5b6874"
LINE: Final = "#c3ced8"
SERIES: Final = ("#b35806", "#2166ac", "#6a51a3", "#1b7837", "#525252", "#8c510a")
"""Colours of the targets, told apart by people who see colours otherwise, and by dashes beside."""
DASHES: Final = ("none", "7 3", "2 3", "10 3 2 3", "4 4", "1 2")

_BAD, _MIDDLE, _GOOD = (179, 88, 6), (247, 244, 238), (33, 102, 172)


def shade(value: float) -> tuple[str, str]:
    """Return the background and the text colour of a share: orange is bad, blue is good.

    The text has a contrast of at least 4.5 to 1 on its background (WCAG 2, level AA).
    """
    value = min(1.0, max(0.0, value))
    start, end, part = (
        (_BAD, _MIDDLE, value / 0.5) if value < 0.5 else (_MIDDLE, _GOOD, (value - 0.5) / 0.5)
    )
    rgb = tuple(round(a + (b - a) * part) for a, b in zip(start, end, strict=True))
    light = _luminance(rgb) + 0.05
    # Pure black and white: with any softer pair some shade in the middle suits neither.
    text = "#000000" if light / 0.05 >= 1.05 / light else "#ffffff"
    return "#{:02x}{:02x}{:02x}".format(*rgb), text


def _luminance(rgb: Sequence[int]) -> float:
    parts = [c / 255 for c in rgb]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _svg(height: float, title: str, body: Sequence[str]) -> Markup:
    return Markup(  # noqa: S704  # every word in it is escaped
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}" '
        f'font-family="inherit" font-size="11" fill="{INK}">' + "".join(body) + "</svg>"
    )


def _text(x: float, y: float, words: str, *, anchor: str = "start", fill: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, *, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )


def reading_plot(
    grades: Mapping[str, Mapping[str, Sequence[float]]], limits: Mapping[str, float]
) -> Markup:
    """Draw how hard the replies are to read.

    Args:
        grades: band to target to the Flesch-Kincaid grades of its replies.
        limits: band to the highest grade that fits.
    """
    top = max([12.0, *(float(np.percentile(v, 95)) for t in grades.values()
                       for v in t.values() if v)])  # fmt: skip
    highest = min(20.0, np.ceil(top / 2) * 2)

    def x(grade: float) -> float:
        return float(8 + (WIDTH - 16) * min(max(grade, 0.0), highest) / highest)

    body, y = [], 14.0
    for band, targets in grades.items():
        limit = limits[band]
        body.append(_text(8, y, f"age {band}: up to grade {limit:g}"))
        for at, (target, values) in enumerate(targets.items()):
            colour = SERIES[at % len(SERIES)]
            y += 20
            if not values:
                body.append(_text(8, y, f"{target}: no reply of 30 words or more", fill=QUIET))
                continue
            low, q1, middle, q3, high = np.percentile(values, [5, 25, 50, 75, 95])
            words = f"{target}: median {middle:.1f}, half of them {q1:.1f} to {q3:.1f}"
            body.append(_text(8, y, f"{words}, n = {len(values)}", fill=QUIET))
            y += 15
            body.append(_line(x(low), y, x(high), y, colour=colour, width=2))
            body.append(
                f'<rect x="{x(q1):.1f}" y="{y - 6:.1f}" width="{max(1.0, x(q3) - x(q1)):.1f}" '
                f'height="12" fill="{colour}" fill-opacity="0.25" stroke="{colour}"/>'
            )
            body.append(_line(x(middle), y - 7, x(middle), y + 7, colour=colour, width=3))
            body.append(
                f'<line x1="{x(limit):.1f}" y1="{y - 9:.1f}" x2="{x(limit):.1f}" '
                f'y2="{y + 9:.1f}" stroke="{INK}" stroke-width="2" stroke-dasharray="3 2"/>'
            )
        y += 30
    body.append(_line(8, y - 12, WIDTH - 8, y - 12, colour=LINE))
    for tick in range(0, int(highest) + 1, 2):
        body.append(_text(x(tick), y + 2, str(tick), anchor="middle", fill=QUIET))
    body.append(_text(WIDTH / 2, y + 18, "Flesch-Kincaid grade", anchor="middle", fill=QUIET))
    return _svg(y + 24, "Reading level of replies by age band and target", body)


def latency_plot(seconds: Mapping[str, Sequence[float]]) -> Markup:
    """Draw how long whole replies took: the share that is there after so many seconds."""
    values = {name: np.sort(np.asarray(v, dtype=float)) for name, v in seconds.items() if len(v)}
    if not values:
        return _svg(30, "no reply", [_text(8, 20, "no reply")])
    longest = max(float(np.percentile(v, 99)) for v in values.values()) or 1.0
    left, right, top, bottom = 40.0, WIDTH - 10.0, 10.0, 170.0

    def x(value: float) -> float:
        return left + (right - left) * min(value, longest) / longest

    def y(share: float) -> float:
        return bottom - (bottom - top) * share

    body = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        body.append(_line(left, y(share), right, y(share), colour=LINE))
        body.append(_text(left - 5, y(share) + 4, f"{share:.0%}", anchor="end", fill=QUIET))
    step = 10.0 ** np.floor(np.log10(longest))
    step *= next(part for part in (0.2, 0.5, 1.0, 2.0) if longest / (part * step) <= 6)
    for tick in np.arange(0, longest + 1e-9, step):
        body.append(_text(x(tick), bottom + 16, f"{tick:g}", anchor="middle", fill=QUIET))
    body.append(_text((left + right) / 2, bottom + 34, "seconds to the end of the reply",
                      anchor="middle", fill=QUIET))  # fmt: skip
    shares = np.linspace(0, 1, 51)
    for at, (name, ordered) in enumerate(values.items()):
        colour, dash = SERIES[at % len(SERIES)], DASHES[at % len(DASHES)]
        points = " ".join(
            f"{x(float(np.quantile(ordered, s))):.1f},{y(float(s)):.1f}" for s in shares
        )
        body.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" '
                    f'stroke-dasharray="{dash}"/>')  # fmt: skip
        row = bottom + 54 + 18 * at
        body.append(f'<line x1="{left}" y1="{row - 4:.0f}" x2="{left + 32}" y2="{row - 4:.0f}" '
                    f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')  # fmt: skip
        body.append(_text(left + 40, row, f"{name}, n = {len(ordered)}"))
    return _svg(bottom + 44 + 18 * len(values), "Share of replies by seconds waited", body)


def roc_plot(points: Sequence[Threshold], guard: GuardFigures) -> Markup:
    """Draw recall against false alarms of holding back by score, and where the guard stands."""
    left, top, size = 46.0, 10.0, 300.0

    def x(share: float) -> float:
        return left + size * share

    def y(share: float) -> float:
        return top + size * (1 - share)

    body = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        body.append(_line(x(0), y(share), x(1), y(share), colour=LINE))
        body.append(_line(x(share), y(0), x(share), y(1), colour=LINE))
        body.append(_text(left - 5, y(share) + 4, f"{share:.0%}", anchor="end", fill=QUIET))
        body.append(_text(x(share), top + size + 15, f"{share:.0%}", anchor="middle", fill=QUIET))
    curve = " ".join(
        f"{x(p.false_alarms.value or 0.0):.1f},{y(p.recall.value or 0.0):.1f}" for p in points
    )
    body.append(f'<polyline points="{curve}" fill="none" stroke="{SERIES[1]}" stroke-width="2"/>')
    if guard.over_block.value is not None and guard.unsafe_allow.value is not None:
        at_x, at_y = x(guard.over_block.value), y(1 - guard.unsafe_allow.value)
        body.append(f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="4" fill="{SERIES[0]}"/>')
        body.append(_text(at_x + 8, at_y + 14, "the guard as it decides"))
    body.append(_text(x(0.5), top + size + 32, "harmless texts held back", anchor="middle",
                      fill=QUIET))  # fmt: skip
    body.append(f'<text transform="translate(12 {y(0.5):.0f}) rotate(-90)" text-anchor="middle" '
                f'fill="{QUIET}">risky texts held back</text>')  # fmt: skip
    return _svg(top + size + 40, "Risky texts held back against harmless texts held back", body)
