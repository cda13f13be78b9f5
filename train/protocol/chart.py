"""A scatter of named points as one SVG file: speed on a scale of factors, the figure on a scale of what it lacks to 1.

Differences between good models are differences of 1 - AUC, so that scale is logarithmic: .94, .97 and .985 stand
equally far apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from train.report_charts import number
from train.report_page import STYLE

WIDTH, HEIGHT = 560, 400
LEFT, RIGHT, TOP, BOTTOM = 66, 96, 34, 46
APART = 15  # least distance of two labels
COLOURS = 6


@dataclass(frozen=True)
class Point:
    name: str
    x: float
    y: float
    spread: float = 0.0


@dataclass(frozen=True)
class Line:
    name: str
    y: float


@dataclass(frozen=True)
class Panel:
    title: str
    points: Sequence[Point]
    x_label: str
    y_label: str
    line: Line | None = None


def draw(panels: Sequence[Panel]) -> str:
    """The panels side by side; the styles are inside, so that the file stands alone."""
    width = WIDTH * len(panels)
    parts = [f'<g transform="translate({i * WIDTH} 0)">{_panel(panel)}</g>' for i, panel in enumerate(panels)]
    style = (
        STYLE
        + ".name { font-size: 12px; fill: var(--ink); } .title { font-size: 14px; font-weight: 600; fill: var(--ink); }"
    )
    names = escape(", ".join(panel.title for panel in panels), quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{names}">'
        f"<style>{escape(style, quote=False)} svg {{ font-family: system-ui, sans-serif; }}</style>"
        f'<rect width="{width}" height="{HEIGHT}" fill="var(--card)"/>' + "".join(parts) + "</svg>\n"
    )


def lack(y: float) -> float:
    """Where a figure stands: up is better."""
    return -math.log10(max(1 - y, 1e-6))


def _panel(panel: Panel) -> str:
    xs = [math.log10(point.x) for point in panel.points]
    ys = [lack(p.y + sign * p.spread) for p in panel.points for sign in (-1, 1)]
    ys += [lack(panel.line.y)] if panel.line else []
    x_range, y_range = _padded(xs, least=0.3), _padded(ys, least=0.02)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(x: float) -> float:
        return LEFT + (math.log10(x) - x_range[0]) / (x_range[1] - x_range[0]) * (right - LEFT)

    def up(y: float) -> float:
        return bottom - (lack(y) - y_range[0]) / (y_range[1] - y_range[0]) * (bottom - TOP)

    parts = [f'<text class="title" x="{LEFT}" y="20">{escape(panel.title)}</text>']
    for y in _figures(y_range):
        parts.append(f'<path class="grid" d="M{LEFT} {up(y):.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{up(y) + 4:.1f}" text-anchor="end">{y:.4g}</text>')
    for x in _speeds(x_range):
        parts.append(f'<path class="grid" d="M{across(x):.1f} {TOP}V{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{across(x):.1f}" y="{bottom + 17}" text-anchor="middle">{number(x)}</text>'
        )
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    middle = (TOP + bottom) / 2
    parts.append(
        f'<text class="label" x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(panel.x_label)}</text>"
        f'<text class="label" x="14" y="{middle}" transform="rotate(-90 14 {middle})" text-anchor="middle">'
        f"{escape(panel.y_label)}</text>"
    )
    if panel.line:
        at = up(panel.line.y)
        label = f"{escape(panel.line.name)} {panel.line.y:.4f}"
        parts.append(f'<path class="line guide" d="M{LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{LEFT + 4}" y="{at - 5:.1f}">{label}</text>')
    placed = _apart([up(point.y) for point in panel.points], top=TOP + 4, bottom=bottom)
    for i, (point, label_at) in enumerate(zip(panel.points, placed, strict=True)):
        x, y, colour = across(point.x), up(point.y), f"s{i % COLOURS}"
        low, high = up(point.y - point.spread), up(point.y + point.spread)
        parts.append(f'<path class="line {colour}" d="M{x:.1f} {low:.1f}V{high:.1f}"/>')
        parts.append(
            f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
            f"<title>{escape(point.name)}: {point.y:.5f} ± {point.spread:.5f}, {number(point.x)} rows/s</title>"
            "</circle>"
        )
        parts.append(f'<path class="line guide" d="M{x + 5:.1f} {y:.1f}L{right + 4} {label_at:.1f}" opacity=".5"/>')
        parts.append(f'<text class="name" x="{right + 7}" y="{label_at + 4:.1f}">{escape(point.name)}</text>')
    return "".join(parts)


def _apart(heights: Sequence[float], *, top: float, bottom: float) -> list[float]:
    """Heights of labels beside the plot: near their points, in their order, none over another."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed: dict[int, float] = {}
    last = top - APART
    for i in order:
        placed[i] = last = max(heights[i], last + APART)
    over = last - bottom
    for i in reversed(order):  # pushed beyond the foot: move up what stands too low
        if over <= 0:
            break
        limit = bottom if i == order[-1] else placed[order[order.index(i) + 1]] - APART
        placed[i] = min(placed[i], limit)
    return [placed[i] for i in range(len(heights))]


def _padded(values: Sequence[float], *, least: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max(0.06 * (high - low), (least - (high - low)) / 2, 1e-3)
    return low - margin, high + margin


def _speeds(bounds: tuple[float, float]) -> list[float]:
    """1, 2 and 5 of each power of ten; 1 alone where there are many."""
    powers = range(math.floor(bounds[0]), math.ceil(bounds[1]) + 1)
    steps = (1, 2, 5) if bounds[1] - bounds[0] < 2 else (1,)
    return [m * 10.0**p for p in powers for m in steps if bounds[0] <= math.log10(m) + p <= bounds[1]]


def _figures(bounds: tuple[float, float]) -> list[float]:
    """Round figures that lie well apart on the scale."""
    low, high = (1 - 10**-b for b in bounds)
    found: list[float] = []
    for digits in (1, 2, 3, 4):
        step = 10.0**-digits
        for m in (5, 2, 1):
            size = m * step
            first = math.ceil(low / size - 1e-9)
            new = [round(i * size, 6) for i in range(first, math.floor(high / size + 1e-9) + 1)]
            for value in new:
                near = min((abs(lack(value) - lack(f)) for f in found), default=math.inf)
                if value < 1 and near > (bounds[1] - bounds[0]) / 9 and len(found) < 8:
                    found.append(value)
    return sorted(found)
