"""eSSPR: a product's picture, its words, and both together as three vectors of one space.

Chen et al., "Unified Vision-Language Representation Modeling for E-Commerce Same-Style Products Retrieval", WWW 2023
(industry track). The losses are the authors'; their encoder is not public. Here one transformer reads [CLS], the
patches of the picture and the tokens of the title, or only one of the two, with the same weights: the class token's
vector is i (picture), t (words) or m (both). So a search by any of them finds products by any of them.
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.encoders.vision import to_unit
from modules.layers.attention import visible
from modules.layers.linear import Linear
from modules.layers.patches import PatchEmbedding
from modules.layers.positions import Positions
from modules.layers.similarity import unit
from modules.layers.tokens import TokenEmbedding
from modules.layers.transformer import Transformer

MODALITIES = ("image", "text", "both")

Part = tuple[Float[Array, "b n d"], Bool[Array, "b n"]]
"""Embedded positions, and those that hold something."""


@chz.chz
class Esspr(ModelConfig):
    """Outputs "image", "text" and "both" of the product at hand, and under `offer` + the same names those of the one
    beside it, each with "<name>/known" [b]. What has no picture (nothing but zeros) or no words is zero there, and in
    "both" it is what the other part says of it."""

    dim: int = chz.field(default=64, doc="of the shared space")
    width: int = chz.field(default=64, doc="of the transformer")
    depth: int = 2
    heads: int = 4
    patch: int = 8
    dropout: float = 0.0
    image: str = chz.field(default="image", doc="feature with the picture")
    title: str = chz.field(default="title", doc="feature with the words")
    offer: str = chz.field(default="offer_", doc="before the names of the same features of the other product")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "EssprModel":
        return EssprModel(self, features=features, rngs=rngs)


class EssprModel(Model):
    def __init__(self, config: Esspr, *, features: Features, rngs: nnx.Rngs):
        image, title = features[config.image], features[config.title]
        if image.kind != "image" or title.kind != "text":
            raise ValueError(f"Esspr needs a picture and a text; got {image.kind} and {title.kind}")
        self.names = (config.image, config.title)
        self.prefixes = ("", config.offer)
        width = config.width
        self.patches = PatchEmbedding(image.shape, size=config.patch, dim=width, rngs=rngs)
        self.tokens = TokenEmbedding(title.size, dim=width, rngs=rngs)
        self.positions = Positions(title.max_len, dim=width, rngs=rngs)
        vectors = nnx.initializers.normal(0.02)
        self.cls = nnx.Param(vectors(rngs.params(), (1, width)))
        self.kinds = nnx.Param(vectors(rngs.params(), (2, width)))
        self.transformer = Transformer(width, depth=config.depth, heads=config.heads, dropout=config.dropout, rngs=rngs)
        self.head = Linear(width, config.dim, use_bias=False, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        inputs = {p + name: part for p in self.prefixes for name, part in self._parts(batch, prefix=p).items()}
        if len({where.shape[1] for _, where in inputs.values()}) > 1:
            raise ValueError(
                "one side of the pair has a part that the other lacks: give both a picture, words, or both"
            )
        rows, known = next(iter(batch.values())).shape[0], {n: where.any(axis=1) for n, (_, where) in inputs.items()}
        positions, masks = zip(*inputs.values(), strict=True)
        vectors = self._vectors(jnp.concatenate(positions), jnp.concatenate(masks), rngs=rngs)
        of_name = zip(inputs, vectors.reshape(-1, rows, vectors.shape[1]), strict=True)
        outputs = {name: jnp.where(known[name][:, None], x, 0) for name, x in of_name}
        return outputs | {f"{name}/known": there for name, there in known.items()}

    def _parts(self, batch: Batch, *, prefix: str) -> dict[str, Part]:
        """The same positions under three names, of which only the picture's, the words' or all can be seen."""
        image, title = (prefix + name for name in self.names)
        found: dict[str, Part] = {}
        if image in batch:
            patches = (
                self.patches(to_unit(batch[image], dtype=self.patches.positions.dtype)) + self.kinds[0][None, None]
            )
            there = jnp.any(batch[image] != 0, axis=(1, 2, 3))
            found["image"] = patches, jnp.broadcast_to(there[:, None], patches.shape[:2])
        if title in batch:
            words = self.positions(self.tokens(batch[title])) + self.kinds[1][None, None]
            found["text"] = words, valid(batch, title)
        if len(found) < 2:
            return found
        (patches, seen), (words, said) = found.values()
        x, none = jnp.concatenate([patches, words], axis=1), (jnp.zeros_like(seen), jnp.zeros_like(said))
        masks = {"image": (seen, none[1]), "text": (none[0], said), "both": (seen, said)}
        return {name: (x, jnp.concatenate(mask, axis=1)) for name, mask in masks.items()}

    def _vectors(
        self, x: Float[Array, "b n d"], where: Bool[Array, "b n"], *, rngs: nnx.Rngs | None
    ) -> Float[Array, "b e"]:
        cls = jnp.broadcast_to(self.cls[...][None], (x.shape[0], *self.cls.shape)).astype(x.dtype)
        x, where = jnp.concatenate([cls, x], axis=1), jnp.pad(where, ((0, 0), (1, 0)), constant_values=True)
        states: jax.Array = self.transformer(x, mask=visible(where), rngs=rngs)
        return unit(self.head(states[:, 0]))
