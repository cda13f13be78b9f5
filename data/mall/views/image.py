"""Page image: shape by category, colour by theme, texture by pattern, brand mark, clutter by seller."""

import numpy as np

from data.mall.config import Mall
from data.mall.latents import THEMES, Catalogue
from data.mall.rng import normals, uniforms

SIDE = 32
SHAPES = 8
BLOCK = 128  # listings drawn at once: what a cache holds
HUES = np.array([0.0, 0.08, 0.15, 0.3, 0.47, 0.61, 0.77, 0.93])  # of the values of the attribute colour


def images(mall: Mall, *, shop: Catalogue, items: np.ndarray, side: int = SIDE) -> np.ndarray:
    """[n, side, side, 3] uint8; an item's picture depends on nothing but the item."""
    items = np.asarray(items)
    out = np.empty((len(items), side, side, 3), np.uint8)
    for start in range(0, len(items), BLOCK):
        out[start : start + BLOCK] = _render(mall, shop=shop, items=items[start : start + BLOCK], side=side)
    return out


def _render(mall: Mall, *, shop: Catalogue, items: np.ndarray, side: int) -> np.ndarray:
    spu = shop.spu[items]
    jitter = normals(mall.seed, name="image", ids=items, draws=4).astype(np.float32)
    line = np.linspace(-1.0, 1.0, side, dtype=np.float32)
    y, x = line[None, :, None], line[None, None, :]
    dx, dy = 0.1 * jitter[:, 0, None, None], 0.1 * jitter[:, 1, None, None]
    scale = (0.62 + 0.05 * jitter[:, 2])[:, None, None]
    u, v = (x - dx) / scale, (y - dy) / scale
    inside = _shape(u, v, leaf=shop.leaf[items], top=shop.leaf_top[shop.leaf[items]])
    body = _paint(shop, spu=spu, u=u, v=v)
    canvas = wall(mall, shop=shop, items=items, x=x, y=y)
    canvas = np.where(inside[..., None], body, canvas)
    canvas = _mark(mall, shop=shop, spu=spu, canvas=canvas)
    canvas = _clutter(mall, shop=shop, items=items, canvas=canvas)
    light = 1.0 + 0.06 * jitter[:, 3, None, None, None]
    return np.clip(canvas * light * np.float32(255.0), 0, 255).astype(np.uint8)


def _shape(u: np.ndarray, v: np.ndarray, *, leaf: np.ndarray, top: np.ndarray) -> np.ndarray:
    """The family is the department's, the proportions are the leaf's."""
    kind = (top % SHAPES)[:, None, None]
    wide = (0.65 + 0.35 * ((leaf * 7) % 5) / 4.0).astype(np.float32)[:, None, None]
    cut = ((leaf * 3) % 4)[:, None, None]
    u = u / wide
    r = np.sqrt(u * u + v * v)
    angle = np.arctan2(v, u)
    shapes = [
        r < 0.95,
        (np.abs(u) < 0.85) & (np.abs(v) < 0.85),
        (v > -0.9) & (v < 0.9) & (np.abs(u) < 0.15 + 0.42 * (v + 0.9)),
        (np.abs(u) < np.where(v < -0.25, 0.28, 0.7)) & (np.abs(v) < 0.95),
        (r < 0.95) & (r > 0.5),
        r < 0.62 + 0.3 * np.cos(5 * angle),
        (np.abs(u) < 0.3) & (np.abs(v) < 0.95) | (np.abs(v) < 0.3) & (np.abs(u) < 0.95),
        (np.abs(u) + np.abs(v)) < 1.0,
    ]
    inside = np.select([kind == k for k in range(SHAPES)], shapes)
    hole = np.select(
        [cut == 1, cut == 2, cut == 3],
        [(np.abs(v) < 0.1) & (np.abs(u) < 0.35), r < 0.22, (v > 0.45) & (np.abs(u) < 0.12)],
        False,
    )
    return inside & ~hole


def _paint(shop: Catalogue, *, spu: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Colour and texture are the attributes', ink and trim the theme's; style and appeal shade them."""
    style = shop.spu_style[spu]
    attributes = shop.spu_attributes[spu]
    hue = (HUES[attributes[:, 0]] + 0.015 * np.tanh(2.0 * style[:, 6])) % 1.0
    pale = np.where(attributes[:, 0] == 7, 0.5, 0.8)  # pink is a pale red
    colour = _hsv(hue, pale + 0.15 * np.tanh(2.0 * style[:, 7]), 0.75 + 0.15 * np.tanh(shop.spu_appeal[spu]))
    theme = shop.spu_theme[spu] / THEMES + 0.04
    ink_colour = _hsv((theme + 0.03 * np.tanh(style[:, 9])) % 1.0, np.full(len(spu), 0.45), np.full(len(spu), 0.98))
    trim_colour = _hsv(theme, np.full(len(spu), 0.95), np.full(len(spu), 0.55))
    freq = (4.0 + 1.5 * np.tanh(2.0 * style[:, 8]))[:, None, None]
    pattern = attributes[:, 1, None, None]
    stripes = np.sin(freq * np.pi * (u + 0.35 * v)) > 0.2
    checks = (np.sin(freq * np.pi * u) * np.sin(freq * np.pi * v)) > 0
    dots = (np.sin(freq * np.pi * u) > 0.3) & (np.sin(freq * np.pi * v) > 0.3)
    ink = np.select([pattern == 1, pattern == 2, pattern == 3], [stripes, checks, dots], False)
    trim = (v > 0.42) & (v < 0.66)
    shade = (1.0 - 0.18 * (u * 0.7 + v))[..., None]
    body = np.where(ink[..., None], ink_colour[:, None, None], colour[:, None, None])
    return np.where(trim[..., None], trim_colour[:, None, None], body) * shade


def wall(mall: Mall, *, shop: Catalogue, items: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A seller photographs everything before the same wall."""
    paint = uniforms(mall.seed, name="wall", ids=shop.seller[items], draws=5).astype(np.float32)
    base = 0.78 + 0.2 * paint[:, :3]
    slope = (0.12 * (paint[:, 3, None, None] - 0.5) * x + 0.12 * (paint[:, 4, None, None] - 0.5) * y)[..., None]
    return base[:, None, None, :] + slope


def _mark(mall: Mall, *, shop: Catalogue, spu: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    """A 3 by 3 glyph of the brand in the lower right corner."""
    side = canvas.shape[1]
    cell = max(1, side // 16)
    glyph = uniforms(mall.seed, name="glyph", ids=shop.spu_brand[spu], draws=12).astype(np.float32)
    bits = np.kron(glyph[:, :9].reshape(-1, 3, 3) > 0.45, np.ones((cell, cell), bool))
    ink = 0.15 + 0.4 * glyph[:, 9:]
    corner = slice(side - 3 * cell - 1, side - 1)
    canvas[:, corner, corner] = np.where(bits[..., None], ink[:, None, None], canvas[:, corner, corner])
    return canvas


def _clutter(mall: Mall, *, shop: Catalogue, items: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    """Badges and banners; some sellers never stop."""
    side = canvas.shape[1]
    habit = uniforms(mall.seed, name="clutter habit", ids=shop.seller[items], draws=1)[:, 0]
    draws = uniforms(mall.seed, name="clutter", ids=items, draws=16).astype(np.float32).reshape(-1, 2, 8)
    row, column = (
        (np.arange(side, dtype=np.float32) / side)[None, :, None],
        (np.arange(side, dtype=np.float32) / side)[None, None],
    )
    for k in range(2):
        d = draws[:, k, :, None, None]
        on = d[:, 0] < mall.views.clutter * habit[:, None, None] ** 2
        badge = (np.abs(column - d[:, 1]) < 0.05 + 0.09 * d[:, 3]) & (
            np.abs(row - 0.12 * d[:, 2]) < 0.06 + 0.05 * d[:, 4]
        )
        canvas = np.where((on & badge)[..., None], draws[:, k, None, None, 5:], canvas)
    return canvas


def _hsv(h: np.ndarray, s: np.ndarray, v: np.ndarray) -> np.ndarray:
    k = (np.array([5.0, 3.0, 1.0])[None, :] + h[:, None] * 6.0) % 6.0
    return (v[:, None] * (1.0 - s[:, None] * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0))).astype(np.float32)
