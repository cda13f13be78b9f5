"""Moving pictures: short videos with distractor frames, and live streams with noise."""

import numpy as np

from data.mall.config import Mall
from data.mall.latents import Catalogue
from data.mall.rng import normals, uniforms
from data.mall.views.image import SIDE, images, wall

FRAMES = 8


def videos(
    mall: Mall, *, shop: Catalogue, items: np.ndarray, frames: int = FRAMES, side: int = SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """[n, frames, side, side, 3] uint8 and whether the product is in the frame [n, frames].

    The camera pans and zooms; a distractor frame shows the maker's studio or another of the catalogue's products.
    """
    items = np.asarray(items)
    u = uniforms(mall.seed, name="video", ids=items, draws=2 * frames + 4)
    visible = u[:, :frames] >= mall.views.distractors
    visible[np.arange(len(items)), (u[:, frames] * frames).astype(np.int64)] = True  # at least once
    clean = images(mall, shop=shop, items=items, side=side)
    other = (u[:, frames + 1] * len(shop)).astype(np.int64)
    stranger = images(mall, shop=shop, items=other, side=side)
    studio = _studio(mall, shop=shop, items=items, side=side)
    out = np.empty((len(items), frames, side, side, 3), np.uint8)
    turn = 2.0 * np.pi * u[:, frames + 2]
    for f in range(frames):
        phase = turn + 2.0 * np.pi * f / frames
        shift = np.round(np.stack([np.cos(phase), np.sin(phase)], -1) * side / 10).astype(np.int64)
        zoom = 1.0 + 0.25 * np.sin(phase)
        shown = _pan(clean, shift=shift, zoom=zoom)
        empty = np.where(
            (u[:, frames + 4 + f] < 0.5)[:, None, None, None], studio, _pan(stranger, shift=-shift, zoom=zoom)
        )
        out[:, f] = np.where(visible[:, f, None, None, None], shown, empty)
    return out, visible


def lives(
    mall: Mall, *, shop: Catalogue, items: np.ndarray, frames: int = FRAMES, side: int = SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """As `videos`, from a live stream: small in a dim room, noisy, with the host's banner over a corner."""
    items = np.asarray(items)
    u = uniforms(mall.seed, name="live", ids=items, draws=frames + 4)
    visible = u[:, :frames] >= mall.views.distractors
    visible[np.arange(len(items)), (u[:, frames] * frames).astype(np.int64)] = True
    clean = images(mall, shop=shop, items=items, side=side)
    room = _studio(mall, shop=shop, items=items, side=side)
    out = np.empty((len(items), frames, side, side, 3), np.uint8)
    dim = 0.6 + 0.3 * u[:, frames + 1, None, None, None]
    banner = (255 * uniforms(mall.seed, name="banner", ids=shop.seller[items], draws=3)).astype(np.uint8)
    for f in range(frames):
        shift = np.round((uniforms(mall.seed, name=f"hand {f}", ids=items, draws=2) - 0.5) * side / 3).astype(np.int64)
        held = _pan(clean, shift=shift, zoom=np.full(len(items), 1.5))
        frame = np.where(visible[:, f, None, None, None], held, room).astype(np.float32) * dim
        noise = normals(mall.seed, name=f"grain {f}", ids=items, draws=side * side).reshape(-1, side, side, 1)
        frame += (255.0 * mall.views.live_noise) * noise
        out[:, f] = np.clip(frame, 0, 255).astype(np.uint8)
        out[:, f, : side // 6, : side // 2] = banner[:, None, None, :]
    return out, visible


def _pan(pictures: np.ndarray, *, shift: np.ndarray, zoom: np.ndarray) -> np.ndarray:
    """Each picture moved by its shift and made smaller by its zoom; beyond the edge the edge repeats."""
    side = pictures.shape[1]
    line = np.arange(side)[None, :] - side / 2 + 0.5
    place = line * zoom[:, None] + side / 2 - 0.5
    y = np.clip(np.round(place - shift[:, :1]), 0, side - 1).astype(np.int64)
    x = np.clip(np.round(place - shift[:, 1:]), 0, side - 1).astype(np.int64)
    return pictures[np.arange(len(pictures))[:, None, None], y[:, :, None], x[:, None, :]]


def _studio(mall: Mall, *, shop: Catalogue, items: np.ndarray, side: int) -> np.ndarray:
    """The seller's room: the wall of the page images, a table, and a host."""
    line = np.linspace(-1.0, 1.0, side)
    y, x = line[None, :, None], line[None, None, :]
    room = wall(mall, shop=shop, items=items, x=x, y=y).astype(np.float32)
    u = uniforms(mall.seed, name="host", ids=shop.seller[items], draws=7)
    at = (u[:, 0, None, None] - 0.5) * 1.2
    head = (x - at) ** 2 + (y + 0.35) ** 2 < 0.07
    coat = (np.abs(x - at) < 0.4) & (y > -0.05)
    room = np.where(coat[..., None], u[:, None, None, 1:4], room)
    room = np.where(head[..., None], np.array([0.85, 0.65, 0.5]) * (0.6 + 0.4 * u[:, 4, None, None, None]), room)
    room = np.where((y > 0.6)[..., None], np.array([0.45, 0.3, 0.2]), room)
    return np.clip(room * 255.0, 0, 255).astype(np.uint8)
