"""The mall's products as pages, short videos and live streams: what COPE learns one space from.

A row is a product (SPU) with one page, one video and one live stream of it, each of a listing drawn for that row.
Splits are by product: "train" has 80 percent of them, "valid" and "test" 10 percent each that no training row shows.
"seen" are as many products of the training split, by a listing that training rows leave out where there are two.
"""

from functools import lru_cache
from typing import Literal

import chz
import numpy as np

from data.features import FIRST, UNKNOWN, Categorical, Features, Image, Label, Sequence, Text
from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.latents import ATTRIBUTES
from data.mall.rng import uniforms
from data.mall.views.features import view_columns, view_features
from data.mall.views.image import SIDE
from data.mall.views.speech import LENGTH, speech
from data.mall.views.video import lives, videos
from data.mall.views.words import lexicon
from data.sources import InMemory, Rows, SourceConfig
from data.speech import KeepCatalogue, SpeechCleaner
from data.transforms.frames import centres

TripleSplit = Literal["train", "seen", "valid", "test"]
Clip = Literal["video", "live"]
CLIPS: tuple[Clip, ...] = ("video", "live")
CLEANED = 16  # words of a cleaned text that are kept
BLOCK = 256  # listings rendered at once
DESCRIBING = ("leaf", "mid", "top", "brand", "quality", "theme", "price", "key", *ATTRIBUTES)


@chz.chz
class MallTriples(SourceConfig):
    mall: Mall = chz.field(default_factory=Mall)
    split: TripleSplit = "train"
    frames: int = chz.field(default=4, doc="of each clip, at the centres of equal parts")
    draws: int = chz.field(default=4, doc="training rows of a product in one pass, each drawn anew")
    asr: Literal["none", "raw", "clean"] = chz.field(
        default="none", doc="recognised speech of videos and live streams, beside their frames"
    )
    cleaner: SpeechCleaner = chz.field(default_factory=KeepCatalogue, blueprint_unspecified=KeepCatalogue)
    silent: float = chz.field(default=0.1, doc="share of clips in which nobody speaks")

    def make(self) -> "Triples":
        return Triples(self)


class Triples:
    def __init__(self, config: MallTriples):
        self.config, mall = config, config.mall
        declared: tuple = view_features(mall, views=("image", "title"))
        declared += tuple(_clip(kind, frames=config.frames) for kind in CLIPS)
        if config.asr != "none":
            tokens, length = lexicon(mall).tokens, CLEANED if config.asr == "clean" else LENGTH
            declared += tuple(Text(name=f"{kind}_text", role="item", tokens=tokens, length=length) for kind in CLIPS)
        self.features = Features(all=(*declared, Label(name="spu", type="class")))
        self._spu, self._listings = _rows(config)

    def __len__(self) -> int:
        return len(self._spu)

    def __getitem__(self, index: int) -> Rows:
        return {name: column[0] for name, column in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        config, mall = self.config, self.config.mall
        listings = self._listings[indices]
        rows = view_columns(mall, shop=shop_of(mall), items=listings[:, 0], views=("image", "title"))
        for kind, items in zip(CLIPS, listings.T[1:], strict=True):
            rows[kind] = _clips(mall, kind=kind, frames=config.frames)[items]
            rows[f"{kind}/length"] = np.full(len(items), config.frames, np.int32)
            if config.asr != "none":
                cleaner = config.cleaner if config.asr == "clean" else None
                said, count = _texts(mall, kind=kind, cleaner=cleaner, silent=config.silent)
                rows[f"{kind}_text"], rows[f"{kind}_text/length"] = said[items], count[items]
        return {**rows, "spu": self._spu[indices].astype(np.int32)}


@chz.chz
class MallVideos(SourceConfig):
    """The video of every listing once, in order of its id, with as many frames as `MallTriples` has."""

    mall: Mall = chz.field(default_factory=Mall)
    frames: int = 4

    def make(self) -> InMemory:
        items = FIRST + np.arange(self.mall.n_items)
        item = Categorical(name="item", role="item", rows=FIRST + self.mall.n_items)
        columns = {
            "item": items,
            "video": _clips(self.mall, kind="video", frames=self.frames),
            "video/length": np.full(len(items), self.frames),
        }
        return InMemory(columns, features=Features(all=(item, _clip("video", frames=self.frames))))


def _clip(kind: Clip, *, frames: int) -> Sequence:
    frame = Image(name="frame", role="item", height=SIDE, width=SIDE)
    return Sequence(name=kind, role="item", of=frame, length=frames)


def _rows(config: MallTriples) -> tuple[np.ndarray, np.ndarray]:
    """Product of each row, and its listings for page, video and live stream."""
    shop, seed = shop_of(config.mall), config.mall.seed
    products = np.arange(len(shop.spu_leaf))
    u = uniforms(seed, name="pair split", ids=products, draws=1)[:, 0]  # as `MallPairs` splits
    low, high = {"train": (0.0, 0.8), "seen": (0.0, 0.1), "valid": (0.8, 0.9), "test": (0.9, 1.0)}[config.split]
    luck = uniforms(seed, name="triple listing", ids=np.arange(len(shop)), draws=1)[:, 0]
    order = np.lexsort((luck, shop.spu))
    start = np.searchsorted(shop.spu[order], products)
    count = np.bincount(shop.spu, minlength=len(products))
    if config.split == "train":
        count = count - ((u < 0.1) & (count > 1))  # the last listing is for "seen"
        chosen = np.tile(products[(u >= low) & (u < high)], config.draws)
        draw = uniforms(seed, name="triples", ids=np.arange(len(chosen)), draws=3)
        place = (draw * count[chosen][:, None]).astype(np.int64)
    else:
        # Of products with several listings alone, and of one listing, so that all three are alike in difficulty.
        chosen = products[(u >= low) & (u < high) & (count > 1)]
        place = np.repeat(count[chosen][:, None] - 1, 3, axis=1)
    return chosen, order[start[chosen][:, None] + place]


@lru_cache(maxsize=4)
def _clips(mall: Mall, *, kind: Clip, frames: int) -> np.ndarray:
    """Of all listings: drawing a batch takes longer than a small model's step."""
    shop = shop_of(mall)
    render = videos if kind == "video" else lives
    parts = []
    for start in range(0, len(shop), BLOCK):
        items = np.arange(start, min(start + BLOCK, len(shop)))
        whole, _ = render(mall, shop=shop, items=items)
        parts.append(whole[:, centres(np.array([whole.shape[1]]), count=frames)[0]])
    return np.concatenate(parts)


@lru_cache(maxsize=8)
def _texts(mall: Mall, *, kind: Clip, cleaner: SpeechCleaner | None, silent: float) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and lengths of what is said in the clips of all listings, as recognised or as cleaned."""
    shop, words = shop_of(mall), lexicon(mall)
    items = np.arange(len(shop))
    tokens = speech(mall, shop=shop, items=items, occasion="" if kind == "live" else f"{kind} ")[0]
    tokens[uniforms(mall.seed, name=f"silent {kind}", ids=items, draws=1)[:, 0] < silent] = 0
    if cleaner is None:
        return tokens, (tokens > 0).sum(1).astype(np.int32)
    number = {word: token for token, word in reversed(list(enumerate(words.strings))) if token >= FIRST}
    every = np.arange(words.tokens)
    describing = np.logical_or.reduce([words.means(every, kind=name) >= 0 for name in DESCRIBING])
    catalogue = [words.strings[token] for token in np.flatnonzero(describing)]
    texts = cleaner.clean([words.text(row) for row in tokens], catalogue=catalogue)
    out = np.zeros((len(texts), CLEANED), np.int32)
    for row, text in zip(out, texts, strict=True):
        ids = [number.get(word, UNKNOWN) for word in text.split()][:CLEANED]
        row[: len(ids)] = ids
    return out, (out > 0).sum(1).astype(np.int32)
