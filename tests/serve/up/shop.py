"""A funnel made by hand, in seconds: a dozen items of four colours, whose pictures and words say which colour."""

import io

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from PIL import Image as Pillow
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from data.features import Features, Image, Text
from serve.decide.auction import Auction
from serve.decide.rules import Cap, Decide
from serve.features.arrow_store import build as store
from serve.funnel_build import build_funnel
from serve.funnel_config import ByContent, ByItem, ByList, Display, FunnelConfig, Merge
from serve.index.attributes import Attributes
from serve.index.build import build, build_live
from serve.pack import pack
from tests.serve.up.conftest import export
from train.snapshot import dump

WORDS = ("", "?", "red", "green", "blue", "grey")
COLOURS = {"red": (220, 30, 30), "green": (20, 180, 40), "blue": (30, 60, 220), "grey": (110, 110, 110)}
IDS = list(range(2, 14))
NAMES = [list(COLOURS)[n % 4] for n in range(len(IDS))]
BARE = 5
"""The item that has no picture."""
ODD = 6
"""The one whose title is not to be taken for HTML."""
USERS = [{"history": [3, 7], "age": 0.5}, {"history": [2], "age": -1.0}]


def png(colour, *, side=8):
    file = io.BytesIO()
    Pillow.new("RGB", (side, side), colour).save(file, format="PNG")
    return file.getvalue()


def vector(colour):
    return [*(np.array(colour) / 255.0), 0.1]


def items():
    return pa.table(
        {
            "item": IDS,
            "price": [1.0 + 0.5 * n for n in range(len(IDS))],
            "kind": [f"kind {n % 3}" for n in range(len(IDS))],
            "seller": [n % 2 for n in range(len(IDS))],
            "bid": [1.0 + 3.0 * (n % 3) for n in range(len(IDS))],
        }
    )


def shown():
    titles = [f"{name} thing {id}" for name, id in zip(NAMES, IDS, strict=True)]
    titles[IDS.index(ODD)] = "<img src=x onerror=alert(1)>"
    pictures = [None if id == BARE else png(COLOURS[name]) for name, id in zip(NAMES, IDS, strict=True)]
    return pa.table({"item": IDS, "title": titles, "image": pa.array(pictures, pa.binary())})


TEXT = Text(name="title", role="item", tokens=len(WORDS), length=4)
PICTURE = Image(name="image", role="item", height=4, width=4)


def content_towers(folder, *, text=TEXT, picture=PICTURE, model="m"):
    """Words and pictures to the colour that they mean."""
    rows = np.zeros((len(WORDS), 4), np.float32)
    rows[2:] = [vector(c) for c in COLOURS.values()]

    def words(weights, batch):
        length = batch["title/length"][:, None]
        held = jnp.arange(4)[None, :] < length
        total = jnp.sum(weights["rows"][batch["title"]] * held[:, :, None], 1)
        return {"vector": total / jnp.maximum(length, 1)}

    def looks(weights, batch):
        mean = jnp.mean(batch["image"].astype(jnp.float32) / 255.0, (1, 2))
        return {"vector": jnp.concatenate([mean, weights["last"][None, :] + 0.0 * mean[:, :1]], 1)}

    pixels = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3))
    sample = {"title": np.full((16, 4), 2), "title/length": np.arange(16) % 5, "image": pixels}
    for name, feature, function, weights in (
        ("text", text, words, {"rows": rows}),
        ("picture", picture, looks, {"last": np.array([0.1], np.float32)}),
    ):
        features = Features(all=(feature,))
        pack(
            folder / name,
            function=function,
            weights=weights,
            inputs=features.arrays(inputs_only=True),
            rows={"title": len(WORDS)} if name == "text" else {},
            sample={n: sample[n] for n in features.arrays()},
            step=1,
            about={"model": "tests:Colours", "features": dump(features), "vectors": {"model": model, "outputs": []}},
            platforms=("cpu",),
        )


def tokenizer(path):
    made = Tokenizer(models.WordLevel(vocab={w: n for n, w in enumerate(WORDS)}, unk_token="?"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.save(str(path))


def make(folder, *, examples=USERS, changes=None, live=False):
    """The folder of the funnel."""
    folder.mkdir(parents=True, exist_ok=True)
    content_towers(folder)
    tokenizer(folder / "words.json")
    export(folder / "ranker")
    table = items()
    attributes = Attributes.of_table(table.select(["price", "kind"]))
    vectors = np.array([vector(COLOURS[name]) for name in NAMES], np.float32)
    index = (build_live if live else build)(vectors, ids=IDS, metric="cosine", model="m", attributes=attributes)
    index.save(folder / "index")
    store(table, id="item", output=folder / "features")
    store(shown(), id="item", output=folder / "shown")
    store(pa.table({"id": IDS, "vector": vectors.tolist()}), id="id", output=folder / "vectors")
    store(pa.table({"key": ["all"], "items": [IDS[::-1]]}), id="key", output=folder / "lists")
    config = {
        "channels": {
            "popular": ByList(lists=str(folder / "lists"), default="all", quota=9),
            "looks": ByItem(index=str(folder / "index"), vectors=str(folder / "vectors"), quota=8),
            "search": ByContent(
                index=str(folder / "index"),
                text=str(folder / "text"),
                picture=str(folder / "picture"),
                tokenizer=str(folder / "words.json"),
                quota=6,
            ),
        },
        "ranker": str(folder / "ranker"),
        "features": str(folder / "features"),
        "merge": Merge(limit=11),
        "decide": Decide(caps=(Cap(by="seller", most=3),), auction=Auction(bid="bid", reserve=0.0)),
        "display": Display(
            store=str(folder / "shown"),
            title="title",
            image="image",
            columns=("kind", "price"),
            filters=("kind", "price"),
        ),
        "k": 5,
    }
    build_funnel(FunnelConfig(**{**config, **(changes or {})}), output=folder / "funnel", examples=examples)
    return folder / "funnel"
