"""Charts as SVG text: legible without a script, with a value under the pointer where scripts run."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 520, 270
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 12, 38
COLOURS = 6  # of the page's palette, --c0 ..
POINTS = 600  # of a series that are drawn


@dataclass(frozen=True)
class Series:
    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    title: str
    series: Sequence[Series]
    x_label: str = "step"
    y_label: str = ""
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    bars: Sequence[tuple[float, float]] = field(default=())  # (x, height) behind the series, to no scale
    note: str = ""


def number(value: float | None) -> str:
    """0.7813, 12,345, 2.5M; a dash for what does not exist."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.2e}"


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round values between `low` and `high`."""
    raw = (high - low) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def thin(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most POINTS points; of each stretch the lowest and the highest stay, so that spikes do."""
    if len(x) <= POINTS:
        return list(x), list(y)
    keep = {0, len(x) - 1}
    stretches = POINTS // 2
    for i in range(stretches):
        part = range(i * len(x) // stretches, (i + 1) * len(x) // stretches)
        keep |= {min(part, key=lambda j: y[j]), max(part, key=lambda j: y[j])}
    order = sorted(keep)
    return [x[i] for i in order], [y[i] for i in order]


def _range(values: list[float], *, pad: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * pad or abs(high) * 0.1 or 1.0
    if pad == 0 and high > low:
        return low, high
    floor = 0.0 if low >= 0 and low < margin * 3 else low - margin
    return floor, high + margin


def _scale(value: float, bounds: tuple[float, float], start: float, end: float) -> float:
    return start + (value - bounds[0]) / (bounds[1] - bounds[0]) * (end - start)


def draw(chart: Chart) -> str:
    """A figure with its title, legend and SVG."""
    drawn = [(s, *thin(s.x, s.y)) for s in chart.series if len(s.x)]
    if not drawn:
        return ""
    xs = chart.x_range or _range([v for _, x, _ in drawn for v in x], pad=0.0)
    ys = chart.y_range or _range([v for _, _, y in drawn for v in y], pad=0.06)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = _axes(chart, xs, ys)
    for place, height in chart.bars:
        middle, tall = _scale(place, xs, LEFT, right), 0.3 * height * (bottom - TOP)
        parts.append(f'<rect class="bar" x="{middle - 5:.1f}" y="{bottom - tall:.1f}" width="10" height="{tall:.1f}"/>')
    hover = []
    for i, (series, x, y) in enumerate(drawn):
        at = [(_scale(a, xs, LEFT, right), _scale(b, ys, bottom, TOP)) for a, b in zip(x, y, strict=True)]
        colour = "guide" if series.dashed else f"s{i % COLOURS}"
        if len(at) > 1:
            line = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in at)
            parts.append(f'<path class="line {colour}" d="{line}"/>')
        if series.dots or len(at) == 1:
            parts += [f'<circle class="dot {colour}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in at]
        if not series.dashed:
            labels = [f"{number(a)}: {number(b)}" for a, b in zip(x, y, strict=True)]
            pixels = [[round(a, 1), round(b, 1)] for a, b in at]
            hover.append({"name": series.name, "class": colour, "at": pixels, "text": labels})
    names = [(s.name, "guide" if s.dashed else f"s{i % COLOURS}") for i, (s, _, _) in enumerate(drawn)]
    legend = "".join(f'<span class="key {c}">{escape(n)}</span>' for n, c in names) if len(names) > 1 else ""
    data = escape(json.dumps(hover), quote=True)
    label = escape(f"{chart.title} by {chart.x_label}", quote=True)
    return (
        f'<figure class="chart"><figcaption>{escape(chart.title)}'
        f'<span class="legend">{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" data-hover="{data}">'
        + "".join(parts)
        + "</svg>"
        + (f'<p class="note">{escape(chart.note)}</p>' if chart.note else "")
        + "</figure>"
    )


def _axes(chart: Chart, xs: tuple[float, float], ys: tuple[float, float]) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in ticks(*ys, most=5):
        at = _scale(value, ys, bottom, TOP)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for value in ticks(*xs, most=6):
        at = _scale(value, xs, LEFT, right)
        parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{number(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    place = f'x="{(LEFT + right) / 2}" y="{HEIGHT - 4}" text-anchor="middle"'
    parts.append(f'<text class="label" {place}>{escape(chart.x_label)}</text>')
    if chart.y_label:
        at = (TOP + bottom) / 2
        turn = f'transform="rotate(-90 12 {at})" text-anchor="middle"'
        parts.append(f'<text class="label" x="12" y="{at}" {turn}>{escape(chart.y_label)}</text>')
    return parts
