"""Features of every kind and small random batches, for the tests of click towers."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data.features import Categorical, Dense, Feature, Features, Label, MultiHot, Numeric, Sequence, Text

LENGTH = 4
USER = Categorical(name="user", role="user", rows=9)
ITEM = Categorical(name="item", role="item", rows=11)
CATEGORY = Categorical(name="category", role="item", rows=5)
HISTORY = Sequence(name="history", role="user", of=Categorical(name="h", rows=11, share="item"), length=LENGTH)
HISTORY_CATEGORY = Sequence(
    name="history_category", role="user", of=Categorical(name="c", rows=5, share="category"), length=LENGTH
)
CONTENT = Dense(name="content", role="item", dim=3)
HISTORY_CONTENT = Sequence(name="history_content", role="user", of=Dense(name="content", dim=3), length=LENGTH)
PRICE = Numeric(name="price", role="item")
TAGS = MultiHot(name="tags", role="item", of=Categorical(name="tag", rows=7), length=3)
AGES = Sequence(name="ages", role="user", of=Numeric(name="age"), length=LENGTH)
TITLE = Text(name="title", role="item", tokens=6, length=3)
CLICK = Label(name="click")

EVERY_KIND = (USER, ITEM, CATEGORY, HISTORY, HISTORY_CATEGORY, CONTENT, HISTORY_CONTENT, PRICE, TAGS, AGES, TITLE)


def features(*inputs: Feature) -> Features:
    return Features(all=(*(inputs or EVERY_KIND), CLICK))


def batch_of(features: Features, *, rows: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    """Row 0 has empty sequences, row 1 full ones."""
    rng = np.random.default_rng(seed)
    batch: dict[str, np.ndarray] = {}
    for f in features.all:
        if f.kind == "label":
            batch[f.name] = (rng.random(rows) < 0.5).astype(np.float32)
        elif f.size:
            batch[f.name] = rng.integers(0, f.size, (rows, *f.shape)).astype(np.int32)
        else:
            batch[f.name] = rng.normal(size=(rows, *f.shape)).astype(np.float32)
    for f in features.all:
        if f.max_len:
            length = rng.integers(1, f.max_len + 1, rows).astype(np.int32)
            length[:2] = (0, f.max_len)
            batch[f"{f.name}/length"] = length
    # One list of behaviours has one length.
    histories = [f.name for f in features.all if f.kind == "sequence"]
    for name in histories[1:]:
        batch[f"{name}/length"] = batch[f"{histories[0]}/length"]
    return batch


def on_device(batch: dict[str, np.ndarray]) -> dict:
    return {name: jnp.asarray(column) for name, column in batch.items()}


def logit(model: nnx.Module, batch: dict[str, np.ndarray], *, train: bool = False) -> np.ndarray:
    """The jitted logit, as the train step compiles it."""
    graph, state = nnx.split(model)

    def run(state, batch):
        return nnx.merge(graph, state)(batch, rngs=nnx.Rngs(0) if train else None)["logit"]

    return np.asarray(jax.jit(run)(state, on_device(batch)))


def repadded(batch: dict[str, np.ndarray], features: Features) -> dict[str, np.ndarray]:
    """The same batch with other values beyond the lengths."""
    out = dict(batch)
    for f in features.all:
        if f.max_len:
            beyond = np.arange(f.max_len)[None, :] >= batch[f"{f.name}/length"][:, None]
            beyond = beyond.reshape(beyond.shape + (1,) * (batch[f.name].ndim - 2))
            other = batch[f.name] + 1 if not f.size else (batch[f.name] + 1) % f.size
            out[f.name] = np.where(beyond, other, batch[f.name]).astype(batch[f.name].dtype)
    return out


def float64(variable) -> np.ndarray:
    return np.asarray(variable[...], np.float64)


def dense(x: np.ndarray, linear) -> np.ndarray:
    """A linear layer in numpy."""
    return x @ float64(linear.kernel) + (float64(linear.bias) if linear.bias is not None else 0)


def tower(x: np.ndarray, mlp) -> np.ndarray:
    """A ReLU tower without norm in numpy."""
    for block in mlp.hidden:
        x = np.maximum(dense(x, block.linear), 0)
    return dense(x, mlp.out) if mlp.out is not None else x


def plain_vectors(embed, batch: dict[str, np.ndarray], features: Features) -> dict[str, np.ndarray]:
    """Field by field, row by row, what `FeatureEmbedding` computes in one gather: [b, d] or [b, t, d]."""
    first: dict[tuple[int, str], int] = {}
    used: dict[int, int] = {}
    numerics: dict[str, int] = {}
    out = {}
    for f in features:
        width = embed.slot(f.name).width
        if f.size:
            if (width, f.table) not in first:
                first[width, f.table] = used.get(width, 0)
                used[width] = first[width, f.table] + f.size
            x = float64(getattr(embed, f"table_{width}"))[first[width, f.table] + batch[f.name]]
        elif f.kind == "dense" or len(f.shape) == 2:
            x = dense(batch[f.name].astype(np.float64), embed.dense[f.table])
        else:
            vectors = float64(getattr(embed, f"numeric_{width}"))
            x = batch[f.name][..., None] * vectors[numerics.setdefault(f.table, len(numerics))]
        if f.max_len:
            for row, length in enumerate(batch[f"{f.name}/length"]):
                x[row, length:] = 0
            if f.kind != "sequence":
                x = x.sum(1) / np.maximum(batch[f"{f.name}/length"], 1)[:, None]
        out[f.name] = x
    return out


def plain_fields(embed, batch: dict[str, np.ndarray], features: Features) -> dict[str, np.ndarray]:
    """As `plain_vectors`, with sequences averaged."""
    return {
        name: x.sum(1) / np.maximum(batch[f"{name}/length"], 1)[:, None] if x.ndim == 3 else x
        for name, x in plain_vectors(embed, batch, features).items()
    }
