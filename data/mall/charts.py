"""Small charts with pillow alone."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, GRID, PAPER = (40, 44, 52), (224, 226, 230), (255, 255, 255)
COLOURS = ((31, 95, 191), (214, 92, 36), (44, 142, 72), (140, 60, 160))
WIDTH, HEIGHT = 380, 270
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 30, 44


@dataclass
class Chart:
    """Series of points or lines on linear or logarithmic axes."""

    title: str
    x: str
    y: str
    log_x: bool = False
    log_y: bool = False
    zero: bool = False  # the vertical axis begins at 0
    series: list[tuple[str, np.ndarray, np.ndarray, bool]] = field(default_factory=list)

    def add(self, name: str, *, x: np.ndarray, y: np.ndarray, line: bool = True) -> "Chart":
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        keep = np.isfinite(x) & np.isfinite(y)
        keep &= (x > 0 if self.log_x else True) & (y > 0 if self.log_y else True)
        self.series.append((name, x[keep], y[keep], line))
        return self

    def draw(self) -> Image.Image:
        picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
        pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
        small = ImageFont.load_default(size=11)
        xs, ys = (np.concatenate([s[i] for s in self.series]) for i in (1, 2))
        x_ticks, x_at = _axis(xs, log=self.log_x, low=LEFT, high=WIDTH - RIGHT)
        named = sum(bool(s[0]) for s in self.series)
        room = 0.0 if self.log_y else 0.07 * named * (ys.max() - ys.min())  # for the legend
        ys = np.concatenate([ys, [ys.max() + room], [0.0] if self.zero else []])
        y_ticks, y_at = _axis(ys, log=self.log_y, low=HEIGHT - BOTTOM, high=TOP)
        for tick in x_ticks:
            at = x_at(tick)
            pen.line([(at, TOP), (at, HEIGHT - BOTTOM)], fill=GRID)
            pen.text((at, HEIGHT - BOTTOM + 4), f"{tick:g}", fill=INK, font=small, anchor="ma")
        for tick in y_ticks:
            at = y_at(tick)
            pen.line([(LEFT, at), (WIDTH - RIGHT, at)], fill=GRID)
            pen.text((LEFT - 5, at), f"{tick:g}", fill=INK, font=small, anchor="rm")
        for n, (name, x, y, line) in enumerate(self.series):
            colour = COLOURS[n % len(COLOURS)]
            points = list(zip(x_at(x).tolist(), y_at(y).tolist(), strict=True))
            if line and len(points) > 1:
                pen.line(points, fill=colour, width=2, joint="curve")
            for px, py in points if not line else []:
                pen.ellipse([px - 3, py - 3, px + 3, py + 3], fill=colour)
            if name:
                high = TOP + 6 + 15 * n
                pen.text((WIDTH - RIGHT - 6, high), name, fill=colour, font=small, anchor="ra")
        pen.text((LEFT, 8), self.title, fill=INK, font=font)
        pen.text(((LEFT + WIDTH) / 2, HEIGHT - 8), f"{self.x}", fill=INK, font=small, anchor="ms")
        pen.text((4, 20), self.y, fill=INK, font=small, anchor="lm")
        return picture


def _axis(values: np.ndarray, *, log: bool, low: float, high: float):
    """Ticks inside the range of `values`, and the map from value to pixel."""
    a, b = float(values.min()), float(values.max())
    if log:
        ticks = [
            t for t in 10.0 ** np.arange(np.floor(np.log10(a)), np.ceil(np.log10(b)) + 1) if a / 1.01 <= t <= b * 1.01
        ]
        a, b = np.log(a), np.log(b)
    else:
        step = 10.0 ** np.floor(np.log10(max(b - a, 1e-9)))
        step *= next(f for f in (0.1, 0.2, 0.5, 1.0, 2.0) if (b - a) / (step * f) <= 6)
        ticks = [round(t, 10) for t in np.arange(np.ceil(a / step) * step, b + step / 2, step) if t <= b + 1e-9]
        margin = 0.04 * (b - a)
        a, b = a - margin, b + margin

    def place(v):
        v = np.log(v) if log else v
        return low + (v - a) / max(b - a, 1e-12) * (high - low)

    return ticks, place


def tile(pictures: list[Image.Image], *, columns: int) -> Image.Image:
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), PAPER)
    for n, picture in enumerate(pictures):
        sheet.paste(picture, (n % columns * width, n // columns * height))
    return sheet


def save(picture: Image.Image, *, path) -> None:
    """A palette of 256 colours: a third of the bytes."""
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
