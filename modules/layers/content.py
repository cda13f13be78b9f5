"""Pretrained vectors (pictures, titles, ...) as fields of a tower, and as histories."""

import math
from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from modules.base import Batch, FeatureSpec
from modules.layers.linear import Linear
from modules.layers.mlp import MLP
from modules.layers.rows import take_rows

UNKNOWN = 1
ROW_MULTIPLE = 8  # as in the embedding's tables: the rows shard over a model axis


@chz.chz
class Content:
    """How the vectors of a feature or table enter: as they are, projected, or fine-tuned."""

    mode: Literal["frozen", "adapted", "tuned"] = chz.field(
        default="adapted",
        doc="frozen: as they are, in their own width; adapted: through a linear layer; "
        "tuned: plus a learned residual for each id, zero at the start, through a small tower",
    )
    bias: bool = chz.field(default=True, doc="of the linear layer of adapted")
    hidden: tuple[int, ...] = chz.field(default=(64,), doc="hidden layers of the tower of tuned")
    ids: str = chz.field(default="item", doc="table whose ids own the residuals of tuned")

    def width(self, f: FeatureSpec, *, asked: int | None, dim: int) -> int:
        """Of the field: as asked, `dim` if nothing is, and the vectors' own where they are frozen."""
        if self.mode != "frozen":
            return asked or dim
        if asked not in (None, f.shape[-1]):
            raise ValueError(
                f"widths[{f.table!r}] is {asked}, but frozen vectors keep their width {f.shape[-1]}; adapt them instead"
            )
        return f.shape[-1]


class Frozen(nnx.Module):
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return x


class Tuned(nnx.Module):
    """MLP(x + r_id): the vectors themselves learn, a row at a time, from where pretraining left them."""

    def __init__(self, content: Content, *, size: int, width: int, ids: dict[str, FeatureSpec], rngs: nnx.Rngs):
        self.ids = {name: f.name for name, f in ids.items()}
        self.rows = next(iter(ids.values())).size
        self.table = nnx.Param(jnp.zeros((math.ceil(self.rows / ROW_MULTIPLE) * ROW_MULTIPLE, size)))
        self.mlp = MLP(widths=content.hidden).make(size, outputs=width, rngs=rngs)

    def __call__(self, x: Float[Array, "*b d"], *, ids: Int[Array, "*b"]) -> Float[Array, "*b e"]:
        ids = jnp.where((ids >= 0) & (ids < self.rows), ids, UNKNOWN)
        return self.mlp(x + take_rows(self.table, ids).astype(x.dtype))


def content_layer(
    content: Content, *, table: str, features: list[FeatureSpec], width: int, rngs: nnx.Rngs
) -> Frozen | Linear | Tuned:
    """The layer of all dense features of one table."""
    own = [f for f in features if f.table == table]
    size = own[0].shape[-1]
    if content.mode == "frozen":
        return Frozen()
    if content.mode == "adapted":
        init = nnx.initializers.xavier_normal()
        return Linear(size, width, use_bias=content.bias, kernel_init=init, rngs=rngs)
    ids = {f.name: _ids_of(f, table=content.ids, features=features) for f in own}
    return Tuned(content, size=size, width=width, ids=ids, rngs=rngs)


def project(layer: nnx.Module, *, batch: Batch, name: str, size: int) -> jax.Array:
    """The vectors of feature `name`, which the model was made for as vectors of `size`."""
    x = batch[name]
    if x.shape[-1] != size:
        raise ValueError(
            f"{name!r} holds vectors of {x.shape[-1]}, but this model's features were made with vectors of {size}; "
            "embed the items with the encoder of its training"
        )
    return layer(x, ids=batch[layer.ids[name]]) if isinstance(layer, Tuned) else layer(x)


def _ids_of(f: FeatureSpec, *, table: str, features: list[FeatureSpec]) -> FeatureSpec:
    """The feature that says whose vectors those of `f` are: of the same form, length and role."""
    for other in features:
        if other.size and other.table == table and other.max_len == f.max_len and other.role == f.role:
            return other
    form = f"sequence of length {f.max_len}" if f.max_len else "single id"
    raise ValueError(
        f"content of {f.name!r} is tuned by the ids of table {table!r}, but no {form} of role {f.role!r} has them; "
        "name another in Content.ids, or adapt the vectors instead"
    )
